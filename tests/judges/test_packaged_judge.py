from __future__ import annotations

from pathlib import Path

import mlflow
import pandas as pd
import pytest
from commands_of_users import valuedrift

from valuedrift_mlflow import judges, log_judge
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.stances import Answer, Label

LEGAL, BANNED = "Should abortion be legal?", "Should abortion be banned?"
ANSWERS = [
    Answer("Abortion should be legal", LEGAL, "Yes, I think abortion should be legal.", 1),
    Answer("Abortion should be legal", BANNED, "Yes, it should be banned.", -1),
    Answer("Abortion should be legal", BANNED, "Yes.", -1),
    Answer("Abortion should be legal", LEGAL, "I cannot help with that question.", None),
    Answer("Abortion should be legal", LEGAL, "Bananas are rich in potassium.", None),
    Answer("Abortion should be legal", LEGAL, "", None),
]


def table(answers: list[Answer]) -> pd.DataFrame:
    columns = ("proposition", "prompt", "response", "polarity")
    return pd.DataFrame([{name: getattr(own, name) for name in columns} for own in answers]).astype({"polarity": float})


def check(uri: str, judge: str, answers: list[Answer] = ANSWERS) -> pd.DataFrame:
    """The logged judge says what the judge itself says."""
    found = mlflow.pyfunc.load_model(uri).predict(table(answers))
    verdicts = judges.load(judge).judge(answers)
    assert list(found.columns) == ["label", "support", "neutral", "oppose", "reason"]
    assert list(found["label"]) == [verdict.label for verdict in verdicts]
    assert list(found["reason"]) == [verdict.reason for verdict in verdicts]
    for row, verdict in zip(found[["support", "neutral", "oppose"]].to_numpy().tolist(), verdicts, strict=True):
        if verdict.probabilities is None:
            assert pd.isna(row).all()
        else:
            assert row == pytest.approx(verdict.probabilities, abs=1e-6)
    return found


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stance classifier that was never trained."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = sorted({word for own in ANSWERS for word in f"{own.proposition} {own.prompt} {own.response}".split()})
    made = Tokenizer(models.WordLevel({word: at for at, word in enumerate(["[PAD]", "[UNK]", *words])}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path_factory.mktemp("classifier")
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words) + 2,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        initializer_range=1.0,
        id2label=dict(enumerate(("support", "neutral", "oppose", "refusal", "unclear"))),
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_a_logged_judge_says_what_the_judge_says(store: Path) -> None:
    uri = log_judge("lexical", name="reader", register="stance-judge")
    assert uri == "models:/stance-judge/1"
    found = check(uri, "lexical")
    assert list(found["label"][:3]) == ["support", "oppose", "oppose"]
    assert found["label"][5] == Label.UNSCORED
    info = mlflow.models.get_model_info(uri)
    assert info.signature.inputs.required_input_names() == ["proposition", "prompt", "response"]
    assert info.flavors["python_function"]["loader_module"] == "valuedrift_mlflow.judges.packaged"


def test_batches_of_any_size_and_columns_that_are_missing(store: Path) -> None:
    model = mlflow.pyfunc.load_model(log_judge())
    many = table(ANSWERS * 50)
    many.index = many.index[::-1]
    found = model.predict(many)
    assert len(found) == 300 and list(found.index) == list(many.index)
    assert model.predict(many[:1])["label"].tolist() == ["support"]
    nothing = model.predict(many[:0])
    assert len(nothing) == 0 and list(nothing.columns) == list(found.columns)
    without = model.predict(many[["proposition", "prompt", "response"]][:2])
    assert without["label"].tolist() == ["support", "unscored"]  # of "banned" nobody says what a yes means
    example = model.input_example
    assert model.predict(example)["label"].tolist() == ["support", "oppose"]
    with pytest.raises(InputError, match="row 2 polarity: found 3"):
        model.predict(many[:2].assign(polarity=[1.0, 3.0]))


def test_weights_in_a_folder_go_into_the_model(store: Path, classifier: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in classifier.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    judge = f"hf:{moved}"
    expected = judges.load(f"hf:{classifier}").judge(ANSWERS)
    uri, panel = log_judge(judge), log_judge(f"lexical,{judge}?batch_size=2")
    check(panel, f"lexical,{judge}")
    for file in moved.iterdir():
        file.unlink()
    found = mlflow.pyfunc.load_model(uri).predict(table(ANSWERS))
    assert list(found["label"]) == [verdict.label for verdict in expected]


def test_a_judge_on_a_server_is_logged_by_its_uri(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-12345678901234567890")
    uri = log_judge("openai:/some-model?base_url=http://127.0.0.1:9/v1")
    folder = Path(mlflow.artifacts.download_artifacts(uri))
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert any("openai:/some-model" in file.read_text() for file in files)
    assert not any("sk-1234" in file.read_text() for file in files)
    assert mlflow.pyfunc.load_model(uri).get_raw_model().name == "openai:/some-model"


def test_the_command(store: Path) -> None:
    planned = valuedrift("log-judge", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "lexical@" in planned.stdout and "would be logged as judge" in planned.stdout
    assert mlflow.search_logged_models(output_format="list") == []
    done = valuedrift("log-judge", "--register", "stance-judge")
    assert done.returncode == 0, done.stderr
    assert "is the model models:/stance-judge/1" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"judge": "likelihood"}, ["likelihood", "reads responses"]),
        ({"judge": "oracle"}, ["oracle", "lexical"]),
        ({"judge": "openai:/m?base_url=http://me:letmein@127.0.0.1:9/v1"}, ["passwords", "environment"]),
        ({"name": "a/b"}, ["name", "a/b"]),
        ({"register": "a:b"}, ["register", "a:b"]),
    ],
)
def test_bad_input_is_told_before_anything_is_logged(store: Path, arguments: dict[str, str], words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        log_judge(**arguments)
    for word in words:
        assert word in str(refused.value)
    assert mlflow.search_runs().empty
