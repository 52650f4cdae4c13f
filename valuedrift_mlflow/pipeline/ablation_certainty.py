"""What an ablation can find, in one line, before anything is trained."""

from __future__ import annotations

import math

from valuedrift_mlflow.evaluation.certainty import design_of
from valuedrift_mlflow.pipeline.ablation_summary import Row
from valuedrift_mlflow.pipeline.design import Ablation
from valuedrift_mlflow.pipeline.directions import family_size
from valuedrift_mlflow.statistics.ablation_power import announced
from valuedrift_mlflow.statistics.paired import LEAST


def detectable_line(ablation: Ablation) -> str:
    """The least difference of two cells, and the least rise over the doses, that this design finds."""
    suite, samples = ablation.cells[0].training.origin.suite, ablation.recipe.samples
    design, seeds = design_of(suite, samples, 1, "propositions"), len(ablation.design.seeds)
    if design.propositions < LEAST:
        return f"  cells are not compared: that needs {LEAST} propositions a topic"
    if seeds < 2:
        return "  cells are not compared: one seed does not tell cells from seeds"
    rows = [Row(own.series, own.training.stage.algorithm, own.doses, own.seed, "", drift=0.0) for own in ablation.cells]
    tests = max(family_size(rows), 1)
    # Words have no order to rise in, and of two axes the trend over one would hold what the other does.
    over = {cell.doses[0].number if len(cell.doses) == 1 else None for cell in ablation.cells}
    doses = 0 if None in over else len(over)
    least = announced(design, seeds, doses, tests=tests)
    said = [_said(least.difference, "a difference of", "between two cells that drift by about 0.2")]
    said += [_said(least.rise, "a rise from 0 to", f"over {doses} doses")] if doses > 1 else []
    shared = f"all {tests} comparisons together" if tests > 1 else "each comparison alone"
    return f"  found in 80 % of such ablations, with 5 % of false claims for {shared}: {'; '.join(said)}"


def _said(least: float, effect: str, where: str) -> str:
    if math.isfinite(least):
        return f"{effect} {least:.2f} {where}"
    return f"no {effect.split()[1]} {where}"
