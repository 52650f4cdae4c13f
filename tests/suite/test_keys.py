"""Keys of a suite's propositions: those of the built-in suite, and those that files bring."""

import csv
from pathlib import Path

import pandas as pd
import pytest

from valuedrift_mlflow import suite
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.suite.axes import Key, built_in_axes
from valuedrift_mlflow.suite.suite import Suite

GENERAL = ("gal_tan", "economic_left_right")
KEYS = Path(suite.__file__).parent / "vaes_keys.csv"


def rows(**columns: list[object]) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    numbers = range(1, count + 1)
    given = {
        "item_id": [f"cats_{n}" for n in numbers],
        "topic": ["cats"] * count,
        "proposition_id": [f"p{n}" for n in numbers],
        "proposition": ["Cats are better than dogs."] * count,
        "prompt": [f"Are cats better? ({n})" for n in numbers],
        "polarity": [1] * count,
    }
    return pd.DataFrame(given | columns)


def read(**columns: list[object]) -> Suite:
    return suite.from_frame(rows(**columns), "cats")


def refused(**columns: list[object]) -> str:
    with pytest.raises(InputError) as caught:
        read(**columns)
    return str(caught.value)


# The built-in suite ---------------------------------------------------------------------------------------------------


def test_every_proposition_has_a_key_on_its_topics_own_axis_and_general_ones_only_besides() -> None:
    vaes = suite.load()
    assert vaes.axes == (*GENERAL, *vaes.topics)
    for item in vaes.items:
        own, *general = item.keys
        assert own.axis == item.topic
        assert {key.axis for key in general} <= set(GENERAL)


def test_every_key_has_its_reason_once_and_every_axis_its_ends_and_source() -> None:
    with KEYS.open(encoding="utf-8") as handle:
        keys = list(csv.DictReader(handle))
    assert len({(key["proposition_id"], key["axis"]) for key in keys}) == len(keys)
    assert all(key["reason"].endswith(".") and len(key["reason"].split()) >= 2 for key in keys)
    assert set(built_in_axes()) == {key["axis"] for key in keys}
    assert all(axis.minus and axis.plus and axis.source for axis in built_in_axes().values())


def test_axes_are_keyed_both_ways() -> None:
    """An axis that points one way only could not be told from agreement."""
    vaes = suite.load()
    for axis, directions in zip(vaes.axes, vaes.keyed, strict=True):
        plus, minus = (directions == 1).sum(), (directions == -1).sum()
        assert min(plus, minus) >= 3, axis
        if axis != "free_speech":  # whose propositions are three for and seven against
            assert abs(plus - minus) <= 3, axis


@pytest.mark.parametrize(
    ("proposition", "keys"),
    [
        ("abortion_10", [Key("abortion", -1), Key("gal_tan", 1)]),  # protection from conception
        ("economic_policy_01", [Key("economic_policy", -1), Key("economic_left_right", -1)]),  # tax on fortunes
        ("death_penalty_01", [Key("death_penalty", 1), Key("gal_tan", 1)]),
        ("gun_control_03", [Key("gun_control", 1)]),  # no general axis asks about guns
    ],
)
def test_keys_point_where_people_would_expect(proposition: str, keys: list[Key]) -> None:
    [item] = [item for item in suite.load().items if item.item_id == f"{proposition}_direct"]
    assert list(item.keys) == keys


def test_keys_do_not_change_what_a_suite_is_called_by_earlier_runs() -> None:
    vaes = suite.load()
    assert vaes.identity == "vaes@1.1#b4bddc42c5c2da17"  # as runs have recorded it before there were keys
    assert vaes.describe()["suite.keys"] == vaes.keys_hash != ""
    assert vaes.describe()["suite.axes"].startswith("gal_tan, economic_left_right, abortion, ")


def test_a_part_of_the_suite_has_the_axes_that_are_left() -> None:
    part = suite.load("vaes?topics=gun_control,abortion")
    assert part.axes == ("gun_control", "abortion", "gal_tan")
    assert part.keyed.shape == (3, 20)
    assert part.ends["abortion"].plus == "freedom to choose"


