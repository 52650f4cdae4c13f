from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from valuedrift_mlflow import suite
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.suite import Suite, tables

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
    # 10 of 50 items, 5 of each proposition in a row: one of each proposition, and every phrasing twice
    part = suite.load("vaes?topics=gun_control&per_topic=10")
    assert len({item.proposition_id for item in part.items}) == 10
    assert Counter(item.phrasing for item in part.items) == dict.fromkeys(suite.PHRASINGS, 2)


def test_per_topic_beyond_a_topics_size_keeps_all() -> None:
    assert suite.load("vaes?per_topic=1000").items == suite.load().items


@pytest.mark.parametrize(
    ("uri", "found", "allowed"),
    [
        ("vaes?topics=abortion,cats", "cats", "religion"),
        ("vaes?per_topic=0", "0", "at least 1"),
        ("vaes?per_topic=few", "few", "at least 1"),
        ("vaes?topic=abortion", "topic", "topics, per_topic"),
        ("vaes?topic_column=topic", "topic_column", "opposed pairs"),
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


def test_json_and_packed_files_give_the_same_items(tmp_path: Path) -> None:
    frame = suite.load("vaes?per_topic=4").frame()
    frame.to_json(tmp_path / "own.json", orient="records")
    frame.to_csv(tmp_path / "own.csv.gz", index=False)
    frame.to_json(tmp_path / "own.jsonl.gz", orient="records", lines=True)
    for name in ("own.json", "own.csv.gz", "own.jsonl.gz"):
        read = suite.load(str(tmp_path / name))
        assert (read.name, read.hash) == ("own", suite.load("vaes?per_topic=4").hash)


def test_a_suite_names_the_uri_it_was_loaded_from(tmp_path: Path) -> None:
    suite.load().frame().to_csv(tmp_path / "own.csv", index=False)
    for uri in ("vaes", "vaes?per_topic=3", f"{tmp_path}/own.csv", f"{tmp_path}/own.csv?topics=religion&per_topic=3"):
        loaded = suite.load(uri)
        assert loaded.source == uri
        assert suite.load(loaded.source) == loaded


def test_bad_lines_of_a_jsonl_file_are_listed_with_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(f'{json.dumps(row(1))}\n\n{{"item_id": \n["cats"]\n')
    with pytest.raises(InputError) as caught:
        suite.load(str(file))
    first, second = str(caught.value).splitlines()
    assert "own.jsonl line 3" in first
    assert "own.jsonl line 4" in second and "'list'" in second


def test_a_prompt_that_is_no_text_is_a_bad_row() -> None:
    [line] = problems(row(1), row(2, prompt=["Do cats rule?"]))
    assert "row 2 prompt" in line


def test_of_many_problems_the_first_twenty_are_shown() -> None:
    lines = problems(*(row(number, polarity=0) for number in range(1, 51)))
    assert len(lines) == 21
    assert "row 20 " in lines[19] and "30 more" in lines[20]


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
        ("named.csv.gz", "not packed", "found 'no rows'"),  # it is read as what it is
        ("list.json", "[1, 2]", "list.json"),
        ("empty.jsonl", "\n", "no rows"),
        ("own.txt", "item_id\n", "csv, tsv, jsonl, json or parquet"),
    ],
)
def test_an_unreadable_file_is_one_line_that_names_it(tmp_path: Path, name: str, text: str, found: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        suite.load(str(tmp_path / name))
    [line] = str(caught.value).splitlines()
    assert found in line
    assert name.partition(".")[0] in line


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


# Opposed pairs -------------------------------------------------------------------------------------------------------

NEUTRALITY = Path(__file__).parents[3] / "shared" / "data" / "political_neutrality_eval.csv"


def pair(number: int, **changes: str) -> dict[str, str]:
    good = {
        "topic": "Cats & dogs",
        "stance_a": "cats rule",
        "stance_b": "dogs rule",
        "prompt_a": f"Argue that cats rule ({number})",
        "prompt_b": f"Argue that dogs rule ({number})",
        "template": "Argue that {stance}",
    }
    return good | changes


def pairs_file(folder: Path, *rows: dict[str, str]) -> str:
    file = folder / "pairs.csv"
    pd.DataFrame(list(rows)).to_csv(file, index=False)
    return str(file)


def test_a_pair_gives_both_sides_of_one_proposition(tmp_path: Path) -> None:
    first, second, third, fourth = suite.load(pairs_file(tmp_path, pair(1), pair(2, template="Why {stance}?"))).items
    assert first == suite.Item(
        item_id="cats_dogs_0001_a",
        topic="cats_dogs",
        proposition_id="cats_dogs_0001",
        proposition="Cats rule.",
        phrasing="argue_that_stance",
        prompt="Argue that cats rule (1)",
        polarity=1,
    )
    assert second == replace(first, item_id="cats_dogs_0001_b", prompt="Argue that dogs rule (1)", polarity=-1)
    assert [item.item_id for item in (third, fourth)] == ["cats_dogs_0002_a", "cats_dogs_0002_b"]
    assert (third.proposition_id, third.phrasing) == ("cats_dogs_0001", "why_stance")


def test_pairs_need_neither_topic_nor_template(tmp_path: Path) -> None:
    bare = {key: value for key, value in pair(1).items() if key not in ("topic", "template")}
    first, _ = suite.load(pairs_file(tmp_path, bare)).items
    assert (first.topic, first.phrasing) == ("pairs", "unnamed")


def test_the_topic_is_the_finest_column_of_at_most_80_topics_or_the_one_named(tmp_path: Path) -> None:
    rows = [
        pair(number, topic=f"topic {number}", category=f"kind {number % 40}", main_category=f"group {number % 2}")
        for number in range(100)
    ]
    file = pairs_file(tmp_path, *rows)
    assert len(suite.load(file).topics) == 40
    assert suite.load(f"{file}?topic_column=main_category").topics == ("group_0", "group_1")
    assert len(suite.load(f"{file}?topic_column=topic").topics) == 100
    assert len(suite.load(pairs_file(tmp_path, *rows[:80])).topics) == 80


@pytest.mark.parametrize(
    ("per_topic", "rows"),
    [(1, "1a"), (2, "1a 1b"), (3, "1a 1b 2a"), (4, "1a 1b 2a 2b"), (7, "1a 1b 2a 2b 3a 3b 4a"), (9, None)],
)
def test_per_topic_takes_both_sides_of_a_pair(tmp_path: Path, per_topic: int, rows: str | None) -> None:
    file = pairs_file(tmp_path, *(pair(number) for number in range(1, 5)))
    items = suite.load(f"{file}?per_topic={per_topic}").items
    taken = " ".join(item.item_id.removeprefix("cats_dogs_000").replace("_", "") for item in items)
    assert taken == (rows or "1a 1b 2a 2b 3a 3b 4a 4b")


def test_bad_pairs_are_all_listed_with_their_row_numbers(tmp_path: Path) -> None:
    file = pairs_file(
        tmp_path,
        pair(1),
        pair(2, prompt_b=" "),
        pair(1),
        pair(4, topic="?"),
        pair(5, stance_b="cats rule"),
        pair(6, prompt_b="Argue that cats rule (6)"),
    )
    with pytest.raises(InputError) as caught:
        suite.load(file)
    lines = str(caught.value).splitlines()
    where = ["row 2 prompt_b", "row 3", "row 4 topic", "row 5 stance_b", "row 6 prompt_b"]
    assert len(lines) == len(where)
    assert all(part in line for part, line in zip(where, lines, strict=True))
    assert "row 1" in lines[1]


def test_a_topic_column_must_be_there_and_is_for_pairs_only(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'theme'.*stance_a"):
        suite.load(f"{pairs_file(tmp_path, pair(1))}?topic_column=theme")
    file = tmp_path / "own.csv"
    from_rows(row(1)).frame().to_csv(file, index=False)
    with pytest.raises(InputError, match="topic_column is for opposed pairs"):
        suite.load(f"{file}?topic_column=topic")


def test_pairs_written_as_a_suite_are_the_same_suite(tmp_path: Path) -> None:
    pairs = suite.load(pairs_file(tmp_path, *(pair(number) for number in range(1, 5))))
    pairs.frame().to_csv(tmp_path / "own.csv", index=False)
    assert suite.load(f"{tmp_path}/own.csv").items == pairs.items
    with gzip.open(tmp_path / "own.jsonl.gz", "wt") as handle:
        handle.writelines(json.dumps(pair(number)) + "\n" for number in range(1, 5))
    assert [item.prompt for item in suite.load(f"{tmp_path}/own.jsonl.gz").items] == [i.prompt for i in pairs.items]


@pytest.mark.skipif(not NEUTRALITY.is_file(), reason=f"{NEUTRALITY} is missing")
def test_the_political_even_handedness_evaluation_is_a_suite() -> None:
    # 1,350 rows: 150 pairs of stances in 9 templates, of 60 topics in 7 categories
    whole = suite.load(str(NEUTRALITY))
    assert (len(whole.items), len(whole.topics)) == (2700, 60)
    assert len({item.item_id for item in whole.items}) == len({item.prompt for item in whole.items}) == 2700
    assert set(Counter(item.proposition_id for item in whole.items).values()) == {18}
    assert len({item.proposition_id for item in whole.items}) == 150
    part = suite.load(f"{NEUTRALITY}?topics=abortion,topic_2020_election&per_topic=6")
    assert Counter((item.topic, item.polarity) for item in part.items) == {
        (topic, polarity): 3 for topic in ("abortion", "topic_2020_election") for polarity in (1, -1)
    }
    assert len(suite.load(f"{NEUTRALITY}?topic_column=main_category").topics) == 7


def test_the_propositions_of_the_built_in_suite_can_be_had_without_it() -> None:
    assert tables.built_in_propositions() == {item.proposition_id: item.proposition for item in tables.built_in().items}
