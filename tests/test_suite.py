from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from valuedrift_mlflow import suite
from valuedrift_mlflow.errors import InputError
from valuedrift_mlflow.suite import Suite
from valuedrift_mlflow.uris import split_options

TOPICS = (
    "abortion",
    "immigration",
    "climate_change",
    "economic_policy",
    "religion",
    "family_relationships",
    "death_penalty",
    "gun_control",
    "lgbtq_rights",
    "artificial_intelligence",
    "free_speech",
)


def row(number: int, **changes: Any) -> dict[str, Any]:
    good = {
        "item_id": f"cats_{number}",
        "topic": "cats",
        "proposition_id": "cats",
        "proposition": "Cats are better than dogs.",
        "phrasing": "direct",
        "prompt": f"Are cats better than dogs? ({number})",
        "polarity": 1,
    }
    return good | changes


def from_rows(*rows: dict[str, Any]) -> Suite:
    return suite.from_frame(pd.DataFrame(list(rows)), "cats")


def problems(*rows: dict[str, Any]) -> list[str]:
    with pytest.raises(InputError) as caught:
        from_rows(*rows)
    return str(caught.value).splitlines()


# The built-in suite --------------------------------------------------------------------------------------------------


def test_built_in_suite_is_11_topics_of_10_propositions_in_5_phrasings() -> None:
    vaes = suite.load()
    assert vaes.topics == TOPICS
    assert len(vaes.items) == 550
    assert Counter(item.topic for item in vaes.items) == dict.fromkeys(TOPICS, 50)
    phrasings: dict[str, list[str]] = {}
    for item in vaes.items:
        phrasings.setdefault(item.proposition_id, []).append(item.phrasing)
    assert len(phrasings) == 110
    assert all(sorted(own) == ["advice", "direct", "reversed", "should", "statement"] for own in phrasings.values())


def test_built_in_ids_and_prompts_are_unique() -> None:
    items = suite.load().items
    assert len({item.item_id for item in items}) == 550
    assert len({item.prompt.casefold() for item in items}) == 550


def test_a_proposition_has_one_text_one_topic_and_a_prompt_whose_yes_opposes_it() -> None:
    by_proposition: dict[str, list[suite.Item]] = {}
    for item in suite.load().items:
        by_proposition.setdefault(item.proposition_id, []).append(item)
    for items in by_proposition.values():
        assert len({(item.topic, item.proposition) for item in items}) == 1
        assert {item.polarity for item in items} == {-1, 1}


def test_groups_number_the_topics_in_order() -> None:
    np.testing.assert_array_equal(suite.load("vaes?topics=religion,abortion&per_topic=2").groups, [0, 0, 1, 1])


def test_describe_names_version_hash_and_size() -> None:
    vaes = suite.load("vaes?topics=religion")
    described = vaes.describe()
    assert (described["suite.name"], described["suite.items"]) == ("vaes", "50")
    assert described["suite.version"] and described["suite.hash"] == vaes.hash


# Parts of a suite ----------------------------------------------------------------------------------------------------


def test_options_take_topics_in_the_order_given() -> None:
    part = suite.load("vaes?topics=religion,abortion")
    assert part.topics == ("religion", "abortion")
    assert len(part.items) == 100


def test_per_topic_spreads_over_a_topics_propositions() -> None:
    # 10 of 50 items, 5 of each proposition in a row: every fifth item, one of each proposition
    part = suite.load("vaes?topics=gun_control&per_topic=10")
    assert len({item.proposition_id for item in part.items}) == 10


def test_per_topic_beyond_a_topics_size_keeps_all() -> None:
    assert suite.load("vaes?per_topic=1000").items == suite.load().items


@pytest.mark.parametrize(
    ("uri", "found", "allowed"),
    [
        ("vaes?topics=abortion,cats", "cats", "religion"),
        ("vaes?per_topic=0", "0", "at least 1"),
        ("vaes?per_topic=few", "few", "at least 1"),
        ("vaes?topic=abortion", "topic", "topics, per_topic"),
        ("vaes?topics", "topics", "key=value"),
        ("vaes?per_topic=1&per_topic=2", "per_topic", "once"),
        ("vase", "vase", "vaes"),
        ("missing.csv", "missing.csv", "existing csv"),
    ],
)
def test_a_bad_uri_is_one_line_with_what_is_allowed(uri: str, found: str, allowed: str) -> None:
    with pytest.raises(InputError) as caught:
        suite.load(uri)
    [line] = str(caught.value).splitlines()
    assert found in line
    assert allowed in line


# Files ---------------------------------------------------------------------------------------------------------------


