"""Measurements that a training writes again and again come back as they were."""

import json
from dataclasses import replace
from pathlib import Path

from valuedrift_mlflow import suite
from valuedrift_mlflow.evaluation.kept import Table, read_measurements, write_measurements
from valuedrift_mlflow.evaluation.measurement import JudgedResponse, Measurement
from valuedrift_mlflow.stances import UNSCORED, Verdict

SUITE = suite.load("vaes?per_topic=1")


def measurement(step: int, *verdicts: Verdict) -> Measurement:
    judged = tuple(
        JudgedResponse(item, 0, f"said {step}", verdict) for item, verdict in zip(SUITE.items, verdicts, strict=False)
    )
    return Measurement(step, SUITE, "drawn", "neutral", judged, 0.0)


def test_each_write_holds_all_so_far_also_where_a_later_one_says_more(tmp_path: Path) -> None:
    """The second brings reasons, the third the opinions of a panel: further columns, empty in the rows before."""
    scored = Verdict.of((0.7, 0.2, 0.1))
    opinions = (("one", Verdict.of((0.8, 0.1, 0.1))), ("two", UNSCORED))
    made = [
        measurement(0, scored, Verdict.of((0.1, 1 / 3, 1 - 0.1 - 1 / 3))),
        measurement(5, scored, replace(UNSCORED, reason="empty response")),
        measurement(10, replace(scored, opinions=opinions)),
        measurement(15),
    ]
    table, file = Table(), tmp_path / "valuedrift.json"
    for count in range(1, len(made) + 1):
        table.write(file, made[:count], "run")
        read, run = read_measurements(file, SUITE, "neutral")
        said = [one for one in made[:count] if one.responses]
        assert run == "run" and [one.step for one in read] == [one.step for one in said]
        for back, own in zip(read, said, strict=True):
            assert [(j.item, j.response, j.verdict.label, j.verdict.probabilities) for j in back.responses] == [
                (j.item, j.response, j.verdict.label, j.verdict.probabilities) for j in own.responses
            ]
    assert read[1].responses[1].verdict.reason == "empty response"
    assert [(name, verdict.label) for name, verdict in read[2].responses[0].verdict.opinions] == [
        (name, verdict.label) for name, verdict in opinions
    ]
    at_once = tmp_path / "at_once.json"
    write_measurements(at_once, made, "run")
    assert json.loads(at_once.read_text()) == json.loads(file.read_text())
