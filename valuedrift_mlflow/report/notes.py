"""The description of a run, in markdown: what MLflow's UI shows on its first page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from valuedrift_mlflow.report.tables import Table

_MOST = 7000  # characters: MLflow keeps 8000 of a description
_ROWS = 20  # of a table; all of them are in the files
_GAP = "&ensp;"  # MLflow's pages set the cells of a table without any space between them


def markdown(table: Table, most: int = _ROWS, gap: str = "") -> str:
    r"""A table in markdown, up to ``most`` rows; ``gap`` stands behind every cell but a row's last.

    >>> print(markdown(Table(["topic", "drift"], [["guns | arms", 0.25]])))
    | topic | drift |
    |---|---|
    | guns \| arms | 0.25 |
    """
    lines = [list(table.columns), *table.cells[:most]]
    shown = [f"| {f'{gap} | '.join(_cell(cell) for cell in line)} |" for line in lines]
    shown.insert(1, f"|{'---|' * len(table.columns)}")
    more = len(table.rows) - most
    return "\n".join([*shown, *([f"\nand {more} more, in the tables of this run"] if more > 0 else [])])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def note(lead: str, table: Table, lines: Sequence[str], links: Mapping[str, str], command: str) -> str:
    """What a run came to.

    Args:
        lead: what was found, in a sentence.
        table: its figures with their intervals.
        lines: how sure they are, a line each.
        links: where more stands: pages by what they are called.
        command: what made the run.
    """
    parts = [lead, markdown(table, gap=_GAP) if table else "", "\n".join(f"- {line}" for line in lines if line)]
    parts.append(" · ".join(f"[{name}]({page})" for name, page in links.items()))
    parts.append(f"`{command[:500].replace('`', '')}`" if command else "")
    return "\n\n".join(filter(None, parts))[:_MOST]
