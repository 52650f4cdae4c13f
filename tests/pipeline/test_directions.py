"""What the cells of an ablation say of the paper's directions: planted drifts, and what is told of them."""

import math

import numpy as np
import pytest
from drifting_runs import drifting

from valuedrift_mlflow.pipeline.ablation_axes import axes_rows, axes_table, shifts
from valuedrift_mlflow.pipeline.ablation_report import ablation_figures, axes_figure
from valuedrift_mlflow.pipeline.ablation_summary import Dose, Keys, Row, summarise
from valuedrift_mlflow.pipeline.directions import Direction, directions, directions_table, family_size

GAPS = (0.0, 0.5, 1.0)
KEYS = Keys(("gal_tan", "abortion"), np.array([[1, -1] * 16, [1, 0] * 16]))


def cells(series: str, *drifts: float, axis: str = "gap", doses: tuple[float, ...] = GAPS, seeds: int = 3) -> list[Row]:
    """Runs of every dose and seed that drift so far; the same call gives the same runs."""
    rng = np.random.default_rng([len(series), *series.encode()])
    rows = []
    for dose, size in zip(doses, drifts, strict=True):
        for seed, run in enumerate(drifting(size, seeds, rng, spread=0.05)):
            shown = (Dose(axis, axis, dose, f"{dose:g}"),)
            ends = (max(0.0, size - 0.05), size + 0.05)
            rows.append(
                Row(series, series, shown, seed, "", "", size, ends, 0.02, 3.0, 0.0, (0.3, 0.4, 0.3), run, KEYS)
            )
    return rows


def found(rows: list[Row]) -> dict[str, Direction]:
    return {direction.paper: direction for direction in directions(rows)}


def test_directions_as_in_the_paper() -> None:
    rows = cells("dpo", 0.02, 0.3, 0.7) + cells("simpo", 0.02, 0.2, 0.4) + cells("ppo", 0.0, 0.05, 0.1)
    hardly, grows, order = directions(rows)
    assert all(direction.verdict.startswith("as in the paper") for direction in (hardly, grows, order))
    assert any("dpo: 0.020 at 0, 0.700 at 1: grows" in line for line in grows.here)
    assert any("hardly moves" in line for line in hardly.here)
    assert any("dpo moves more than simpo, above noise by 0.3" in line for line in order.here)


def test_directions_that_differ_are_called_so() -> None:
    hardly, grows, order = directions(cells("dpo", 0.6, 0.45, 0.3) + cells("simpo", 0.3, 0.5, 0.8))
    assert hardly.verdict.startswith("differs from the paper")
    assert grows.verdict.startswith("in part")
    assert any("dpo" in line and "falls" in line for line in grows.here)
    assert order.verdict.startswith("differs from the paper")
    assert "dpo moves less than simpo" in order.here[0]


def test_a_share_at_the_threshold_is_not_told_either_way() -> None:
    """0.10 of 0.40 is the threshold itself."""
    [line] = found(cells("dpo", 0.1, 0.25, 0.4))["Pairs without a value gap hardly move the stances."].lines
    assert line.verdict == "cannot tell"
    assert line.estimate.low < 0.25 < line.estimate.high
    assert "cannot be told (adjusted p" in str(line)


def test_every_line_has_an_interval_an_adjusted_p_and_what_would_be_found() -> None:
    rows = cells("dpo", 0.02, 0.3, 0.7) + cells("simpo", 0.02, 0.2, 0.4)
    table = directions_table(directions(rows))
    assert len(table) == family_size(rows) == 5
    assert (
        table[["estimate", "ci_low", "ci_high", "p_value", "p_adjusted", "minimum_detectable"]].notna().all(axis=None)
    )
    ordered = table.sort_values("p_value")
    # Holm: the smallest p times 5, the next times 4, ...; never below the one before.
    expected = np.minimum(np.maximum.accumulate(ordered["p_value"].astype(float) * np.arange(5, 0, -1)), 1)
    np.testing.assert_allclose(ordered["p_adjusted"].astype(float), expected)


def test_one_seed_tells_nothing() -> None:
    for direction in directions(cells("dpo", 0.0, 0.3, 0.6, seeds=1) + cells("simpo", 0.0, 0.2, 0.3, seeds=1)):
        assert direction.verdict == "cannot be told from these cells"


