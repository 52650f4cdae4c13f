"""What an ablation shows beside the drift of its cells: topics, contrasts of choices, shares of stages, spillover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from valuedrift_mlflow.pipeline.outcomes import (
    CONTRAST_COLUMNS,
    Choice,
    Contrast,
    Outcome,
    choices,
    contrast_rows,
    contrasts,
    contrasts_table,
    differences_table,
    topics_table,
)
from valuedrift_mlflow.pipeline.shares import SHARE_COLUMNS, Shares, share_rows, shares, shares_table
from valuedrift_mlflow.pipeline.spillover import Spillover, heat_map, spillover_line, spillover_table, spillovers
from valuedrift_mlflow.recipe.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

    from valuedrift_mlflow.report.page import Illustration

Shown = tuple[str, Sequence[str], list[list[str]]]  # title, columns, rows


@dataclass(frozen=True)
class TopicFindings:
    """What the cells of one design come to, topic by topic."""

    choices: list[Choice]
    contrasts: list[Contrast]
    shares: list[Shares]
    spillovers: list[Spillover]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], recipe: Recipe) -> TopicFindings:
        """From the cells that came through, by the recipe's ``interval`` and ``margin``."""
        found = choices(outcomes, recipe.interval, recipe.margin)
        own_shares, spilled = shares(found), spillovers(found)
        # Where topics or stages are what is compared, one choice beside the first of them says nothing more.
        compared = [] if own_shares or spilled else contrasts(found)
        return cls(found, compared, own_shares, spilled)

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that a run keeps, by their names."""
        made = {"ablation_topics": topics_table(self.choices)} if self.choices else {}
        if self.contrasts:
            made |= {
                "ablation_contrasts": contrasts_table(self.contrasts),
                "ablation_differences": differences_table(self.contrasts),
            }
        made |= {"ablation_shares": shares_table(self.shares)} if self.shares else {}
        return made | ({"ablation_spillover": spillover_table(self.spillovers)} if self.spillovers else {})

    def figures(self) -> dict[str, Illustration]:
        """A heat map for each series of a spillover."""
        return {f"spillover_{one.series}": heat_map(one) for one in self.spillovers}

    def shown(self) -> list[Shown]:
        """The tables that people read."""
        tables: list[Shown] = []
        if self.contrasts:
            rows = contrast_rows(self.contrasts)
            tables.append(("Models at the end, beside those of the first choice", ("choice", *CONTRAST_COLUMNS), rows))
        if self.shares:
            tables.append(("Share of each stage (Shapley)", SHARE_COLUMNS, share_rows(self.shares)))
        return tables

    def lines(self) -> list[str]:
        """What fits a line each."""
        return [spillover_line(one) for one in self.spillovers]
