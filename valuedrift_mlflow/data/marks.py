r"""Turns within a text: the marks with which chat templates and older prompts write who speaks.

Marks that are tokens (``<|im_start|>``) stand in no text by chance. Marks that are words (``Human:``) do: a text has
turns by words only where it begins with one and the other speaker follows.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from valuedrift_mlflow.data.messages import Message, user

_ROLES = {
    **{"system": "system", "sys": "system", "developer": "system"},
    **{"user": "user", "human": "user", "prompter": "user", "instruction": "user", "question": "user"},
    **{"assistant": "assistant", "model": "assistant", "bot": "assistant", "chatbot": "assistant"},
    **{"response": "assistant", "gpt": "assistant", "answer": "assistant", "ai": "assistant"},
    **{"tool": "tool", "ipython": "tool", "input": "input"},
}


class _Dialect(NamedTuple):
    """How one family of templates marks turns: ``mark`` has the role as its group, ``end`` is no part of a turn."""

    mark: re.Pattern[str]
    # (?!) matches nowhere: some dialects mark no end.
    end: re.Pattern[str] = re.compile(r"(?!)")


def _marked(mark: str, end: str = r"(?!)") -> _Dialect:
    return _Dialect(re.compile(mark, re.IGNORECASE), re.compile(end, re.IGNORECASE))


_SPEAKERS = "system|user|human|assistant|model|bot|chatbot|prompter|developer|tool|ipython|gpt"
_TOKENS = (
    _marked(rf"<\|im_start\|>({_SPEAKERS})[^\n]*\n", r"<\|im_end\|>|<\|endoftext\|>"),
    _marked(
        rf"<\|start_header_id\|>({_SPEAKERS})<\|end_header_id\|>\n*",
        r"<\|eot_id\|>|<\|begin_of_text\|>|<\|end_of_text\|>",
    ),
    _marked(r"<start_of_turn>(user|model|system)\n", r"<end_of_turn>|<bos>|<eos>"),
    _marked(r"(?:<\|START_OF_TURN_TOKEN\|>)?<\|(USER|CHATBOT|SYSTEM)_TOKEN\|>", r"<\|END_OF_TURN_TOKEN\|>|<BOS_TOKEN>"),
    _marked(r"<｜(User|Assistant|System)｜>", r"<｜(?:begin|end)▁of▁sentence｜>"),
    _marked(rf"<\|header_start\|>({_SPEAKERS})<\|header_end\|>\n*", r"<\|eot\|>|<\|begin_of_text\|>"),  # Llama 4
    _marked(rf"<\|start_of_role\|>({_SPEAKERS})[^<]*<\|end_of_role\|>", r"<\|end_of_text\|>"),  # Granite
    _marked(rf"\[\|({_SPEAKERS})\|\]", r"\[\|endofturn\|\]"),  # EXAONE
    _marked(rf"<\|({_SPEAKERS})\|>\n?", r"\[gMASK\]|<sop>|</s>|<s>|<\|end\|>|<\|endoftext\|>"),
)
_INST = re.compile(r"\[INST\]|\[/INST\]")
_SYS = re.compile(r"<<SYS>>\s*(.*?)\s*<</SYS>>\s*", re.DOTALL)
_WORDS = (
    _marked(r"(?:^|\n\n)(Human|Assistant|System):"),
    _marked(r"#{2,3} ?(Human|Assistant|User|System|Instruction|Input|Response|Question|Answer|Bot|AI|GPT) ?:? ?\n?"),
    _marked(r"(?:^|\n)<(human|bot|user|assistant)>:?"),
    _Dialect(re.compile(r"(?:^|\s)(USER|ASSISTANT):"), re.compile(r"</s>")),
    _marked(r"(?:^|\n)(Human|User|Assistant|System|AI|Bot):"),
)
_MAY_BEGIN = re.compile(r"\s*(?:#{2,3}|<|Below is|[A-Za-z]{2,9}:)")
# What stands before the first turn in Alpaca's prompts: the template's own words.
_PREFACE = re.compile(r"\s*(?:<s>|<\|begin_of_text\|>)?\s*Below is an instruction[^#]*", re.IGNORECASE)
_ENDS = re.compile(r"(?:</s>|<\|endoftext\|>|<\|end_of_text\|>|<eos>)\s*$")
_SYSTEM_PROMPT = re.compile(r"\[/?SYSTEM_PROMPT\]")  # Mistral's
_END = re.compile(
    r"(?:\s*(?:<\|(?:im_end|eot_id|eot|end|endoftext|end_of_text)\|>|<end_of_turn>|\[\|endofturn\|\]|</s>))+\s*$"
)
_SPEAKER = re.compile(r"\s*(?:Human|User|USER): ?(?=\S)")
_CUE = re.compile(r"\n\s*(?:Assistant|ASSISTANT|AI|Bot|### (?:Assistant|Response)):\s*$")  # where the answer goes
_TOKEN = re.compile(
    r"<\|(?:im_start|im_end|start_header_id|end_header_id|eot_id|begin_of_text|START_OF_TURN_TOKEN|END_OF_TURN_TOKEN)\|>"
    r"|<\|(?:header_start|header_end|eot|start_of_role|end_of_role)\|>|\[\|(?:user|assistant|system|endofturn)\|\]"
    r"|<\|start\|>(?=user|system|developer)"  # of OpenAI's open models, whose turns have channels: they are refused
    r"|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|<｜(?:User|Assistant)｜>|<\|(?:user|assistant|system|prompter)\|>"
)
_HH = {"\n\nHuman:": "user", "\n\nAssistant:": "assistant"}
_HH_TURN = re.compile(f"({'|'.join(_HH)})")


def dialogue(text: str) -> list[Message]:
    r"""Split an HH-RLHF dialogue at its turns.

    >>> dialogue("\n\nHuman: Hi\n\nAssistant: Hello")
    [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]
    """
    _, *pieces = _HH_TURN.split(text)  # a mark and what follows it, in turn
    messages: list[Message] = []
    for mark, told in zip(pieces[::2], pieces[1::2], strict=True):
        role, content = _HH[mark], told.strip()
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{content}"
        else:
            messages.append({"role": role, "content": content})
    return messages


def turns(text: str) -> list[Message] | None:
    r"""The turns that a text's marks divide it into; None where it is a text like any other.

    An empty turn of the assistant at the end is kept: there the answer goes.

    >>> turns("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': ''}]
    >>> turns("### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:\n3")
    [{'role': 'user', 'content': 'Add.\n\n1, 2'}, {'role': 'assistant', 'content': '3'}]
    >>> turns("What does 'User: hi' mean in a chat log?")
    """
    if token(text):
        if _INST.search(text):
            return _bracketed(text)
        made = [_split(text, dialect) for dialect in _TOKENS if dialect.mark.search(text)]
        return made[0] if made else None
    # Most texts begin otherwise, and are done with here.
    if not _MAY_BEGIN.match(text):
        return None
    if text.lstrip().startswith("Human:") and "\n\nAssistant:" in text:
        return dialogue(text if text.startswith("\n\n") else f"\n\n{text.lstrip()}")
    preface = _PREFACE.match(text)
    told = text[preface.end() if preface else 0 :].lstrip()
    for dialect in _WORDS:
        first = dialect.mark.match(told)
        user_begins = first is not None and _ROLES[first[1].lower()] in ("user", "system")
        if user_begins and {"user", "assistant"} <= {_ROLES[mark[1].lower()] for mark in dialect.mark.finditer(told)}:
            return _split(told, dialect)
    return None


def token(text: str) -> str:
    """The first mark of a chat template in a text that stands in none by chance; empty where there is none."""
    if "<" not in text and "[" not in text:  # so most texts are, and this is quicker to see
        return ""
    found = _TOKEN.search(text)
    return found[0] if found else ""


def unspoken(text: str) -> str:
    r"""A prompt without the mark of a user that it begins with, and without that of the answer at its end.

    >>> unspoken("User: Is it fair?"), unspoken("Is it fair?\nAssistant:")
    ('Is it fair?', 'Is it fair?')
    """
    mark = _SPEAKER.match(text)
    text = text[mark.end() :] if mark else text
    return _CUE.sub("", text) if text.rstrip().endswith(":") else text


def unended(text: str) -> str:
    """An answer without the marks that end a turn in a template.

    >>> unended("Yes.<|im_end|>")
    'Yes.'
    """
    return _END.sub("", text)


def unstopped(text: str) -> str:
    """An answer without the tokenizer's end of text at its end, which trainers put there themselves.

    >>> unstopped("Yes.</s>"), unstopped("It is <s>not</s>")
    ('Yes.', 'It is <s>not</s>')
    """
    return text if "<s>" in text else _ENDS.sub("", text)


def _split(text: str, dialect: _Dialect) -> list[Message]:
    marks = list(dialect.mark.finditer(text))
    before = dialect.end.sub("", text[: marks[0].start()]).strip()
    messages: list[Message] = [{"role": "system", "content": before}] if before else []
    for at, mark in enumerate(marks):
        end = marks[at + 1].start() if at + 1 < len(marks) else len(text)
        content = _ENDS.sub("", dialect.end.sub("", text[mark.end() : end]).strip()).strip()
        role = _ROLES[mark[1].lower()]
        if role == "input" or (messages and messages[-1]["role"] == role):
            role = messages[-1]["role"] if messages else "user"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] = f"{messages[-1]['content']}\n\n{content}".strip()
        else:
            messages.append({"role": role, "content": content})
    return messages


def _bracketed(text: str) -> list[Message]:
    """The turns of Llama 2 and Mistral: users within [INST] and [/INST], answers after it, a system's before all."""
    before, *parts = re.split(r"\[INST\]", re.sub(r"<s>|</s>", "", text))
    before = _SYSTEM_PROMPT.sub("", before).strip()
    messages: list[Message] = [{"role": "system", "content": before}] if before else []
    for part in parts:
        asked, _, answer = part.partition("[/INST]")
        told = _SYS.search(asked)
        if told and told[1]:
            messages.append({"role": "system", "content": told[1]})
        messages += [user(_SYS.sub("", asked).strip()), {"role": "assistant", "content": answer.strip()}]
    return messages
