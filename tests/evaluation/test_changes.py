"""Answers before and after, of measurements whose stances are planted."""

from dataclasses import replace

import pytest

from valuedrift_mlflow.evaluation.changes import changes_table, largest_changes
from valuedrift_mlflow.evaluation.measurement import JudgedResponse, Measurement
from valuedrift_mlflow.stances import UNSCORED, Verdict
from valuedrift_mlflow.suite import Item, Suite

SUPPORT, NEUTRAL, OPPOSE = Verdict.of((1, 0, 0)), Verdict.of((0, 1, 0)), Verdict.of((0, 0, 1))


def item(topic: str, proposition: int, prompt: int) -> Item:
    name = f"{topic}-{proposition}"
    return Item(f"{name}-{prompt}", topic, name, f"Proposition {name}.", "direct", f"What of {name}, {prompt}?", 1)


ITEMS = tuple(item(t, p, q) for t in ("a", "b") for p in range(4) for q in range(2))
SUITE = Suite("small", "1", ITEMS, "small")


def measured(step: int, verdicts: dict[tuple[str, int], Verdict], samples: int = 2) -> Measurement:
    """Every answer is neutral, but for these: by prompt, and number of the sample."""
    responses = [
        JudgedResponse(own, sample, f"{own.item_id} at {step}", verdicts.get((own.item_id, sample), NEUTRAL))
        for own in SUITE.items
        for sample in range(samples)
    ]
    return Measurement(step, SUITE, "planted", "neutral", tuple(responses), 1.0)


def everywhere(proposition: str, verdict: Verdict) -> dict[tuple[str, int], Verdict]:
    return {(f"{proposition}-{prompt}", sample): verdict for prompt in range(2) for sample in range(2)}


def test_the_propositions_that_moved_most_on_the_topics_that_moved() -> None:
    after = everywhere("a-0", SUPPORT) | everywhere("a-2", OPPOSE) | everywhere("b-1", SUPPORT)
    del after["a-2-1", 1], after["b-1-0", 0], after["b-1-0", 1]  # a-2 moved by 3 of 4 answers, b-1 by 2 of 4
    found = largest_changes(measured(0, {}), measured(9, after), ["a", "b"])
    assert [change.after.item.proposition_id for change in found] == ["a-0", "a-2", "b-1", "b-0"]
    assert [change.leaning for change in found] == [(0.0, 1.0), (0.0, -0.75), (0.0, 0.5), (0.0, 0.0)]
    assert [(change.turned, change.answers) for change in found] == [(4, 4), (3, 4), (2, 4), (0, 4)]
    # The first answer whose verdict changed, and what the same prompt and sample said before.
    assert (found[2].before.response, found[2].after.response) == ("b-1-1 at 0", "b-1-1 at 9")
    assert largest_changes(measured(0, {}), measured(9, after), ["b"])[0].after.item.topic == "b"


def test_at_most_two_of_a_topic() -> None:
    after = {key: value for p in range(4) for key, value in everywhere(f"a-{p}", SUPPORT).items()}
    found = largest_changes(measured(0, {}), measured(1, after), ["a"])
    assert [change.after.item.proposition_id for change in found] == ["a-0", "a-1"]


def test_the_answer_shown_went_the_way_of_its_proposition() -> None:
    """The first answer turned to oppose, the other three to support: it is the second that is shown."""
    after = everywhere("a-0", SUPPORT) | {("a-0-0", 0): OPPOSE}
    [first, _] = largest_changes(measured(0, {}), measured(1, after), ["a"])
    assert (first.after.item.item_id, first.after.sample, first.after.verdict) == ("a-0-0", 1, SUPPORT)


def test_what_was_not_asked_before_or_never_scored_is_not_shown() -> None:
    before, after = measured(0, {}, samples=1), measured(1, everywhere("a-0", SUPPORT) | everywhere("a-1", UNSCORED))
    found = largest_changes(before, after, ["a"])
    assert (found[0].answers, found[0].after.sample) == (2, 0)  # the second sample has no answer before
    assert "a-1" not in [change.after.item.proposition_id for change in found]


def test_the_table_has_what_the_page_shows() -> None:
    changes = largest_changes(measured(0, {}), measured(1, everywhere("a-0", SUPPORT)), ["a"])
    table = changes_table([("sft", change) for change in changes])
    row = table.iloc[0]
    assert (row.stage, row.topic, row.leaning_before, row.leaning_after) == ("sft", "a", 0.0, pytest.approx(1.0))
    assert (row.before, row.verdict_before, row.after, row.verdict_after) == (
        *("a-0-0 at 0", "neutral"),
        *("a-0-0 at 1", "support"),
    )


def test_a_suite_of_one_sample_without_its_last_items() -> None:
    """A part of the suite may have been asked: what is missing is in no pair."""
    whole = measured(1, everywhere("a-0", SUPPORT))
    part = replace(whole, responses=whole.responses[:4])
    [only] = largest_changes(measured(0, {}), part, ["a", "b"])
    assert only.after.item.proposition_id == "a-0"
