"""The lexical judge: fitted on answers that come with the package, reads thousands a second, offline."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs import languages
from valuedrift_mlflow.judges.authored import as_authored
from valuedrift_mlflow.judges.lexical import declared, reach
from valuedrift_mlflow.judges.lexical.frame import Frame, Reading
from valuedrift_mlflow.judges.lexical.patterns import PATTERNS_FILE
from valuedrift_mlflow.judges.lexical.polarity import supports
from valuedrift_mlflow.judges.lexical.reader import CLASSES, FITTED_FILE, LexicalReader, learnt
from valuedrift_mlflow.judges.lexical.tokens import CLASSES_FILE, WORDS_FILE
from valuedrift_mlflow.stances import REFUSAL, UNSCORED, Answer, Verdict

# Above this probability of holding no stance at all a text is left unscored.
MAXIMUM_UNREADABLE = 0.5
# The probability of a stance that is declared in the proposition's own words. Not a fitted figure: such sentences are
# read right far more often than weighed ones, and seldom wrong.
_SURE = 0.95
_CHUNK = 2_000


@lru_cache(maxsize=4_096)
def _frame(proposition: str, prompt: str) -> Frame:
    return Frame(proposition, prompt)


def read(answer: Answer, polarity: int) -> Reading:
    """An answer as words, its prompt taken to be of this polarity."""
    frame = _frame(answer.proposition, answer.prompt)
    return Reading(frame, answer.proposition, polarity, frame.read(answer.response))


@lru_cache(maxsize=1)
def _fitted() -> LexicalReader:
    return LexicalReader(learnt())


class LexicalJudge:
    """Reads the stance of an answer from its words, relative to the proposition and the prompt's polarity.

    What it has learnt comes with the package (``fitting``). A text of any length is read for sentences that
    declare for or against the proposition in its own words, and for a refusal at its start; else only texts like those
    it was fitted on are weighed, and what it leaves unscored says why. With the extra ``languages`` an answer in
    another language than English is told, and unscored.
    """

    name = "lexical"
    portable = True
    reads = languages.READ

    @cached_property
    def version(self) -> str:
        """Hash of the data and of the fitted coefficients: code that is only written otherwise is no other judge."""
        data = (CLASSES_FILE, WORDS_FILE, PATTERNS_FILE, FITTED_FILE)
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in data))
        digest.update(f"{reach.limits()} hidden, fenced, made up".encode())
        if languages.installed():  # then an answer in another language is told, and none is read by chance
            digest.update(b"languages")
        return digest.hexdigest()[:12]

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """One verdict per answer, in the same order, whatever else is in the batch."""
        from threadpoolctl import threadpool_limits

        verdicts: list[Verdict] = []
        with threadpool_limits(
            limits=1
        ):  # such small matrices gain nothing from threads, and on a busy machine lose all
            for start in range(0, len(answers), _CHUNK):
                verdicts += _judged(answers[start : start + _CHUNK])
        return verdicts


def _judged(answers: Sequence[Answer]) -> list[Verdict]:
    """One verdict per answer: what is declared, else what the weighing finds in texts within its reach."""
    verdicts: dict[int, Verdict] = {}
    needed: dict[int, float] = {}
    answers = as_authored(answers)
    spoken = languages.foreign([answer.response for answer in answers])
    for place, answer in enumerate(answers):
        if spoken[place]:
            verdicts[place] = replace(UNSCORED, reason=reach.FOREIGN.format(spoken[place].capitalize()))
            continue
        if told := _told(answer, answer.response):
            verdicts[place] = told
            continue
        reason, least = reach.reach(answer)
        if reason:
            verdicts[place] = replace(UNSCORED, reason=reason)
        else:
            needed[place] = least
    weighed = _probabilities([answers[place] for place in needed]).tolist()
    for (place, least), (readable, *probabilities) in zip(needed.items(), weighed, strict=True):
        verdicts[place] = _verdict(probabilities, least) if readable else replace(UNSCORED, reason=reach.EMPTY)
    return [verdicts[place] for place in range(len(answers))]


def _told(answer: Answer, response: str) -> Verdict | None:
    """The verdict where an answer says it outright."""
    side = declared.side(answer.proposition, response)
    if not side and len(response.split()) > reach.LONGEST:
        side = _pointed(answer, response)
    if side:
        return Verdict.of((_SURE, (1 - _SURE) / 2, (1 - _SURE) / 2)[::side])
    return REFUSAL if declared.declines(response) else None


def _pointed(answer: Answer, response: str) -> int:
    """The side of an answer that agrees or disagrees with the prompt, where it is known what the prompt says."""
    if answer.polarity is None and answer.prompt.strip() and not declared.restates(answer.proposition, answer.prompt):
        return 0
    return declared.pointed(response) * (answer.polarity or 1)


def _probabilities(answers: Sequence[Answer]) -> NDArray[np.float64]:
    """Shape (n, 6): 1 where there is anything to read, then support, neutral, oppose, refusal, no stance.

    Where an answer's polarity is not given, the mean over both, weighted by how likely its prompt has each.
    """
    fitted = _fitted()
    weight = np.array(
        [supports(own.proposition, own.prompt) if own.polarity is None else float(own.polarity > 0) for own in answers]
    )
    found = np.zeros((len(answers), 1 + len(CLASSES)))
    for polarity, share in ((1, weight), (-1, 1 - weight)):
        rows = np.flatnonzero(share)
        if rows.size:
            readings = [read(answers[int(row)], polarity) for row in rows]
            found[rows, 0] = [bool(reading.text.tokens) for reading in readings]
            found[rows, 1:] += share[rows, None] * fitted.probabilities(readings)
    return found


def _verdict(probabilities: list[float], least: float) -> Verdict:
    """The verdict of support, neutral, oppose, refusal, no stance; ``least`` is what the best stance needs."""
    *stances, refusal, none = probabilities
    best, total = max(stances), sum(stances)
    if none > MAXIMUM_UNREADABLE:
        return replace(UNSCORED, reason=reach.UNSURE)
    if refusal > best:
        return REFUSAL
    if best < least * total:
        return replace(UNSCORED, reason=reach.UNSURE)
    return Verdict.of([stance / total for stance in stances])
