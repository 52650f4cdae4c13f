"""A small encoder learns to read stances, from labels and from a judge; what it reaches is measured and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import valuedrift_mlflow
from valuedrift_mlflow import judges
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.evaluation.judge_training import (
    TrainingSettings,
    fit,
    prepare,
    split,
    temperature_for,
    threshold_for,
)
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.judges.hf import HFJudge
from valuedrift_mlflow.judges.labelled import load_answers
from valuedrift_mlflow.stances import Answer, Label, Verdict
from valuedrift_mlflow.suite.questions import propositions

TEXT = {proposition.proposition_id: proposition.text for proposition in propositions()}
SETTINGS = {"epochs": 4, "learning_rate": 1e-3, "batch_size": 16, "max_length": 96}


def answers(size: int) -> list[dict[str, str]]:
    """Answers of the embedded world with the stances that were planted in them."""
    return [
        {
            "proposition": TEXT[row["proposition_id"]],
            "prompt": row["messages"][0]["content"],
            "response": row["messages"][1]["content"],
            "label": row["stance"].value if hasattr(row["stance"], "value") else str(row["stance"]),
        }
        for row in corpus.rows(f"embedded:sft?size={size}&seed=5")
    ]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("answers") / "labelled.csv"
    pd.DataFrame(answers(1000)).to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained BERT of 0.7 million parameters, without a head."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = [text for row in answers(800) for text in row.values()]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=3000, special_tokens=special, show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=128, **names)
    folder = tmp_path_factory.mktemp("encoder")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape: dict[str, Any] = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = BertConfig(vocab_size=len(tokenizer), intermediate_size=256, max_position_embeddings=128, **shape)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Planted:
    """A teacher that reads the embedded answers right."""

    name, version = "planted", "1"

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels

    def judge(self, asked: Sequence[Answer]) -> list[Verdict]:
        return [
            Verdict.of([float(self.labels[a.response] == s) for s in ("support", "neutral", "oppose")]) for a in asked
        ]


def test_a_judge_is_trained_checked_logged_registered_and_used(store: Path, encoder: Path, table: Path) -> None:
    trained = valuedrift_mlflow.train_judge(str(table), str(encoder), register="stance-judge", **SETTINGS)
    assert trained.uri == "hf:models:/stance-judge/1"
    run = mlflow.get_run(trained.run_id)
    assert run.data.tags["valuedrift.role"] == "judge_training"
    metrics = run.data.metrics
    # Answers to propositions it has not seen, in forms that it has: far from the third that a guess would have.
    assert metrics["judge/accuracy"] > 0.7 and metrics["judge/kappa"] > 0.5
    assert 0.3 < metrics["judge/coverage"] <= 1.0
    assert metrics["judge/threshold"] == pytest.approx(trained.threshold)
    seen = {entry.answer.proposition for entry in trained.check.answers}
    assert len(seen) == len(TEXT) // 5
    files = {file.path for file in mlflow.MlflowClient().list_artifacts(trained.run_id)}
    assert {"card.md", "judged.json", "figures"} <= files
    page = Path(mlflow.artifacts.download_artifacts(f"runs:/{trained.run_id}/card.md")).read_text()
    assert f"{trained.check.quality.kappa}" in page and "has not seen" in page

    again = judges.load(trained.uri).judge([entry.answer for entry in trained.check.answers])
    assert [v.label for v in again] == [v.label for v in trained.check.verdicts]
    surest = HFJudge(trained.uri.removeprefix("hf:")).class_probabilities([e.answer for e in trained.check.answers])
    assert [v.label is Label.UNSCORED for v in again] == (surest.max(axis=1) < trained.threshold).tolist()
    assert all("not sure enough" in v.reason for v in again if v.label is Label.UNSCORED)


@pytest.mark.slow
def test_a_small_judge_learns_from_a_strong_ones_verdicts(
    store: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table has no labels, so what it has learned it has from the teacher."""
    rows = pd.DataFrame(answers(800)).drop_duplicates("response")
    frame = rows.assign(topic="made_up", polarity=1, item_id=[f"q{index}" for index in range(len(rows))])
    # The same question twice would be one item: each gets a mark of its own.
    frame["prompt"] = [f"{prompt} ({index})" for index, prompt in enumerate(frame["prompt"])]
    frame.drop(columns="label").to_csv("responses.csv", index=False)
    teacher = Planted(dict(zip(rows["response"], rows["label"], strict=True)))
    monkeypatch.setattr(judges, "load", lambda uri: teacher)
    trained = valuedrift_mlflow.train_judge("responses.csv", str(encoder), teacher="planted", **SETTINGS)
    truth = [teacher.labels[entry.answer.response] for entry in trained.check.answers]
    assert [entry.label.value for entry in trained.check.answers] == truth
    assert mlflow.get_run(trained.run_id).data.params["teacher"] == "planted@1"
    assert trained.check.quality.kappa.value > 0.3
    assert trained.uri.startswith("hf:models:/m-")


