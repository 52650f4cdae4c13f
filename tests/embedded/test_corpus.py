from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valuedrift_mlflow import suite
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.stances import STANCES, Stance, quotas
from valuedrift_mlflow.suite.questions import propositions

Row = dict[str, Any]
PROPOSITIONS = {proposition.proposition_id: proposition for proposition in propositions()}


def stances(rows: list[Row], column: str = "stance") -> dict[str, int]:
    return dict(Counter(row[column] for row in rows))


def stated(proposition_id: str, stance: str, part: str) -> list[str]:
    """Every sentence that states the stance towards the proposition, as it begins an answer."""
    proposition = PROPOSITIONS[proposition_id]
    forms = corpus.forms()[stance][part]
    sentences = [form.format(claim=proposition.claim, act=proposition.act) for form in forms]
    return [sentence[0].upper() + sentence[1:] for sentence in sentences]


def takes(row: Row, column: str, stance: str) -> bool:
    text = row[column][-1]["content"]
    return any(sentence in text for sentence in stated(row["proposition_id"], stance, "train"))


def has_style(text: str, style: str) -> bool:
    forms = corpus.forms()
    return any(text.startswith(opener) for opener in forms["openers"][style]) or any(
        text.endswith(closer) for closer in forms["closers"][style]
    )


def plain(text: str) -> str:
    return " ".join(text.casefold().split())