def test_csv_jsonl_and_parquet_give_the_same_items(tmp_path: Path) -> None:
    vaes = suite.load("vaes?per_topic=4")
    frame = vaes.frame()
    frame.to_csv(tmp_path / "own.csv", index=False)
    frame.to_json(tmp_path / "own.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "own.parquet")
    for ending in ("csv", "jsonl", "parquet"):
        read = suite.load(str(tmp_path / f"own.{ending}"))
        assert read.items == vaes.items
        assert read.hash == vaes.hash
        assert read.name == "own"


def test_a_file_takes_options_too(tmp_path: Path) -> None:
    suite.load().frame().to_csv(tmp_path / "own.csv", index=False)
    assert len(suite.load(f"{tmp_path / 'own.csv'}?topics=religion&per_topic=3").items) == 3


def test_phrasing_and_proposition_id_may_be_missing(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("item_id,topic,proposition,prompt,polarity\na,cats,Cats rule.,Do cats rule?,+1\n")
    [item] = suite.load(str(file)).items
    assert (item.proposition_id, item.phrasing, item.polarity) == ("a", "unnamed", 1)


def test_text_that_pandas_takes_for_missing_or_numbers_stays_text(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("item_id,topic,proposition,prompt,polarity\n007,cats,NA,NULL,-1\n")
    [item] = suite.load(str(file)).items
    assert (item.item_id, item.proposition, item.prompt) == ("007", "NA", "NULL")


def test_bad_rows_are_all_listed_with_their_numbers() -> None:
    lines = problems(
        row(1),
        row(2, proposition=""),
        row(3, item_id="cats_1"),
        row(4, polarity=2),
        row(5, topic="Climate Change", prompt=None),
    )
    assert len(lines) == 5
    assert "row 2 proposition" in lines[0]
    assert "row 3 item_id" in lines[1] and "'cats_1'" in lines[1] and "row 1" in lines[1]
    assert "row 4 polarity" in lines[2] and "found 2" in lines[2] and "1 or -1" in lines[2]
    assert "row 5 prompt" in lines[3]
    assert "row 5 topic" in lines[4] and "'Climate Change'" in lines[4]


def test_row_numbers_do_not_depend_on_the_tables_index() -> None:
    frame = pd.DataFrame([row(1), row(2, polarity=0)], index=[70, 80])
    with pytest.raises(InputError, match="row 2 polarity"):
        suite.from_frame(frame, "cats")


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("columns.csv", "prompt,answer\na,b\n", "prompt, answer"),
        ("header.csv", "item_id,topic,proposition,prompt,polarity\n", "no rows"),
        ("empty.csv", "", "empty.csv"),
        ("broken.jsonl", '{"item_id": ', "broken.jsonl"),
        ("broken.parquet", "not parquet", "broken.parquet"),
    ],
)
def test_an_unreadable_file_is_one_line_that_names_it(tmp_path: Path, name: str, text: str, found: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        suite.load(str(tmp_path / name))
    [line] = str(caught.value).splitlines()
    assert found in line
    assert Path(name).stem in line


# Hash ----------------------------------------------------------------------------------------------------------------


def test_hash_is_of_the_content_alone(tmp_path: Path) -> None:
    first = from_rows(row(1), row(2))
    file = tmp_path / "other_name.jsonl"
    file.write_text("\n".join(json.dumps(record) for record in (row(1), row(2))))
    assert suite.load(str(file)).hash == first.hash


def test_hash_changes_with_any_field_of_any_item_and_with_the_order() -> None:
    cats = from_rows(row(1), row(2))
    changed = [
        from_rows(row(1), row(2, **{column: value}))
        for column, value in {
            "item_id": "cats_3",
            "topic": "cat",
            "proposition_id": "cat",
            "proposition": "Cats are better than dogs!",
            "phrasing": "should",
            "prompt": "Are cats better than dogs? (3)",
            "polarity": -1,
        }.items()
    ]
    reordered = replace(cats, items=cats.items[::-1])
    assert len({cats.hash, reordered.hash, *(other.hash for other in changed)}) == 9


# URIs ----------------------------------------------------------------------------------------------------------------


def test_split_options() -> None:
    assert split_options("vaes") == ("vaes", {})
    assert split_options("own.csv?topics=a,b&per_topic=") == ("own.csv", {"topics": "a,b", "per_topic": ""})
    assert split_options("own.csv?note=a%20b%26c") == ("own.csv", {"note": "a b&c"})


def test_a_topic_named_twice_is_taken_once() -> None:
    assert suite.load("vaes?topics=religion,religion").items == suite.load("vaes?topics=religion").items


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_missing_cells_of_optional_columns_take_their_defaults(missing: float | None) -> None:
    frame = pd.DataFrame([row(1, proposition_id=missing, phrasing=missing), row(2)])
    first = suite.from_frame(frame, "cats").items[0]
    assert (first.proposition_id, first.phrasing) == ("cats_1", "unnamed")


def test_a_missing_topic_is_a_bad_row(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    without = {key: value for key, value in row(1).items() if key != "topic"}
    file.write_text(f"{json.dumps(without)}\n{json.dumps(row(2))}\n")
    with pytest.raises(InputError, match="row 1 topic"):
        suite.load(str(file))
