"""Is the judge right? A judge against labelled answers, in a run of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from valuedrift_mlflow import judges, tracking
from valuedrift_mlflow.evaluation import recorded
from valuedrift_mlflow.judges import labelled
from valuedrift_mlflow.judges.asking import reader
from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.judges.labelled import Labelled
from valuedrift_mlflow.stances import STANCES, Label, Verdict
from valuedrift_mlflow.statistics.agreement import judge_quality

if TYPE_CHECKING:
    import pandas as pd
from valuedrift_mlflow.evaluation.results import JudgeCheck


def check_judge(judge: str = "lexical", data: str = labelled.BUILT_IN, *, seed: int = 0) -> JudgeCheck:
    """Compare a judge with labels; metrics, tables and figures go to a run of their own (nested where one is active).

    Args:
        judge: URI of the judge.
        data: labelled answers, see `labelled.load_answers`.
        seed: fixes the intervals.

    Raises:
        InputError: an unknown judge, bad data, or the judge ``likelihood``, which reads no responses.
    """
    loaded, answers = prepare(judge, data)
    with tracking.run(
        "judge_check", name=f"check_judge · {loaded.name}", parameters={"judge": judge, "data": data}
    ) as active:
        recorded.log_labelled(active, answers, data)
        verdicts = loaded.judge([entry.answer for entry in answers])
        groups = [entry.answer.proposition for entry in answers]
        quality = judge_quality([entry.label for entry in answers], verdicts, groups, seed)
        check = JudgeCheck(identity(loaded), answers, verdicts, quality, active.run_id)
        _log(active, check)
    return check


def prepare(judge: str, data: str) -> tuple[Judge, list[Labelled]]:
    """The judge and the labelled answers of a check.

    Raises:
        InputError: as ``check_judge``.
    """
    return reader(judges.load(judge)), labelled.load_answers(data)


def _log(run: tracking.OpenRun, check: JudgeCheck) -> None:
    from valuedrift_mlflow.evaluation.report import judge_figures

    tracking.log_metrics(run, check.metrics(), 0)
    tracking.log_table(run, judged_table(check.answers, check.verdicts, check.judge), "judged.json")
    kinds = kind_table(check.answers, check.verdicts)
    if len(kinds) > 1:
        tracking.log_table(run, kinds, "kinds.json")
    tracking.log_figures(run, judge_figures(check))


def judged_table(answers: Sequence[Labelled], verdicts: Sequence[Verdict], judge: str) -> pd.DataFrame:
    """One row for each labelled answer: what it is, its label, and what the judge said."""
    import pandas as pd

    rows = [
        {
            "kind": entry.kind,
            "proposition": entry.answer.proposition,
            "prompt": entry.answer.prompt,
            "response": entry.answer.response,
            "label": entry.label.value,
            "verdict": verdict.label.value,
            "right": verdict.label is entry.label,
            **dict(zip((s.value for s in STANCES), verdict.probabilities or (None,) * len(STANCES), strict=True)),
            "reason": verdict.reason,
            "judge": judge,
        }
        for entry, verdict in zip(answers, verdicts, strict=True)
    ]
    frame = pd.DataFrame(rows)
    return frame.astype(object).where(frame.notna(), None)


def kind_table(answers: Sequence[Labelled], verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """One row for each kind of answer: how many there are, the share scored, the share right of those scored."""
    import pandas as pd

    rows = []
    for kind in dict.fromkeys(entry.kind for entry in answers):
        own = [(e.label, v.label) for e, v in zip(answers, verdicts, strict=True) if e.kind == kind]
        scored = [(label, verdict) for label, verdict in own if verdict is not Label.UNSCORED]
        right = sum(label is verdict for label, verdict in scored)
        rows.append(
            {
                "kind": kind,
                "answers": len(own),
                "coverage": len(scored) / len(own),
                "accuracy": right / len(scored) if scored else None,
            }
        )
    return pd.DataFrame(rows)