def test_a_trend_needs_every_dose_of_a_seed() -> None:
    """A failed cell takes its seed out of the comparison, and no more."""
    rows = [row for row in cells("dpo", 0.02, 0.3, 0.7, seeds=4) if (row.seed, row.doses[0].value) != (2, 0.5)]
    [line] = found(rows)["Drift grows with the value gap."].lines
    assert (line.seeds, line.verdict) == (3, "agrees")


def test_no_trend_is_called_none() -> None:
    [line] = found(cells("dpo", 0.2, 0.2, 0.2))["Drift grows with the value gap."].here
    assert "no trend shown" in line


@pytest.mark.parametrize(("drifts", "verdict"), [((0.5, 0.3, 0.1), "as in"), ((0.1, 0.3, 0.5), "differs")])
def test_the_direction_of_beta(drifts: tuple[float, ...], verdict: str) -> None:
    [direction] = directions(cells("ppo", *drifts, axis="beta", doses=(0.01, 0.1, 1.0)))
    assert direction.verdict.startswith(verdict)


def test_cells_without_propositions_to_compare_tell_nothing() -> None:
    doses = (Dose("gap", "gap", 0, "0"), Dose("gap", "gap", 1, "1"))
    rows = [Row("dpo", "dpo", (dose,), seed, "", drift=0.1) for dose in doses for seed in range(3)]
    assert all(direction.verdict.startswith("cannot be told") for direction in directions(rows))


# Means and axes over the seeds ---------------------------------------------------------------------------------------


def test_the_interval_of_a_choice_is_of_seeds_and_propositions() -> None:
    rows = cells("dpo", 0.3, doses=(1.0,))
    [summary] = summarise(rows)
    assert summary.low < 0.3 < summary.high
    assert summary.high - summary.low < 0.1  # the cells' own intervals are 0.1 wide, and seeds would add to them
    [of_prompts] = summarise([Row(**{**row.__dict__, "estimand": "prompts"}) for row in rows])
    assert (of_prompts.low, of_prompts.high) == pytest.approx((0.25, 0.35))


def test_axis_shifts_are_means_of_the_seeds_with_intervals() -> None:
    """Support of every proposition rises alike: agreement. Keys that go both ways see no shift, one-sided ones do."""
    both_ways, one_way = shifts(cells("dpo", 0.3, doses=(1.0,)))
    assert both_ways.shift.low < 0 < both_ways.shift.high
    assert one_way.shift.value == pytest.approx(0.6, abs=0.1)  # support rises and opposition falls by 0.3
    table = axes_table(cells("dpo", 0.0, 0.3, 0.5))
    assert table.columns.tolist() == ["series", "algorithm", "gap", "seeds", "axis", "axis_shift", "ci_low", "ci_high"]
    assert len(table) == 6


def test_axes_are_shown_in_a_table_and_a_figure() -> None:
    rows = cells("dpo", 0.0, 0.3, 0.5) + cells("simpo", 0.0, 0.1, 0.2)
    columns, lines = axes_rows(rows)
    assert columns == ["axis shift [95 % interval]", "gal tan", "abortion"]
    assert [line[0] for line in lines][:2] == ["dpo, gap 0", "dpo, gap 0.5"]
    assert lines[1][2].startswith("+0.")
    assert set(axes_figure(rows)) == {"axis_shift_by_gap"}
    assert set(ablation_figures(summarise(rows))) == {"drift_by_gap"}


def test_suites_without_keys_have_no_axes() -> None:
    rows = [Row(**{**row.__dict__, "axes": None}) for row in cells("dpo", 0.0, 0.3, 0.5)]
    assert (len(axes_table(rows)), axes_rows(rows), axes_figure(rows)) == (0, ([], []), {})


def test_a_choice_whose_cells_failed_is_left_out_of_the_figure() -> None:
    assert ablation_figures([]) == {}
    rows = [Row("dpo", "dpo", (), 0, "", "", 0.1, (math.nan, math.nan), 0.02, 3.0, 0.0)]
    assert set(ablation_figures(summarise(rows))) == {"drift_by_stages"}