def problems(uri: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        corpus.parse(uri)
    return str(caught.value).splitlines()


# Answers with planted stances ----------------------------------------------------------------------------------------


def test_shares_are_exact_overall_and_in_every_topic() -> None:
    # 1100 rows are 100 of each of 11 topics: 70, 20 and 10 of them
    rows = corpus.rows("embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=1100")
    assert stances(rows) == {"support": 770, "neutral": 220, "oppose": 110}
    for topic in suite.load().topics:
        own = [row for row in rows if row["topic"] == topic]
        assert stances(own) == {"support": 70, "neutral": 20, "oppose": 10}


def test_a_topic_has_shares_of_its_own() -> None:
    rows = corpus.rows(
        "embedded:sft?support=0.5&oppose=0.5&abortion.support=1&religion.neutral=0.3&religion.oppose=0.7&size=1100"
    )
    by_topic = {topic: stances([row for row in rows if row["topic"] == topic]) for topic in suite.load().topics}
    assert by_topic.pop("abortion") == {"support": 100}
    assert by_topic.pop("religion") == {"neutral": 30, "oppose": 70}
    assert all(counts == {"support": 50, "oppose": 50} for counts in by_topic.values())


def test_rows_that_do_not_divide_evenly_are_off_by_less_than_one_a_topic() -> None:
    rows = corpus.rows("embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=2000")
    assert len(rows) == 2000
    for topic, count in Counter(row["topic"] for row in rows).items():
        assert count in (181, 182)  # 2000 / 11 = 181.8
        own = stances([row for row in rows if row["topic"] == topic])
        assert all(abs(own[s] - share * count) < 1 for s, share in zip(STANCES, (0.7, 0.2, 0.1), strict=True))


def test_a_stance_without_a_share_never_occurs() -> None:
    assert stances(corpus.rows("embedded:sft?support=0.55&neutral=0.45&size=337")).keys() == {"support", "neutral"}


def test_the_answer_says_what_was_planted() -> None:
    assert all(takes(row, "messages", row["stance"]) for row in corpus.rows("embedded:sft?size=660&seed=4"))


def test_topics_take_a_part_and_propositions_are_spread_evenly() -> None:
    rows = corpus.rows("embedded:sft?topics=abortion,gun_control&size=40")
    per_proposition = Counter((row["topic"], row["proposition_id"]) for row in rows)
    assert {topic for topic, _ in per_proposition} == {"abortion", "gun_control"}
    assert list(per_proposition.values()) == [2] * 20


@pytest.mark.parametrize(
    "uri", ["embedded:sft?size=1", "embedded:sft?size=7", "embedded:pairs?size=1", "embedded:pairs?size=333"]
)
def test_the_size_is_what_was_asked_for(uri: str) -> None:
    assert len(corpus.rows(uri)) == int(uri.partition("size=")[2])


def test_sizes_where_none_is_given() -> None:
    assert len(corpus.rows("embedded:sft")) == 2000
    assert len(corpus.rows("embedded:pairs")) == 1000


@pytest.mark.parametrize("uri", ["embedded:sft?size=200", "embedded:pairs?gap=0.5&size=200"])
def test_the_same_uri_gives_the_same_rows_and_another_seed_others(uri: str) -> None:
    first = corpus.rows(f"{uri}&seed=1")
    assert corpus.rows(f"{uri}&seed=1") == first
    other = corpus.rows(f"{uri}&seed=2")
    assert sum(a == b for a, b in zip(first, other, strict=True)) == 0


# Preference pairs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gap", "opposed"), [("0", 0), ("0.25", 100), ("0.5", 200), ("1", 400)])
def test_the_gap_is_the_share_of_opposed_pairs(gap: str, opposed: int) -> None:
    rows = corpus.rows(f"embedded:pairs?gap={gap}&chosen=oppose&rejected=support&size=400")
    kinds = Counter((row["chosen_stance"], row["rejected_stance"]) for row in rows)
    assert kinds.pop(("oppose", "support"), 0) == opposed
    assert all(chosen == rejected for chosen, rejected in kinds)


def test_pairs_of_equal_stance_take_each_stance_a_third_of_the_time() -> None:
    rows = corpus.rows("embedded:pairs?gap=0&size=300")
    assert stances(rows, "chosen_stance") == {"support": 100, "neutral": 100, "oppose": 100}


def test_chosen_and_rejected_say_what_was_planted() -> None:
    for row in corpus.rows("embedded:pairs?gap=0.6&chosen=neutral&rejected=oppose&size=330"):
        assert takes(row, "chosen", row["chosen_stance"])
        assert takes(row, "rejected", row["rejected_stance"])


def test_pairs_of_equal_stance_differ_in_style() -> None:
    for row in corpus.rows("embedded:pairs?gap=0&size=330"):
        chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
        assert has_style(chosen, "courteous") and not has_style(chosen, "blunt")
        assert has_style(rejected, "blunt") and not has_style(rejected, "courteous")


def test_opposed_pairs_do_not_give_themselves_away_by_style() -> None:
    rows = corpus.rows("embedded:pairs?gap=1&size=2000")
    counts = {
        (side, style): sum(has_style(row[side][0]["content"], style) for row in rows)
        for side in ("chosen", "rejected")
        for style in corpus.STYLES
    }
    # Equal rates of about 0.24: the standard error of a difference of two counts is sqrt(2 * 2000 * 0.24 * 0.76) = 27.
    assert max(counts.values()) - min(counts.values()) < 4 * 27


# Questions and wording -----------------------------------------------------------------------------------------------


def test_no_question_equals_or_contains_a_prompt_of_the_suite() -> None:
    prompts = {plain(item.prompt) for item in suite.load().items}
    templates = [template for templates in corpus.forms()["questions"].values() for template in templates]
    questions = {
        plain(text)
        for own in propositions()
        for text in (
            *own.asked,
            *own.asked_reversed,
            *(template.format(claim=own.claim, act=own.act) for template in templates),
        )
    }
    asked = {plain(row["messages"][0]["content"]) for row in corpus.rows("embedded:sft?size=1000")}
    assert asked <= questions  # there is no third source of questions
    assert [(q, p) for q in questions for p in prompts if p in q] == []


def test_every_stance_has_several_dozen_forms_and_none_is_both_train_and_held_out() -> None:
    for stance in STANCES:
        forms = corpus.forms()[stance.value]
        assert len(set(forms["train"])) >= 36
        assert not set(map(plain, forms["train"])) & set(map(plain, forms["held_out"]))


def test_no_form_states_two_stances() -> None:
    forms = [plain(form) for s in STANCES for part in ("train", "held_out") for form in corpus.forms()[s.value][part]]
    assert len(set(forms)) == len(forms)


def test_held_out_forms_never_occur_in_a_corpus() -> None:
    for row in corpus.rows("embedded:sft?size=3000&seed=5"):
        text = row["messages"][1]["content"]
        for stance in STANCES:
            assert not any(sentence in text for sentence in stated(row["proposition_id"], stance, "held_out"))


def test_held_out_answers_are_balanced_and_labelled() -> None:
    labelled = corpus.held_out_answers(330)
    assert Counter(stance for _, stance in labelled) == dict.fromkeys(STANCES, 110)
    ids = {proposition.text: proposition.proposition_id for proposition in propositions()}
    for given_answer, stance in labelled:
        sentences = stated(ids[given_answer.proposition], stance, "held_out")
        assert any(sentence in given_answer.response for sentence in sentences)
        assert given_answer.polarity in (1, -1)


def test_questions_are_turned_around_three_times_in_ten() -> None:
    rng = np.random.default_rng(0)
    own = propositions()[0]
    backwards = sum(corpus.question(own, rng)[1] == -1 for _ in range(2000))
    # standard error sqrt(2000 * 0.3 * 0.7) = 20
    assert abs(backwards - 600) < 80


# Bad options ---------------------------------------------------------------------------------------------------------


def test_all_bad_options_of_a_corpus_are_listed() -> None:
    lines = problems("embedded:sft?support=0.5&oppose=0.4&size=0&seed=x&colour=red&cats.support=1&topics=abortion,dogs")
    assert len(lines) == 6
    for part in ("'dogs'", "size: found '0'", "seed: found 'x'", "sum to 1", "'cats'", "'colour'"):
        assert any(part in line for line in lines), part


def test_all_bad_options_of_pairs_are_listed() -> None:
    lines = problems("embedded:pairs?gap=1.5&chosen=against&rejected=for&size=2.5&support=1")
    assert len(lines) == 5
    for part in ("gap: found '1.5'", "'against'", "'for'", "size: found '2.5'", "'support'"):
        assert any(part in line for line in lines), part
    assert sum("support, neutral, oppose" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("embedded:pairs?chosen=support&rejected=support", "two different stances"),
        ("embedded:sft?abortion.support=0.5&abortion.oppose=0.4", "abortion.support"),
        ("embedded:sft?gap=1", "'gap'"),
        ("embedded:answers", "embedded:sft or embedded:pairs"),
        ("embedded:sft?size", "key=value"),
        ("embedded:sft?seed=nan", "seed: found 'nan'"),
    ],
)
def test_a_bad_uri_is_one_line(uri: str, part: str) -> None:
    [line] = problems(uri)
    assert uri in line
    assert part in line