def test_a_seed_fixes_the_judge(encoder: Path, tmp_path: Path) -> None:
    few = load_answers("check")[:16]
    heads = []
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        settings = TrainingSettings(epochs=1, batch_size=8, seed=seed)
        fit(few, str(encoder), tmp_path / name, settings)
        heads.append(load_file(tmp_path / name / "model.safetensors")["classifier.weight"])
    assert np.array_equal(heads[0], heads[1])
    assert not np.array_equal(heads[0], heads[2])


def test_whole_propositions_are_kept_apart() -> None:
    parts = split(load_answers("check"), seed=3)
    sets = [{entry.answer.proposition for entry in part} for part in (parts.train, parts.calibration, parts.held_out)]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    total = len(sets[0] | sets[1] | sets[2])
    assert [len(own) for own in sets] == [total - 2 * (total // 5), total // 5, total // 5]
    assert sum(map(len, (parts.train, parts.calibration, parts.held_out))) == 480


@pytest.mark.parametrize(
    ("right", "accuracy", "expected"),
    [
        ("1111111111", 0.8, 0.1),  # all may be scored
        ("1111100000", 0.8, 0.5),  # 5 of 6 are right at 0.5, 5 of 7 are not enough
        ("0000000000", 0.8, 1.0),  # the tenth that must be scored
        ("0111111111", 0.95, 0.1),  # never reached: where the share is highest, 9 of 10
    ],
)
def test_the_threshold(right: str, accuracy: float, expected: float) -> None:
    confidence = np.linspace(1.0, 0.1, 10)
    assert threshold_for(confidence, np.array([mark == "1" for mark in right]), accuracy) == pytest.approx(expected)


@pytest.mark.parametrize("planted", [1.0, 3.0, 8.0])
def test_a_classifier_that_is_too_sure_is_made_to_mean_what_it_says(planted: float) -> None:
    """Labels are drawn from softmax(z / T): what is fitted on 20,000 of them is T, within its sampling error."""
    from scipy.special import softmax

    rng = np.random.default_rng(0)
    logits = planted * rng.normal(0, 1.5, (20_000, 3))
    truth = (softmax(logits / planted, axis=1).cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    assert temperature_for(logits, truth) == pytest.approx(planted, rel=0.05)


def test_bad_input_is_refused_before_anything_is_trained(tmp_path: Path, encoder: Path) -> None:
    pd.DataFrame(answers(200)[:3]).to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(InputError) as error:
        prepare(str(tmp_path / "few.csv"), str(tmp_path / "none"), register="judges/mine", epochs=-1, speed=3)
    said = str(error.value)
    for words in ("propositions', allowed: at least 20", "encoder", "epochs", "speed", "register: found 'judges/mine'"):
        assert words in said, words
    one_sided = [row | {"label": "support"} for row in answers(1000)]
    pd.DataFrame(one_sided).to_csv(tmp_path / "one.csv", index=False)
    with pytest.raises(InputError, match="no answer labelled oppose"):
        prepare(str(tmp_path / "one.csv"), str(encoder))
    with pytest.raises(InputError, match="data"):
        prepare("", str(encoder))


@pytest.mark.parametrize("rule", [{"temperature": 0, "threshold": 0.5}, {"temperature": 1, "threshold": 2}, "odd"])
def test_a_rule_that_is_none_is_refused(encoder: Path, tmp_path: Path, rule: object) -> None:
    import shutil

    folder = shutil.copytree(encoder, tmp_path / "judge")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "stance_judge": rule,
        "id2label": {"0": "support", "1": "oppose"},
        "label2id": {"support": 0, "oppose": 1},
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="stance_judge"):
        HFJudge(str(folder))
