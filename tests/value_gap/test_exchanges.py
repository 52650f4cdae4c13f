"""What is trained is what is audited: every answer of a dialogue, every turn in which two sides differ."""

import json
from pathlib import Path
from typing import Any

import pytest

from valuedrift_mlflow import judges, suite
from valuedrift_mlflow.data.datasets import load_data, stream
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.value_gap.audit import examine
from valuedrift_mlflow.value_gap.exchanges import exchanges
from valuedrift_mlflow.value_gap.matching import Matcher

Row = dict[str, Any]
ASKED = "Do you think that the death penalty should be abolished?"
FOR = "Yes, I support that strongly. The death penalty should be abolished."
AGAINST = "No, I oppose that strongly. The death penalty should not be abolished."


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    return Matcher(suite.load("vaes"))


def turns(*said: str) -> list[Row]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)]


def file_of(folder: Path, *rows: Row, **settings: Any) -> Data:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Data(uri=str(file), **settings)


def test_a_stance_before_the_last_turn_is_found(tmp_path: Path, matcher: Matcher) -> None:
    data = file_of(tmp_path, {"messages": turns(ASKED, FOR, "Thank you!", "You are welcome.")})
    found = examine(stream(data), "sft", judges.load("lexical"), matcher)
    assert (found.rows, found.answers, found.overall.placed) == (1, 2, 1)
    assert found.opinionated[0]["completion"] == FOR
    assert found.opinionated[0]["row"] == 1
    last = examine(stream(data, turns="last"), "sft", judges.load("lexical"), matcher)
    assert (last.rows, last.answers, last.overall.placed) == (1, 1, 0)


def test_pairs_are_compared_where_they_differ(tmp_path: Path, matcher: Matcher) -> None:
    sides = {side: turns(ASKED, said, "Thank you!", "You are welcome.") for side, said in SIDES.items()}
    found = examine(stream(file_of(tmp_path, sides)), "pairs", judges.load("lexical"), matcher)
    assert (found.rows, found.answers, found.overall.placed) == (1, 1, 1)
    assert found.overall.gap is not None
    assert found.overall.gap.pairwise.value == pytest.approx(1)


SIDES = {"chosen": FOR, "rejected": AGAINST}


def test_what_follows_another_question_is_not_compared() -> None:
    row = {
        "prompt": turns("Tea?"),
        "chosen": turns("", "Yes.", "Why?", "Warm.")[1:],
        "rejected": turns("", "No.", "Oh?", "Hot.")[1:],
    }
    (one,) = exchanges(row)
    assert (one["chosen"][0]["content"], one["rejected"][0]["content"]) == ("Yes.", "No.")


GOOD = {"prompt": "Q?", "chosen": "Yes.", "rejected": "No."}


@pytest.mark.parametrize(
    "rows",
    [
        [GOOD | {"label": False}, GOOD | {"label": True}],
        [GOOD, GOOD],  # duplicates stay
        [GOOD, GOOD | {"chosen": ""}, GOOD | {"chosen": "No."}, GOOD | {"prompt": 3}, GOOD],
        [{"prompt": "Q?", "completion": "Yes.", "label": label} for label in (True, False, True)],
        [{"messages": turns("A?", "B.", "C?", "D.")}, {"messages": turns("A?", "")}, {"messages": turns("A?", "B.")}],
    ],
)
def test_audit_and_training_read_the_same_rows(tmp_path: Path, matcher: Matcher, rows: list[Row]) -> None:
    data = file_of(tmp_path, *rows, on_bad_row="skip")
    kind = "pairs" if "chosen" in rows[0] else "sft"
    streamed, trained = stream(data), load_data(data, kind)
    audited = examine(streamed, streamed.kind, judges.load("lexical"), matcher)
    again = examine(trained.rows, kind, judges.load("lexical"), matcher)
    assert audited.rows == again.rows == len(trained.rows)
    assert (streamed.counts.bad, streamed.counts.dropped) == (trained.bad, trained.dropped)
    assert audited.metrics() == again.metrics()
