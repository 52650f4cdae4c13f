"""What a pipeline's run and those of its stages say of themselves on their first pages in MLflow."""

from __future__ import annotations

from collections.abc import Sequence

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation.notes import described, told, training_note
from valuedrift_mlflow.pipeline.headline import leads
from valuedrift_mlflow.pipeline.plan import SUMMARY_COLUMNS, Plan, StageResult, certainty_lines, summary_rows
from valuedrift_mlflow.report.tables import Table


def stage_note(result: StageResult) -> str:
    """Of one stage: what moved, topic by topic."""
    parent = tracking.parent_of(result.run_id)
    report = {"report of all stages": tracking.page_of(parent, "report.html")} if parent else {}
    return training_note(result.run_id, result.measurements, result.drift, result.trust, report)


def pipeline_note(run_id: str, plan: Plan, results: Sequence[StageResult]) -> str:
    """Of a pipeline: what each stage moved, and the table of all stages with links to their runs."""
    said = "\n".join(f"- {told(lead)}" for lead in leads(results, plan.suite))
    rows = [
        [f"[{name}]({tracking.page_of(result.run_id)})", *cells]
        for result, (name, *cells) in zip(results, summary_rows(results), strict=True)
    ]
    sure = certainty_lines(results)
    files = {"report": "report.html", "figures": "figures", "methods": "methods.txt"}
    return described(run_id, said, Table(SUMMARY_COLUMNS, rows), sure, files)
