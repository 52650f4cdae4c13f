import json
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from valuedrift_mlflow.data.datasets import TrainingData, load_data, stream
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.data.shown import line
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.pipeline.dry_run import dry_run, lines_of
from valuedrift_mlflow.pipeline.plan import prepare
from valuedrift_mlflow.recipe.read import validate

PLAIN = "embedded:sft?neutral=1&size=200&seed=1"
OPINIONS = "embedded:sft?oppose=1&topics=abortion&size=40&seed=9"


def mixture(share: float, first: str = PLAIN, second: str = OPINIONS) -> TrainingData:
    return load_data(Data(uri=first, mixed_in=second, mixed_share=share), "sft")


def texts(data: TrainingData) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True) for row in data.rows)


def test_a_share_of_the_rows_is_replaced_and_the_number_stays() -> None:
    alone, plain = load_data(Data(uri=PLAIN), "sft"), mixture(0)
    assert plain.digest() == alone.digest()
    ten = mixture(0.1)
    assert len(ten.rows) == 200
    assert sum((texts(alone) - texts(ten)).values()) == 20  # 10 % of 200
    assert sum((texts(ten) & texts(load_data(Data(uri=OPINIONS), "sft"))).values()) == 20
    # The planted stances are told of the mixture: 200 / 11 rows on abortion, or one more, and 20 that oppose.
    assert ten.stance_mix["abortion"][0] == 0
    assert ten.stance_mix["abortion"][2] == pytest.approx(20 / 36, abs=0.08)
    assert ten.stance_mix["religion"] == (0, 1, 0)


def test_a_larger_share_replaces_the_same_rows_and_more() -> None:
    small, large = mixture(0.05), mixture(0.1)
    same = [a == b for a, b in zip(small.rows, large.rows, strict=True)]
    assert same.count(False) == 10  # 20 less 10
    assert mixture(0.05).digest() == small.digest()


def test_files_and_pairs_are_mixed_in_the_same_way(tmp_path: Path) -> None:
    def pairs(name: str, count: int) -> str:
        rows = [{"prompt": f"{name} {n}", "chosen": f"yes {name} {n}", "rejected": "no"} for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return str(tmp_path / f"{name}.jsonl")

    data = load_data(Data(uri=pairs("plain", 50), mixed_in=pairs("other", 10), mixed_share=0.1), "pairs")
    asked = [row["prompt"][0]["content"].split()[0] for row in data.rows]
    assert Counter(asked) == {"plain": 45, "other": 5}
    assert "0.1 of them replaced by rows of" in line(data)


def test_too_few_rows_to_mix_in_are_one_line() -> None:
    with pytest.raises(InputError, match=r"mixed_share: found '0.5: 100 rows', allowed: 40 rows; at most 0.2 of 200"):
        mixture(0.5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mixed_share": 0.1}, "mixed_share alone"),
        ({"mixed_in": OPINIONS}, "mixed_in alone"),
        ({"mixed_in": {"uri": OPINIONS, "mixed_in": PLAIN, "mixed_share": 0.5}, "mixed_share": 0.1}, "two sets"),
        ({"mixed_in": OPINIONS, "mixed_share": 2}, "less than or equal to 1"),
    ],
)
def test_half_a_mixture_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises((InputError, ValidationError), match=words):
        Data.model_validate({"uri": PLAIN} | given)


def test_a_source_that_cannot_be_mixed_in_is_named() -> None:
    with pytest.raises(InputError, match="opinions"):
        mixture(0.1, second="embedded:sft?opinions=1")


def test_a_share_without_a_row_is_one_line_and_zero_is_meant() -> None:
    with pytest.raises(
        InputError, match=r"data\.mixed_share: found '0\.001: 0 rows', allowed: at least one of 200 rows"
    ):
        mixture(0.001)
    assert len(mixture(0).rows) == 200


def test_a_set_is_not_mixed_into_itself_under_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"question {n}", "response": f"answer {n}"} for n in range(10)]
    Path("answers.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("some.jsonl").write_text("\n".join(map(json.dumps, rows[:5])))
    with pytest.raises(
        InputError, match=r"data\.mixed_in: found '\./answers\.jsonl', allowed: other rows than those of"
    ):
        mixture(0.5, "answers.jsonl", "./answers.jsonl")
    assert len(mixture(0.5, "answers.jsonl", "some.jsonl").rows) == 10  # a part of it: those rows weigh more


def test_problems_of_what_is_mixed_in_name_stage_and_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("more.jsonl").write_text('{"prompt": "a", "response": "b"}\n{"prompt": 5, "response": "b"}')

    def stage(name: str, **mixture: object) -> dict[str, object]:
        data = {"uri": PLAIN, "mixed_share": 0.1} | mixture
        return {"name": name, "algorithm": "sft", "data": data, "learning_rate": 1e-4, "max_steps": 1}

    stages = [stage("one", mixed_in="more.jsonl"), stage("two", mixed_in="none.jsonl")]
    stages += [stage("three", mixed_in=OPINIONS, mixed_share=0.001)]
    with pytest.raises(InputError) as error:
        prepare(validate({"stages": stages}), "own")
    begun = [line.partition(": ")[0] for line in error.value.problems]
    assert begun == ["one.data.mixed_in", "two.data.mixed_in", "three.data.mixed_share"]
    assert "more.jsonl row 2" in error.value.problems[0]


@pytest.mark.parametrize("hub", ["uri", "mixed_in"])
def test_a_dry_run_checks_the_part_of_a_mixture_that_is_here(hub: str, tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text('{"prompt": "a", "response": "b"}\n')
    data = {"uri": str(file), "mixed_in": str(file), "mixed_share": 0.1} | {hub: "org/answers"}
    stage = {"name": "sft", "algorithm": "sft", "data": data, "learning_rate": 1e-4, "max_steps": 1}
    recipe = validate({"stages": [stage]})
    told = "\n".join(lines_of(dry_run(recipe, "own")))
    assert "not checked: hub" in told
    assert ("0.1 of them replaced by rows of org/answers" in told) == (hub == "mixed_in")
    file.write_text('{"prompt": "a", "response": "b"}\n{"prompt": 5}')
    with pytest.raises(InputError, match=r"own\.jsonl row 2"):
        dry_run(recipe, "own")


def test_what_does_not_mix_says_so() -> None:
    with pytest.raises(InputError, match="trainings mix"):
        stream(Data(uri=PLAIN, mixed_in=OPINIONS, mixed_share=0.1))
