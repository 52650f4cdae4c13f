"""The names that people give to the columns of training data, and how those of one set are found among its columns.

Readers know one name for a thing (``prompt``, ``chosen``, ``first_score``). Here stand the names that it has in the
field, the most telling first; upper and lower case, spaces and hyphens make no difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from valuedrift_mlflow.inputs.tables import plain

_WORTH = ("score", "rating", "reward", "grade", "overall_score")
_TEXTS = (
    *("prompt", "instruction", "question", "query", "input", "inputs", "user_prompt", "input_text", "problem"),
    *(
        "user_query",
        "user_input",
        "request",
        "instructions",
        "orig_instruction",
        "user",
        "human",
        "post",
        "info",
        "post_text",
    ),
)
_DIALOGUES = ("messages", "conversations", "conversation", "dialog", "dialogue", "trajectory", "contents", "chat")
_RESPONSES = (
    *(
        "completion",
        "response",
        "output",
        "solution",
        "generated_solution",
        "answer",
        "targets",
        "target",
        "output_text",
    ),
    *("outputs", "assistant", "reply", "generation", "model_response", "model_output", "generated_text", "chatgpt"),
    *("gpt", "bot", "response_text", "orig_response", "label"),
)
_REJECTED = (
    *("rejected_response", "rejected_messages", "rejected", "rejected_output", "rejected_answer"),
    *("rejected_completion", "negative_response", "bad_response"),
)


BAD = ("is_unsafe", "is_harmful", "is_bad", "undesirable", "thumbs_down")  # labels that are true of bad answers


def _worth_of(side: str) -> tuple[str, ...]:
    return tuple(name for worth in _WORTH for name in (f"{side}_{worth}", f"{worth}_{side}"))


ALIASES: dict[str, tuple[str, ...]] = {
    "prompt": (*_TEXTS, "context_messages", "context", "contents", "history"),
    "instruction": ("instruction", "instructions"),
    "dialogue": (*_DIALOGUES, "context_messages"),
    "messages": ("messages", "dialog", "dialogue", "dialogs", "dialogues", "chat", "chat_messages", "turns"),
    "data": ("data",),
    "more": ("input", "context", "inputs", "input_text"),
    "completion": _RESPONSES,
    "rejected_one": _REJECTED,
    "text": ("text", "texts", "content", "document", "raw_text"),
    "label": (
        "label",
        "kto_tag",
        "desirable",
        "is_desirable",
        "is_good",
        "is_preferred",
        "liked",
        "thumbs_up",
        "is_safe",
        "feedback",
        *BAD,
    ),
    "system": (
        *("system", "system_prompt", "systeminstruction", "system_instruction", "system_message", "sys_prompt"),
        "sysprompt",
    ),
    "history": ("history", "chat_history", "dialog_history", "dialogue_history", "previous_turns"),
    "winner": (
        *("winner", "better_response_id", "preference", "preferred", "preferred_response", "orig_preference"),
        *("human_preference", "preference_label", "winning_response", "better_response", "better", "best", "choice"),
        *("vote", "verdict", "selected", "chosen", "best_response", "best_answer", "safer_response_id"),
        *("labels", "label"),
    ),
    "chosen_score": _worth_of("chosen"),
    "rejected_score": _worth_of("rejected"),
    "tree": ("prompt", "tree"),
    "strength": ("preference_strength", "overall_preference"),
    "answers": (
        *("completions", "answers", "responses", "generations", "candidates", "outputs", "replies", "summaries"),
        *("texts", "all_generated_responses", "choices"),
    ),
    "ratings": (
        *("ratings", "scores", "rating", "score", "rewards", "overall_scores", "ranks", "rankings", "ranking", "rank"),
        *("all_rm_scores", "reward"),
    ),
    "rating": (
        *("overall_score", "overall", "score", "rating", "helpfulness", "quality", "reward", "human_score", "rank"),
        *("overall_rating", "reward_score", "usefulness", "orig_score"),
    ),
}
# Two columns for the two sides of a pair.
_SIDES = (
    *(("chosen", "rejected"), ("chosen", "reject"), ("preferred_output", "non_preferred_output")),
    *(("preferred", "dispreferred"), ("preferred", "rejected"), ("preferred", "non_preferred")),
    *(("accepted", "rejected"), ("accept", "reject"), ("win", "lose"), ("winner", "loser"), ("better", "worse")),
    *(("positive", "negative"), ("pos", "neg"), ("pos_resp", "neg_resp"), ("y_w", "y_l"), ("best", "worst")),
    ("response_j", "response_k"),
)
_SIDE_WORDS = (
    *(("chosen", "rejected"), ("preferred", "dispreferred"), ("preferred", "rejected"), ("accepted", "rejected")),
    *(
        ("winning", "losing"),
        ("win", "lose"),
        ("winner", "loser"),
        ("better", "worse"),
        ("positive", "negative"),
        ("good", "bad"),
        ("best", "worst"),
    ),
)
_ANSWERS = (
    *("response", "answer", "output", "completion", "candidate", "text", "reply", "generation", "summary", "comment"),
    *("ref", "conversation", "messages", "chat"),
)
_ANSWER = f"(?:{'|'.join(_ANSWERS)})"
_OF_TWO = (
    re.compile(rf"(?P<before>(?:\w+_)?{_ANSWER}_?)(?P<which>0|1|a)(?P<after>)"),
    re.compile(rf"(?P<before>(?:model|assistant|option|candidate|side)_?)(?P<which>0|1|a)(?P<after>_{_ANSWER})"),
)
_NEXT = {"0": "1", "1": "2", "a": "b"}
_BEYOND = {"0": "2", "1": "3", "a": "c"}


def apart(first: str, second: str) -> tuple[str, str]:
    """What two names that differ in one letter or number have in its place.

    >>> apart("model_1_answer", "model_2_answer")
    ('1', '2')
    """
    at = next(place for place, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    return first[at].lower(), second[at].lower()


def resolved(wanted: Sequence[str], columns: Iterable[str]) -> dict[str, str] | None:
    """The column of each wanted thing, None where one has none. No column is used for two things.

    >>> resolved(("prompt", "chosen", "rejected"), ["Question", "response_chosen", "response_rejected"])
    {'chosen': 'response_chosen', 'rejected': 'response_rejected', 'prompt': 'Question'}
    """
    there: dict[str, str] = {}
    for column in columns:
        # Of columns whose names read alike the first.
        there.setdefault(plain(column), column)
    found: dict[str, str] = {}
    # Both sides at once and first: one alone reads like many another column.
    for together in (("chosen", "rejected"), ("first", "second")):
        if set(together) <= set(wanted):
            found |= _sides(there) if together[0] == "chosen" else _two(there, wanted)
    for name in wanted:
        if name not in found:
            known = [there[alias] for alias in (name, *ALIASES.get(name, ())) if alias in there]
            free = [column for column in known if column not in found.values()]
            if not free:
                return None
            found[name] = free[0]
    return found


def also(wanted: Iterable[str], columns: Sequence[str], found: Mapping[str, str]) -> dict[str, str]:
    """Those of the wanted things that have a column of their own besides the found ones."""
    taken = dict(found)
    if {"first", "second"} <= set(found):
        there = {plain(column): column for column in columns}
        for side, mark in zip(("first", "second"), apart(found["first"], found["second"]), strict=True):
            models = [there[name] for name in _belonging(mark, plain(found[side]))["model"] if name in there]
            if f"{side}_model" in wanted and models:
                taken[f"{side}_model"] = models[0]
    for name in wanted:
        free = [column for column in columns if column not in taken.values()]
        if name not in taken:
            taken |= resolved((name,), free) or {}
    return taken


def _sides(there: Mapping[str, str]) -> dict[str, str]:
    written = [pair for pair in _SIDES if set(pair) <= set(there)]
    for better, worse in _SIDE_WORDS:
        for column in there:  # chosen_response, response_chosen, ...
            if better in column.split("_") and column != better:
                written.append((column, re.sub(rf"(?<![a-z]){better}(?![a-z])", worse, column)))
    for chosen, rejected in written:
        # `chosen_score` and its like say something of a side and are none.
        rated = {"score", "rating", "reward", "model", "tries", "stance", "id", "source", "policy"}
        if rejected in there and not rated & set(chosen.split("_")):
            return {"chosen": there[chosen], "rejected": there[rejected]}
    return {}


def _two(there: Mapping[str, str], wanted: Sequence[str]) -> dict[str, str]:
    """Two columns that differ in their number or letter alone, and of what is wanted what goes with each."""
    for name in there:
        for pattern in _OF_TWO:
            found = pattern.fullmatch(name)
            if not found:
                continue
            before, which, after = found["before"], found["which"], found["after"]
            siblings = {mark: f"{before}{mark}{after}" for mark in (*"01234", *"abc")}
            second = siblings[_NEXT[which]]
            # With a third one they are a list of answers. What begins at 0 is found under 0, not once more under 1.
            if second not in there or siblings[_BEYOND[which]] in there or (which == "1" and siblings["0"] in there):
                continue
            two = {"first": there[name], "second": there[second]}
            for side, mark, column in (("first", which, name), ("second", _NEXT[which], second)):
                for part, names in _belonging(mark, column).items():
                    if f"{side}_{part}" in wanted:
                        # Backwards: of several the most telling one is written last, and stays.
                        two |= {f"{side}_{part}": there[known] for known in names[::-1] if known in there}
            return two
    return {}


def _belonging(mark: str, column: str) -> dict[str, list[str]]:
    """The names that the score, the win and the model of one of two answers have."""
    return {
        "score": [
            name
            for worth in _WORTH
            for name in (f"{worth}_{mark}", f"{worth}{mark}", f"{column}_{worth}", f"{worth}_{column}")
        ],
        "won": [f"winner_model_{mark}", f"winner_{mark}", f"{mark}_wins", f"winner_{column}"],
        "model": [f"model_{mark}", f"model{mark}", f"{column}_model"],
    }
