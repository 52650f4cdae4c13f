"""How a command shows an audit, the topics that were found in data, and how far a judge can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from valuedrift_mlflow.evaluation.reliability import Reliability
    from valuedrift_mlflow.report.display import Display
    from valuedrift_mlflow.value_gap.findings import Audit, Discovery


def show_trust(trust: Reliability, display: Display) -> None:
    """Print how far the judge can be trusted, and what would be better."""
    display.line(trust.sentence)
    if trust.advice:
        display.line(trust.advice)


def show_audit(result: Audit, display: Display) -> None:
    """Print an audit's tables, what to expect, and what judge would be better."""
    from valuedrift_mlflow.value_gap.report import audit_rows, style_rows
    from valuedrift_mlflow.value_gap.row_labels import SHEET

    for line in result.about:
        display.line(line)
    columns, rows = audit_rows(result)
    turns = f" ({result.answers:,} answers)" if result.answers > result.rows else ""
    display.table(f"{result.rows:,} rows{turns} of {result.data}, read by {result.judge}", columns, rows)
    if result.style is not None:
        columns = ["style, chosen against rejected", "value [95 % interval]", "no difference"]
        display.table(f"Style gap of {result.style.pairs:,} pairs", columns, style_rows(result))
    display.line(result.verdict)
    if result.trust is not None and result.trust.advice:
        display.line(result.trust.advice)
    if result.sheet and result.overall.labelled is None:
        sheet = f"runs:/{result.run_id}/{SHEET}"
        display.line(f"To be surer: {len(result.sheet)} rows to label in {sheet}; then audit with labels=FILE")


def show_discovery(discovered: Discovery, display: Display) -> None:
    """Print the topics that were found in data, and the audit on them."""
    from valuedrift_mlflow.value_gap.discovery import SMALLEST

    suite = discovered.found.suite
    if suite is None or discovered.audit is None:
        display.line(
            f"No topic beyond the suite: of {discovered.found.questions:,} questions that ask for a view, no "
            f"{SMALLEST} are about one thing"
        )
        return
    # Reversed: the first one of a topic is written last, and stays.
    first = {item.topic: item.proposition for item in reversed(suite.items)}
    rows = [[topic, f"{count:,}", first[topic]] for topic, count in discovered.found.rows.items()]
    display.table("Topics of the data beyond the suite", ["topic", "rows", "one of its propositions"], rows)
    show_audit(discovered.audit, display)
    display.line(f"These topics are a suite: use it as suite={discovered.file}")
