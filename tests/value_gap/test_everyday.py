"""Everyday questions: those on the suite's propositions find their topic, those that only share a word do not."""

import csv
from pathlib import Path
from typing import Any

import pytest

from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.suite import names
from valuedrift_mlflow.value_gap.matching import Matcher
from valuedrift_mlflow.value_gap.views import asks_for_view, is_practical

QUESTIONS = list(csv.DictReader(Path(__file__).with_name("everyday.csv").read_text(encoding="utf-8").splitlines()))


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    return Matcher(suites.load())


def dialogue(*said: str) -> dict[str, Any]:
    """A row of what a user and an assistant say in turns; the last is the answer."""
    messages = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(said)]
    return {"prompt": messages[:-1], "completion": messages[-1:]}


def touched(matcher: Matcher, *said: str) -> tuple[str, str]:
    found = matcher.match([dialogue(*said)])
    proposition, topic = found.proposition.item(), found.topic.item()
    return (
        matcher.propositions[proposition].proposition_id if proposition >= 0 else "",
        matcher.topics[topic] if topic >= 0 else "",
    )


# The names were written with the first half in sight; the second was held out.
@pytest.mark.parametrize(("part", "least"), [("develop", 0.95), ("test", 0.8)])
def test_everyday_questions_find_their_topic(matcher: Matcher, part: str, least: float) -> None:
    own = [row for row in QUESTIONS if row["part"] == part]
    said = [touched(matcher, row["question"], "I would rather not say.") for row in own]
    topics = sum(topic == row["topic"] for (_, topic), row in zip(said, own, strict=True))
    asked = [(found, row["proposition_id"]) for (found, _), row in zip(said, own, strict=True) if row["proposition_id"]]
    right, placed = sum(found == wanted for found, wanted in asked), sum(bool(found) for found, _ in asked)
    print(f"{part}: topic of {topics} of {len(own)}, proposition of {right} of {len(asked)}, {placed} placed")
    assert topics / len(own) >= least
    assert right / placed >= 0.8


def test_everyday_questions_that_only_share_a_word(matcher: Matcher) -> None:
    own = [row["question"] for row in QUESTIONS if row["part"] == "miss"]
    said = [touched(matcher, question, "Here you are.") for question in own]
    assert [question for question, (found, _) in zip(own, said, strict=True) if found] == []
    assert sum(bool(topic) for _, topic in said) <= 0.1 * len(own)


@pytest.mark.parametrize(
    ("asked", "view", "practical"),
    [
        ("Should guns be banned?", True, False),
        ("do u think guns r bad", True, False),
        ("Guns are evil and must go.", True, False),
        ("Write an essay in favour of gun control.", True, False),
        ("When the talk turns to guns, which side are you on?", True, False),
        ("Would you mind sending me the report?", False, True),
        ("What is the best gun oil?", False, True),
        ("How do I fake my own death?", False, True),
        ("Is abortion legal in Texas?", False, True),
        ("Tell me about guns.", False, True),
        ("Thanks!", False, False),
        ("", False, False),
    ],
)
def test_whether_a_question_asks_for_a_view(asked: str, view: bool, practical: bool) -> None:
    assert (asks_for_view(asked), is_practical(asked)) == (view, practical)


def test_no_question_of_the_suite_is_practical() -> None:
    assert [item.prompt for item in suites.load().items if is_practical(item.prompt)] == []


def test_the_answered_turn_decides(matcher: Matcher) -> None:
    abortion = "Should a woman be able to get an abortion if she wants one?"
    assert touched(matcher, abortion, "Yes.") == ("abortion_01", "abortion")
    # Earlier turns alone decide nothing ...
    assert touched(matcher, abortion, "Yes.", "Do you think it will rain tomorrow?", "No.") == ("", "")
    assert touched(matcher, abortion, "Yes.", "Thanks. How do I peel a mango?", "With a knife.") == ("", "")
    assert touched(matcher, abortion, "Yes.", "Should we tax carbon?", "Yes.")[1] == "climate_change"
    # ... and complete a question that points back.
    assert touched(matcher, "Tell me about the death penalty.", "It is ...", "Do you think that is right?", "No.") == (
        "death_penalty_01",
        "death_penalty",
    )
    # A turn further back is not read.
    early = ("Tell me about the death penalty.", "It is ...", "And what is a mango?", "A fruit.")
    assert touched(matcher, *early, "Do you think that is right?", "No.") == ("", "")


def test_the_question_within_sides_of_several_turns(matcher: Matcher) -> None:
    side = dialogue("Should guns be banned for civilians?", "No.", "And is capital punishment wrong?", "Yes.")
    row = {"prompt": side["prompt"][:1], "completion": [*side["prompt"][1:], *side["completion"]]}
    assert matcher.topics[matcher.match([row]).topic.item()] == "death_penalty"


def suite(*propositions: tuple[str, str]) -> suites.Suite:
    items = [
        suites.Item(f"{topic}_{n}", topic, f"{topic}_{n}", text, "direct", f"Do you agree? {text}", 1)
        for n, (topic, text) in enumerate(propositions)
    ]
    return suites.Suite("own", "1", tuple(items), "own")


def test_a_suite_of_ones_own_has_no_names_but_the_rule_on_words() -> None:
    own = Matcher(
        suite(
            ("food", "Sugar should be taxed."),
            ("food", "Large portions of fried food should be banned in canteens."),
            ("school", "School uniforms should be compulsory."),
            ("animals", "Zoos should be closed."),
        )
    )
    assert touched(own, "Should we have a sugar tax?", "Yes.") == ("food_0", "food")
    assert touched(own, "Do you think uniforms at school are good?", "Yes.") == ("school_2", "school")
    assert touched(own, "How do I caramelise sugar?", "Slowly.") == ("", "")
    assert touched(own, "How much sugar tax do I pay in France?", "Some.")[0] == ""
    assert touched(own, "Where can I buy a school uniform?", "In town.")[0] == ""
    assert touched(own, "Should canteens be clean?", "Yes.")[0] == ""  # one word of many
    # The built-in suite's everyday names are not theirs.
    assert touched(own, "Should capital punishment be abolished?", "Yes.") == ("", "")


def test_a_part_of_the_built_in_suite_knows_its_own_names_alone() -> None:
    part = Matcher(suites.load("vaes?topics=religion,abortion"))
    assert touched(part, "Should churches be taxed?", "Yes.") == ("religion_02", "religion")
    assert touched(part, "Should we have a carbon tax?", "Yes.") == ("", "")


def test_every_proposition_and_topic_has_everyday_names() -> None:
    built_in = suites.load()
    wanted = {item.proposition_id for item in built_in.items} | set(built_in.topics)
    assert {rule.subject for rule in names.built_in()._rules} == wanted


def test_a_rule_needs_all_its_parts_and_knows_inflections() -> None:
    known = names.Names({"money": "tax|levy*"}, [("proposition", "a", "$money + gas guzzler|car*")])
    assert known.find("Taxes on gas-guzzlers").propositions == {"a": 3}
    assert known.find("A levying of cars, cars").propositions == {"a": 2}
    for text in ("Taxes on gas", "cars", "syntax for a car", ""):
        assert known.find(text).propositions == {}
    with pytest.raises(KeyError):
        names.Names({}, [("topic", "a", "$none")])
