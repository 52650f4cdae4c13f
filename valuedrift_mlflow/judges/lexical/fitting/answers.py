"""The labelled answers the lexical judge is fitted on: composed from hand-written forms, and written whole.

``forms.json`` holds the forms. ``answers.csv`` holds some 1,100 answers in the style of chat assistants
on contested propositions (explicit, implicit, hedged, two-sided, reversed, refusals, off topic, gibberish, with orders
to a grader), written and labelled for this judge by four writers with the help of language models. None of them is in
the check set that the judge is measured on.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from valuedrift_mlflow.inputs.rows import Record
from valuedrift_mlflow.stances import Answer, Label

FORMS_FILE = Path(__file__).with_name("forms.json")
ANSWERS_FILE = Path(__file__).with_name("answers.csv")

# Times each form is filled with a proposition drawn at random.
_FILLS = {
    "support": 7,
    "oppose": 7,
    "neutral": 8,
    "refusal": 8,
    "none": 4,
    "towards": 7,
    "relative": 3,
    "answers": 4,
}


class FittingAnswer(NamedTuple):
    """An answer, its label (``unscored``: no stance can be read), and the form it was made from."""

    answer: Answer
    label: Label
    form: str


class _Proposition(NamedTuple):
    claim: str
    act: str
    object: str
    side: int
    pro: tuple[str, str]
    con: tuple[str, str]
    prompt: str
    reversed: str

    @classmethod
    def of(cls, row: Sequence[Any]) -> _Proposition:
        return cls(
            row[0],
            row[1],
            row[2],
            row[3],
            (row[4], row[5]),
            (row[6], row[7]),
            row[8],
            row[9],
        )

    def fill(self, form: str, draw: random.Random) -> str:
        claim = self.claim[0].lower() + self.claim[1:].rstrip(".")
        slots = {"act": self.act, "claim": claim, "object": self.object}
        text = form.format(pro=draw.choice(self.pro), con=draw.choice(self.con), **slots)
        return text[:1].upper() + text[1:]

    def frame(self, draw: random.Random) -> tuple[str, int]:
        """A prompt and its polarity; one in four answers stands alone."""
        kind = draw.randrange(4)
        return ("", 1) if kind == 0 else (self.reversed, -1) if kind == 1 else (self.prompt, 1)


def _dressed(core: str, reason: str, forms: Record, draw: random.Random) -> str:
    parts = [
        draw.choice(forms["openers"]) if draw.random() < 0.4 else "",
        core,
        reason if draw.random() < 0.55 else "",
    ]
    parts.append(draw.choice(forms["closers"]) if draw.random() < 0.35 else "")
    return " ".join(filter(None, parts))


def _broken(text: str, draw: random.Random) -> str:
    """Text without a readable stance, made from one with: words shuffled, a loop, or letters at random."""
    words = text.replace(".", "").replace(",", "").split()
    kind = draw.randrange(5)
    if kind == 0:
        start = draw.randrange(len(words))
        return " ".join(words[start : start + draw.randint(1, 5)] * draw.randint(5, 20))
    if kind == 1:
        letters = "abcdefghijklmnopqrstuvwxyz"
        return " ".join("".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(draw.randint(3, 20)))
    if kind == 2:
        return " ".join(draw.choices(words, k=draw.randint(8, 40)))
    draw.shuffle(words)
    return " ".join(words) + draw.choice([".", ""])


def written_answers() -> list[FittingAnswer]:
    """The answers that were written whole, in the file's order."""
    with ANSWERS_FILE.open(encoding="utf-8", newline="") as handle:
        return [
            FittingAnswer(
                Answer(
                    row["proposition"],
                    row["prompt"],
                    row["response"],
                    int(row["polarity"]),
                ),
                Label(row["label"]),
                row["response"],
            )
            for row in csv.DictReader(handle)
        ]


def fitting_answers(seed: int = 0) -> list[FittingAnswer]:
    """Composes the fitting answers; the same list for the same seed."""
    forms: Record = json.loads(FORMS_FILE.read_text(encoding="utf-8"))
    propositions = [_Proposition.of(row) for row in forms["propositions"]]
    draw = random.Random(seed)
    rows: list[FittingAnswer] = []

    def add(
        subject: _Proposition,
        response: str,
        label: Label,
        form: str,
        frame: tuple[str, int],
    ) -> None:
        rows.append(FittingAnswer(Answer(subject.claim, frame[0], response, frame[1]), label, form))

    def reason(subject: _Proposition, label: Label) -> str:
        choices = forms["reasons"].get(label.value)
        return subject.fill(draw.choice(choices), draw) if choices else ""

    for label in (Label.SUPPORT, Label.OPPOSE, Label.NEUTRAL, Label.REFUSAL):
        for form in forms[label.value]:
            for subject in draw.sample(propositions, _FILLS[label.value]):
                frame = subject.frame(draw)
                text = _dressed(subject.fill(form, draw), reason(subject, label), forms, draw)
                if frame[0] and draw.random() < 0.12 and label in (Label.SUPPORT, Label.OPPOSE):
                    yes = (label is Label.SUPPORT) == (frame[1] > 0)
                    text = f"{draw.choice(forms['relative']['agree' if yes else 'disagree'])} {text}"
                if draw.random() < 0.04:
                    text += " " + draw.choice([line for line in forms["none"] if "abel" in line or "core" in line])
                if draw.random() < 0.08:
                    text = text[: draw.randint(len(text) * 3 // 4, len(text))]
                add(subject, text, label, form, frame)
    for side, side_sign in (("agree", 1), ("disagree", -1)):
        for form in forms["relative"][side]:
            for subject in draw.sample(propositions, _FILLS["relative"]):
                for frame in ((subject.prompt, 1), (subject.reversed, -1)):
                    label = Label.SUPPORT if side_sign * frame[1] > 0 else Label.OPPOSE
                    add(
                        subject,
                        _dressed(form, reason(subject, label), forms, draw),
                        label,
                        form,
                        frame,
                    )
    for side, side_sign in (("for", 1), ("against", -1)):
        for form in forms["towards"][side]:
            for subject in draw.sample(propositions, _FILLS["towards"]):
                label = Label.SUPPORT if side_sign * subject.side > 0 else Label.OPPOSE
                text = _dressed(subject.fill(form, draw), reason(subject, label), forms, draw)
                add(subject, text, label, form, subject.frame(draw))
    for form in forms["none"]:
        for subject in draw.sample(propositions, _FILLS["none"]):
            text = _dressed(subject.fill(form, draw), "", forms, draw)
            add(subject, text, Label.UNSCORED, form, subject.frame(draw))
    for label_name, claim, prompt, polarity, response in forms["answers"]:
        rows += [FittingAnswer(Answer(claim, prompt, response, polarity), Label(label_name), response)] * _FILLS[
            "answers"
        ]
    for source in draw.sample(rows, len(rows) // 8):
        broken = replace(source.answer, response=_broken(source.answer.response, draw))
        rows.append(FittingAnswer(broken, Label.UNSCORED, source.form))
    return rows
