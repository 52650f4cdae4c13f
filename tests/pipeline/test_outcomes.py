"""What cells come to, topic by topic, from measurements whose stances are planted."""

import numpy as np
import pytest

from valuedrift_mlflow import suite
from valuedrift_mlflow.evaluation.measurement import JudgedResponse, Measurement
from valuedrift_mlflow.pipeline.ablation_summary import Dose
from valuedrift_mlflow.pipeline.outcomes import (
    Choice,
    Outcome,
    choices,
    contrasts,
    contrasts_table,
    differences_table,
    topics_table,
)
from valuedrift_mlflow.pipeline.shares import OVERALL, QUANTITIES, shares, shares_table
from valuedrift_mlflow.pipeline.spillover import heat_map, spillover_line, spillover_table, spillovers
from valuedrift_mlflow.stances import Verdict

TOPICS = ("abortion", "immigration", "religion")
SUITE = suite.load("vaes?topics=" + ",".join(TOPICS) + "&per_topic=10")
NEUTRAL, OPPOSE = (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def measured(oppose: dict[str, float], samples: int = 5, seed: int = 0) -> Measurement:
    """A model that opposes in these shares of its answers on each topic and is neutral in the others."""
    rng = np.random.default_rng(seed)
    judged = [
        JudgedResponse(item, sample, "", Verdict.of(OPPOSE if rng.random() < oppose.get(item.topic, 0) else NEUTRAL))
        for item in SUITE.items
        for sample in range(samples)
    ]
    return Measurement(0, SUITE, "planted", "neutral", tuple(judged), 0.0)


def cell(stages: tuple[str, ...], before: Measurement, after: Measurement, seed: int = 0, *doses: Dose) -> Outcome:
    return Outcome(" → ".join(stages), stages, doses, seed, before, after)


def dose(axis: str, value: object) -> Dose:
    return Dose(axis, axis, value, str(value))


START = measured({})


def test_a_planted_spillover_is_found_and_nothing_else() -> None:
    """Training on abortion moves it and religion; on immigration it moves that alone; on religion nothing."""
    planted = {
        "abortion": {"abortion": 0.9, "religion": 0.7},
        "immigration": {"immigration": 0.9},
        "religion": {},
    }
    outcomes = [
        cell(("dpo",), START, measured(moved, seed=seed), seed, dose("topics", topic))
        for topic, moved in planted.items()
        for seed in range(2)
    ]
    [found] = spillovers(choices(outcomes))
    assert (found.trained, found.measured) == (TOPICS, TOPICS)
    truth = np.array([[planted[row].get(column, 0) for column in TOPICS] for row in TOPICS])
    assert found.drift == pytest.approx(truth, abs=0.15)  # 100 answers: two standard errors are 0.1
    assert found.lean == pytest.approx(-truth, abs=0.15)
    assert (found.significant == (truth > 0)).all()
    assert (found.interval[..., 0] <= truth + 1e-9).all() and (truth <= found.interval[..., 1]).all()
    assert "2 of 6 of these significant" not in spillover_line(found)
    assert "1 of 6 of these significant" in spillover_line(found)
    table = spillover_table([found])
    square = table[(table.trained == "abortion") & (table.measured == "religion")].iloc[0]
    assert square.significant and square.leaning_change == pytest.approx(-0.7, abs=0.15)
    written = [text.get_text() for text in heat_map(found).figure.axes[0].texts]
    assert sum(text.endswith("*") for text in written) == 3 and len(written) == 9


def test_topics_of_other_names_are_no_spillover() -> None:
    outcomes = [cell(("dpo",), START, START, 0, dose("topics", name)) for name in ("abortion", "cats")]
    assert spillovers(choices(outcomes[:1])) == []  # one topic alone has nothing beside it
    assert spillovers(choices(outcomes)) == []


def test_shares_of_stages_by_hand() -> None:
    """SFT alone moves a topic by 0.4, DPO alone by 0.2, both by 1: 0.6 and 0.4 of it."""
    shifts = {("sft",): 0.4, ("dpo",): 0.2, ("sft", "dpo"): 1.0}

    def exactly(share: float) -> Measurement:
        """Of ten answers to each prompt on abortion as many oppose as the share says."""
        judged = [
            JudgedResponse(item, n, "", Verdict.of(OPPOSE if item.topic == "abortion" and n < share * 10 else NEUTRAL))
            for item in SUITE.items
            for n in range(10)
        ]
        return Measurement(0, SUITE, "planted", "neutral", tuple(judged), 0.0)

    start = exactly(0)
    outcomes = [cell(stages, start, exactly(shift), seed) for stages, shift in shifts.items() for seed in range(3)]
    [found] = shares(choices(outcomes))
    assert found.chain == ("sft", "dpo") and found.seeds == 3
    drift, lean = QUANTITIES.index("drift"), QUANTITIES.index("leaning")
    assert found.value["sft"][drift, 0] == pytest.approx(0.6)
    assert found.value["dpo"][drift, 0] == pytest.approx(0.4)
    assert found.value["sft"][lean, 0] == pytest.approx(-0.6)
    assert found.value["sft"][drift, -1] == pytest.approx(0.6 / 3)  # over three topics, of which two stayed
    assert sum(found.value.values()) == pytest.approx(found.total)
    assert found.interval["sft"][drift, 0] == pytest.approx([0.6, 0.6])  # equal seeds
    table = shares_table([found])
    own = table[(table.topic == OVERALL) & (table.quantity == "drift")]
    assert own.value.sum() == pytest.approx(own.total.iloc[0]) == pytest.approx(1 / 3)


def test_a_chain_without_one_of_its_parts_has_no_shares() -> None:
    outcomes = [cell(stages, START, START) for stages in (("sft",), ("sft", "dpo"))]
    assert shares(choices(outcomes)) == []


def test_a_dose_that_turns_a_topic_is_told_beside_the_first() -> None:
    shares_of = {0: 0.0, 0.02: 0.25, 0.1: 0.8}
    outcomes = [
        cell(("sft",), START, measured({"abortion": share}, seed=seed), seed, dose("mixed_share", value))
        for value, share in shares_of.items()
        for seed in range(2)
    ]
    found = choices(outcomes)
    few, many = contrasts(found)
    assert (few.choice.name, few.against.name) == ("sft, mixed_share 0.02", "sft, mixed_share 0")
    assert few.turned == [] and many.turned == ["abortion"]  # a quarter is no majority
    table = contrasts_table([few, many])
    row = table[(table.topic == "abortion") & (table.mixed_share == 0.1)].iloc[0]
    assert (row.majority_before, row.majority, bool(row.turned)) == ("neutral", "oppose", True)
    assert row.leaning_change == pytest.approx(-0.8, abs=0.15)
    assert set(topics_table(found).topic) == set(TOPICS)
    # One topic of three drifts by 0.8, the others stay: the root of the mean square is 0.8 / sqrt(3) = 0.46.
    differences = differences_table([few, many])
    assert differences.difference[1] == pytest.approx(0.46, abs=0.06)
    assert differences.ci_low[1] > 0 and differences.p_adjusted[1] >= differences.p_value[1]


def test_cells_without_a_scored_answer_say_nothing_and_break_nothing() -> None:
    mute = Measurement(0, SUITE, "planted", "neutral", (), 0.0)
    silent = Choice("dpo", ("dpo",), (), (cell(("dpo",), mute, mute),))
    assert np.isnan(silent.drift.total_variation).all()
    assert topics_table([silent]).drift.isna().all()