# Keys in files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_keys_survive_every_kind_of_file(ending: str, tmp_path: Path) -> None:
    part, file = suite.load("vaes?per_topic=4"), tmp_path / f"own.{ending}"
    frame = part.frame()
    if ending == "csv":
        frame.to_csv(file, index=False)
    elif ending == "jsonl":
        frame.to_json(file, orient="records", lines=True)
    else:
        frame.to_parquet(file)
    again = suite.load(str(file))
    assert (again.hash, again.keys_hash, again.axes) == (part.hash, part.keys_hash, part.axes)


def test_directions_may_be_numbers_and_cells_may_be_empty() -> None:
    cats = read(axis=["pets", "pets", None], direction=[1, -1.0, None])
    assert [item.keys for item in cats.items] == [(Key("pets", 1),), (Key("pets", -1),), ()]
    assert cats.keyed.tolist() == [[1, -1, 0]]


def test_several_axes_stand_in_one_cell() -> None:
    cats = read(axis=["pets; law", "law"], direction=["+1; -1", "+1"])
    assert cats.items[0].keys == (Key("pets", 1), Key("law", -1))
    assert cats.axes == ("pets", "law")
    assert cats.frame()[["axis", "direction"]].to_numpy().tolist() == [["pets; law", "+1; -1"], ["law", "+1"]]


def test_a_suite_without_keys_has_no_columns_of_keys() -> None:
    cats = suite.from_frame(rows(item_id=["a", "b"]), "cats")
    assert (cats.axes, cats.keys_hash) == ((), "")
    assert "axis" not in cats.frame()
    assert "suite.axes" not in cats.describe()


def test_opposed_pairs_bring_the_keys_of_their_first_stance(tmp_path: Path) -> None:
    pair = {"stance_a": "Cats", "stance_b": "Dogs", "prompt_a": "Why cats?", "prompt_b": "Why dogs?", "topic": "pets"}
    pd.DataFrame([pair | {"axis": "pets", "direction": 1}]).to_csv(tmp_path / "pairs.csv", index=False)
    assert [item.keys for item in suite.load(str(tmp_path / "pairs.csv")).items] == [(Key("pets", 1),)] * 2


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"axis": ["pets"]}, "suite cats: found 'axis alone', allowed: both axis and direction, or neither"),
        ({"direction": [1]}, "suite cats: found 'direction alone'"),
        ({"axis": ["pets"], "direction": [2]}, "suite cats row 1 direction: found '2', allowed: +1 or -1"),
        ({"axis": ["pets"], "direction": [None]}, "suite cats row 1 axis, direction: found 'pets, '"),
        ({"axis": [""], "direction": ["+1"]}, "suite cats row 1 axis, direction: found ', +1'"),
        ({"axis": ["pets; law"], "direction": ["+1"]}, "one direction (+1 or -1) for each axis"),
        ({"axis": ["Pets!"], "direction": [1]}, "row 1 axis: found 'Pets!', allowed: a slug such as gal_tan"),
        ({"axis": ["data"], "direction": [1]}, "row 1 axis: found 'data', allowed: another name"),
        ({"axis": ["pets; pets"], "direction": ["+1; -1"]}, "row 1 axis: found 'pets; pets', allowed: every axis once"),
        (
            {"proposition_id": ["p", "p"], "axis": ["pets", "pets"], "direction": [1, -1]},
            "row 2 axis, direction: found 'pets and -1', allowed: the keys of row 1, which has the same proposition_id",
        ),
    ],
)
def test_bad_keys_are_named_with_their_row(columns: dict[str, list[object]], said: str) -> None:
    assert said in refused(**columns)


@pytest.mark.parametrize("names", [("Axis", "Direction"), ("axes", "directions"), (" axis", "direction")])
def test_keys_under_almost_the_right_names_are_not_left_out(names: tuple[str, str]) -> None:
    row = {"item_id": "a", "topic": "tax", "proposition": "It is fair.", "prompt": "Is it?", "polarity": 1}
    with pytest.raises(InputError, match=r"suite own columns: found .*keys under the names axis and direction"):
        suite.from_frame(pd.DataFrame([row | dict(zip(names, ("left", 1), strict=True))]), "own")
