import pytest

from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.inputs.errors import InputError


def asked(uri: str) -> set[str]:
    rows = corpus.rows(uri)
    return {(row["messages"] if "messages" in row else row["prompt"])[0]["content"] for row in rows}


def test_the_halves_of_the_questions_share_none_and_both_corpora_ask_them() -> None:
    halves = {
        name: [asked(f"embedded:{name}size=3000&topics=abortion&source={half}") for half in corpus.HALVES]
        for name in ("sft?", "pairs?gap=1&")
    }
    for one, other in halves.values():
        assert one and other and not one & other
    # Each proposition has 12 hand-written questions a half, and 3000 rows ask 10 of them often: nearly all are asked.
    for half in range(2):
        answers, pairs = halves["sft?"][half], halves["pairs?gap=1&"][half]
        assert len(answers & pairs) > 0.8 * len(answers | pairs)
    everything = asked("embedded:sft?size=3000&topics=abortion")
    assert everything & halves["sft?"][0] and everything & halves["sft?"][1]


def test_stances_are_planted_as_without_a_source() -> None:
    rows = corpus.rows("embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=1000&source=b")
    assert sum(row["stance"] == "support" for row in rows) == 700


def test_an_unknown_half_is_one_line() -> None:
    with pytest.raises(InputError, match="source: found 'c', allowed: a or b"):
        corpus.parse("embedded:pairs?source=c")
