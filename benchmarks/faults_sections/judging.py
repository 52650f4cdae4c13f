"""Judges behind servers that fail: whatever is scored is right, and the rest is unscored."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from faulty_server import PASSING, SILENT, Body, Fault, FaultyServer, Reply

from faults_sections.place import Outcome
from valuedrift_mlflow.judges.chat import ChatJudge
from valuedrift_mlflow.models.server import Server
from valuedrift_mlflow.stances import Answer, Label

_LABELS = [Label.SUPPORT, Label.NEUTRAL, Label.OPPOSE]


def faults(calls: int) -> Iterator[Outcome]:
    """``calls`` answers, judged while 30 % and 90 % of the server's replies go wrong in one of eight ways."""
    for share in (0.3, 0.9):
        fault = f"{calls:,} answers, {share:.0%} of its replies faulty"
        yield Outcome("a judge's server", fault, _judged(calls, share))


def _judged(calls: int, share: float) -> str:
    dice = random.Random(0)
    passing = [fault for fault in PASSING if fault is not SILENT]  # which waits, and no more than that
    answers = [Answer("P.", "Q?", f"{_LABELS[number % 3].value} number {number}.") for number in range(calls)]

    def reply(body: Body) -> Reply | Fault:
        if dice.random() < share:
            return dice.choice(passing)
        lines = dict(line.split(": ", 1) for line in str(body["messages"][-1]["content"]).splitlines())
        return Reply(json.loads(lines["RESPONSE"]).split()[0])

    with FaultyServer(reply) as server:
        judge = ChatJudge(Server("m", server.url, 16, timeout=20.0, attempts=12), wait_seconds=0.001)
        verdicts = judge.judge(answers)
    wrong = sum(verdict.label not in (Label.UNSCORED, _LABELS[number % 3]) for number, verdict in enumerate(verdicts))
    lost = sum(verdict.label is Label.UNSCORED for verdict in verdicts)
    # Twelve tries fail together with share ** 12; twice that and a few are no accident.
    many = lost > 2 * calls * share**12 + 5
    return f"{wrong} wrong" if wrong else f"{lost} of {calls} unscored" if many else ""
