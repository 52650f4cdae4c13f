"""Dialogues as token ids of which the assistant's turns alone are trained, whatever the chat template."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow.data.arrow_rows import as_dataset, store
from valuedrift_mlflow.data.messages import Message
from valuedrift_mlflow.data.turns import alike
from valuedrift_mlflow.models.ending import turn_end
from valuedrift_mlflow.stages.lengths import fit
from valuedrift_mlflow.stages.stage import Job

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_UNTRAINED = -100  # what cross-entropy leaves out


def answers_alone(job: Job) -> datasets.Dataset:
    """The stage's rows for TRL's SFTTrainer, so that nothing but answers is trained.

    Rows of one answer each stay prompt and completion, whose mask TRL makes. Where a row has several, all rows are
    ``input_ids`` and ``labels`` (-100 outside the answers): TRL would train what users say between them.
    """
    rows = fit(job)
    if job.tokenizer.chat_template is None or all(len(row["completion"]) == 1 for row in rows):
        return rows
    cut: list[int] = []
    dialogues = store(_labelled(job, rows, cut))
    if sum(cut):
        lost, most = sum(cut), job.stage.max_length
        logger.warning("%s: %d answers begin behind max_length (%d) and are not trained", job.stage.name, lost, most)
    return as_dataset(dialogues)


def _labelled(job: Job, rows: datasets.Dataset, cut: list[int]) -> Iterator[dict[str, list[int]]]:
    """``cut`` gets of every row the answers that begin behind ``max_length``."""
    for row in rows:
        ids, spans = spoken(job.tokenizer, row["prompt"], row["completion"])
        labels = [_UNTRAINED] * len(ids)
        for begin, end in spans:
            labels[begin:end] = ids[begin:end]
        cut.append(sum(begin >= job.stage.max_length for begin, _ in spans))
        yield {"input_ids": ids, "labels": labels}


def spoken(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], completion: Sequence[Message]
) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of a dialogue, and where each of the completion's answers begins and ends in them.

    A template with generation marks says itself what is generated. Else an answer begins where the dialogue before it
    ends as evaluation asks it, and ends where the dialogue up to it ends. Where the template shows an earlier answer
    otherwise than a last one (without its thought), it ends with the first token that ends a turn.
    """
    messages = [*prompt, *completion]
    answers = [at for at in range(len(prompt), len(messages)) if messages[at]["role"] == "assistant"]
    if _MARK.search(str(tokenizer.chat_template)):
        return _marked(tokenizer, messages, prompt)
    whole = _ids(tokenizer, messages)
    ends = {tokenizer.eos_token_id, turn_end(tokenizer)} - {None}
    spans = []
    for at in answers:
        begin = alike(_ids(tokenizer, messages[:at], ask=True), whole)
        said = _ids(tokenizer, messages[: at + 1])
        if whole[: len(said)] == said:
            end = len(said)
        else:
            end = next((place + 1 for place in range(begin, len(whole)) if whole[place] in ends), len(whole))
        spans.append((begin, end))
    return whole, spans


def _marked(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], prompt: Sequence[Message]
) -> tuple[list[int], list[tuple[int, int]]]:
    """What generation marks say, behind the prompt."""
    made: Any = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = list(made["input_ids"]), list(made["assistant_masks"])
    first = alike(_ids(tokenizer, prompt, ask=True), ids)
    mask[:first] = [0] * first
    edges = [at for at in range(len(mask) + 1) if (mask[at : at + 1] or [0])[0] != (mask[at - 1] if at else 0)]
    return ids, list(zip(edges[::2], edges[1::2], strict=True))


def _ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, ask: bool = False) -> list[int]:
    return list(
        tokenizer.apply_chat_template(list(messages), tokenize=True, add_generation_prompt=ask, return_dict=False)
    )