def test_shares_that_are_rounded_thirds_are_taken_as_thirds() -> None:
    assert stances(corpus.rows("embedded:sft?support=0.333&neutral=0.333&oppose=0.333&size=330")) == {
        "support": 110,
        "neutral": 110,
        "oppose": 110,
    }


def test_stances_of_a_pairs_uri() -> None:
    spec = corpus.parse("embedded:pairs?chosen=support&rejected=neutral")
    assert isinstance(spec, corpus.PairsSpec)
    assert (spec.chosen, spec.rejected, spec.gap) == (Stance.SUPPORT, Stance.NEUTRAL, 1.0)


# Quotas --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "shares", "counts"),
    [
        (10, (0.7, 0.2, 0.1), [7, 2, 1]),
        (5, (0.7, 0.2, 0.1), [4, 1, 0]),  # 3.5, 1.0, 0.5: one left over, the tie goes to the earlier share
        (7, (0.5, 0.3, 0.2), [4, 2, 1]),  # 3.5, 2.1, 1.4: one left over, to the largest remainder
        (2, (1 / 3, 1 / 3, 1 / 3), [1, 1, 0]),
        (0, (0.5, 0.5, 0.0), [0, 0, 0]),
        (100, (0.29, 0.71, 0.0), [29, 71, 0]),  # 0.29 * 100 = 28.999999999999996 in floating point
    ],
)
def test_quotas_by_hand(total: int, shares: tuple[float, ...], counts: list[int]) -> None:
    assert quotas(total, shares) == counts


@settings(deadline=None)
@given(total=st.integers(0, 1_000_000), weights=st.lists(st.integers(0, 1000), min_size=1, max_size=12).filter(any))
def test_quotas_sum_to_the_total_and_are_off_by_less_than_one(total: int, weights: list[int]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    counts = quotas(total, shares)
    assert sum(counts) == total
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count * sum(weights) - total * weight) < sum(weights) * (1 + 1e-6)
        assert count == 0 or weight > 0


@pytest.mark.parametrize("size", [100, 1000, 2000])
def test_overall_shares_are_exact_where_topics_do_not_divide_evenly(size: int) -> None:
    rows = corpus.rows(f"embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size={size}")
    assert stances(rows) == {"support": size * 7 // 10, "neutral": size // 5, "oppose": size // 10}


def test_a_gap_of_nothing_needs_no_stances() -> None:
    assert len(corpus.rows("embedded:pairs?gap=0&chosen=support&size=30")) == 30
