"""Is the judge right? A judge against labelled answers, in a run of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from valuedrift_mlflow import judges, tracking
from valuedrift_mlflow.evaluation import recorded
from valuedrift_mlflow.judges import labelled
from valuedrift_mlflow.judges.asking import reader
from valuedrift_mlflow.judges.auto import AUTO
from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.judges.labelled import Labelled
from valuedrift_mlflow.stances import STANCES, Label, Verdict
from valuedrift_mlflow.statistics.agreement import cohen_kappa, judge_quality

if TYPE_CHECKING:
    import pandas as pd
from valuedrift_mlflow.evaluation.results import JudgeCheck

_LENGTHS = ((20, "to 20 words"), (80, "21 to 80 words"), (200, "81 to 200 words"))
_LONGER = "over 200 words"


def check_judge(judge: str = AUTO, data: str = labelled.BUILT_IN, *, seed: int = 0) -> JudgeCheck:
    """Compare a judge with labels; metrics, tables and figures go to a run of their own (nested where one is active).

    Args:
        judge: URI of the judge.
        data: labelled answers, one set or several separated by commas, see `labelled.load_answers`.
        seed: without effect: nothing is drawn any more.

    Raises:
        InputError: an unknown judge, bad data, or the judge ``likelihood``, which reads no responses.
    """
    loaded, answers = prepare(judge, data)
    with tracking.run(
        "judge_check", name=f"check_judge · {loaded.name}", parameters={"judge": judge, "data": data}
    ) as active:
        recorded.log_labelled(active, answers, data)
        verdicts = loaded.judge([entry.answer for entry in answers])
        # The intervals are over propositions: answers to one of them are right or wrong together more often than not.
        groups = [entry.answer.proposition for entry in answers]
        quality = judge_quality([entry.label for entry in answers], verdicts, groups)
        check = JudgeCheck(identity(loaded), answers, verdicts, quality, active.run_id)
        log_check(active, check)
    return check


def prepare(judge: str, data: str) -> tuple[Judge, list[Labelled]]:
    """The judge and the labelled answers of a check.

    Raises:
        InputError: as ``check_judge``.
    """
    return reader(judges.load(judge)), labelled.load_answers(data)


def log_check(run: tracking.OpenRun, check: JudgeCheck) -> None:
    """Log the metrics, tables and figures of a check to a run."""
    from valuedrift_mlflow.evaluation.notes import check_note
    from valuedrift_mlflow.evaluation.report import judge_figures
    from valuedrift_mlflow.report.page import drawn

    tracking.log_metrics(run, check.metrics(), 0)
    tracking.log_table(run, judged_table(check.answers, check.verdicts, check.judge), "judged.json")
    for name, table in group_tables(check).items():
        tracking.log_table(run, table, f"{name}.json")
    tracking.log_figures(run, drawn(judge_figures(check)))
    tracking.describe(run, check_note(check))


def judged_table(answers: Sequence[Labelled], verdicts: Sequence[Verdict], judge: str) -> pd.DataFrame:
    """One row for each labelled answer: what it is, its label, and what the judge said."""
    import pandas as pd

    rows = [
        {
            "set": entry.source,
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
    # As objects, or None would turn back into NaN, which JSON has not.
    return frame.astype(object).where(frame.notna(), None)


def lengths(entry: Labelled) -> str:
    """The class of length that an answer's response is in, by its words."""
    words = len(entry.answer.response.split())
    return next((name for most, name in _LENGTHS if words <= most), _LONGER)


def group_table(
    answers: Sequence[Labelled], verdicts: Sequence[Verdict], name: str, group: Callable[[Labelled], str]
) -> pd.DataFrame:
    """One row for each group of answers: how many there are, the share scored, of those the share right and kappa."""
    import pandas as pd

    rows = []
    groups = [group(entry) for entry in answers]
    for one in dict.fromkeys(groups):
        own = [(e.label, v.label) for e, v, g in zip(answers, verdicts, groups, strict=True) if g == one]
        scored = [(label, verdict) for label, verdict in own if verdict is not Label.UNSCORED]
        right = sum(label is verdict for label, verdict in scored)
        kappa = cohen_kappa([label for label, _ in scored], [verdict for _, verdict in scored])
        rows.append(
            {
                name: one,
                "answers": len(own),
                "coverage": len(scored) / len(own),
                "accuracy": right / len(scored) if scored else None,
                "kappa": kappa if math.isfinite(kappa) else None,
            }
        )
    return pd.DataFrame(rows)


def group_tables(check: JudgeCheck) -> dict[str, pd.DataFrame]:
    """The tables of a check by set, kind and length of the answers, those with more than one row."""
    by: dict[str, Callable[[Labelled], str]] = {
        "set": attrgetter("source"),
        "kind": attrgetter("kind"),
        "length": lengths,
    }
    tables = {f"{name}s": group_table(check.answers, check.verdicts, name, group) for name, group in by.items()}
    return {name: table for name, table in tables.items() if len(table) > 1}
