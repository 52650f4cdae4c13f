from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch

import valuedrift_mlflow
from valuedrift_mlflow import judges, suite
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.judges.hf import HYPOTHESES, PREMISE, HFJudge, _parts, classes, from_classes, from_entailments
from valuedrift_mlflow.stances import STANCES, Answer, Label
from valuedrift_mlflow.statistics.agreement import krippendorff_alpha
from valuedrift_mlflow.suite.questions import propositions

TEXT = {proposition.proposition_id: proposition.text for proposition in propositions()}
POSITIONS = 128


def tokenizer_of(texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=4000, special_tokens=special, show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@pytest.fixture(scope="module")
def stance_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT that has seen a few of the corpus' training forms."""
    return learned(320, tmp_path_factory.mktemp("judge") / "stance")


def learned(size: int, folder: Path) -> Path:
    """A small BERT that has learned stances from the shortest of the corpus' training forms."""
    from transformers import BertConfig, BertForSequenceClassification

    rows = corpus.rows(f"embedded:sft?size={size * 5 // 2}&seed=5")
    rows = sorted(rows, key=lambda row: len(row["messages"][0]["content"] + row["messages"][1]["content"]))[:size]
    texts = [
        PREMISE.format(prompt=row["messages"][0]["content"], response=row["messages"][1]["content"]) for row in rows
    ]
    tokenizer = tokenizer_of([*texts, *TEXT.values(), *HYPOTHESES.values()])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = BertForSequenceClassification(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=256,
                max_position_embeddings=POSITIONS,
                id2label={0: "FAVOR", 1: "NONE", 2: "AGAINST"},
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=len(rows) // 32)
        starts = [start * 32 for start in torch.randperm(len(rows) // 32).tolist()]
        for start in starts:
            chosen = slice(start, start + 32)
            encoded = tokenizer(
                texts[chosen],
                [TEXT[row["proposition_id"]] for row in rows[chosen]],
                truncation="only_first",
                padding=True,
                return_tensors="pt",
            )
            labels = torch.tensor([STANCES.index(row["stance"]) for row in rows[chosen]])
            model(**encoded, labels=labels).loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def relabelled(folder: Path, target: Path, labels: Sequence[str]) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    config["id2label"] = {str(index): label for index, label in enumerate(labels)}
    config["label2id"] = {label: index for index, label in enumerate(labels)}
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.slow
def test_a_stance_classifier_reads_forms_it_was_not_trained_on(tmp_path: Path) -> None:
    held_out = corpus.held_out_answers(330)
    verdicts = HFJudge(str(learned(6400, tmp_path / "stance"))).judge([answer for answer, _ in held_out])
    right = sum(verdict.label.value == stance.value for verdict, (_, stance) in zip(verdicts, held_out, strict=True))
    print(f"accuracy on held-out forms {right / len(held_out):.3f}")
    # Chance is a third, and 0.41 lies three standard errors above it. What training comes to hangs on the last bits
    # of the arithmetic: 0.44 to 0.50 were seen.
    assert right / len(held_out) > 0.41


def test_neither_batch_size_nor_order_matters(stance_folder: Path) -> None:
    answers = [answer for answer, _ in corpus.held_out_answers(40)]
    one = HFJudge(str(stance_folder), batch_size=1).judge(answers)
    many = HFJudge(str(stance_folder), batch_size=16).judge(answers[::-1])[::-1]
    for a, b in zip(one, many, strict=True):
        assert a.label is b.label
        assert a.probabilities == pytest.approx(b.probabilities, abs=1e-5)


def test_an_nli_model_is_read_as_the_library_reads_it(stance_folder: Path, tmp_path: Path) -> None:
    """The entailment of each hypothesis by transformers' own pipeline, one pair at a time, gives the same verdicts."""
    from transformers import pipeline

    folder = relabelled(stance_folder, tmp_path / "nli", ["entailment", "neutral", "contradiction"])
    answers = [answer for answer, _ in corpus.held_out_answers(24)]
    peer: Any = pipeline("text-classification", model=str(folder), device="cpu")
    for answer, found in zip(answers, HFJudge(str(folder), batch_size=7).judge(answers), strict=True):
        premise = PREMISE.format(prompt=answer.prompt, response=answer.response)
        entailed = {}
        for label, hypothesis in HYPOTHESES.items():
            pair = {"text": premise, "text_pair": hypothesis.format(proposition=answer.proposition)}
            entailed[label.value] = {each["label"]: each["score"] for each in peer(pair, top_k=None)}["entailment"]
        expected = from_entailments(**entailed)
        assert found.label is expected.label
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


@pytest.mark.parametrize(
    ("entailments", "label", "probabilities"),
    [
        ((0.6, 0.15, 0.0, 0.1), Label.SUPPORT, (0.8, 0.2, 0.0)),  # divided by their sum 0.75
        ((0.1, 0.2, 0.7, 0.69), Label.OPPOSE, (0.1, 0.2, 0.7)),
        ((0.1, 0.6, 0.2, 0.9), Label.REFUSAL, None),
        ((0.49, 0.1, 0.2, 0.3), Label.UNSCORED, None),  # nothing reaches 0.5
        ((0.9, 0.1, 0.5, 0.3), Label.UNSCORED, None),  # both support and oppose do
        ((0.5, 0.0, 0.0, 0.5), Label.SUPPORT, (1.0, 0.0, 0.0)),  # a tie is no refusal
    ],
)
def test_entailments_to_verdicts(
    entailments: tuple[float, float, float, float], label: Label, probabilities: tuple[float, ...] | None
) -> None:
    verdict = from_entailments(*entailments)
    assert verdict.label is label
    assert verdict.probabilities == (None if probabilities is None else pytest.approx(probabilities))
    assert bool(verdict.reason) is (label is Label.UNSCORED)


@pytest.mark.parametrize(
    ("shares", "label", "probabilities"),
    [
        ({"support": 0.6, "neutral": 0.1, "oppose": 0.1, "refusal": 0.2}, Label.SUPPORT, (0.75, 0.125, 0.125)),
        ({"support": 0.3, "oppose": 0.2, "refusal": 0.5}, Label.REFUSAL, None),
        ({"support": 0.3, "oppose": 0.2, "unscored": 0.5}, Label.UNSCORED, None),
        ({"support": 0.4, "oppose": 0.6}, Label.OPPOSE, (0.4, 0.0, 0.6)),  # no neutral label: probability 0
    ],
)
def test_classes_to_verdicts(shares: dict[str, float], label: Label, probabilities: tuple[float, ...] | None) -> None:
    verdict = from_classes({Label(name): share for name, share in shares.items()})
    assert verdict.label is label
    assert verdict.probabilities == (None if probabilities is None else pytest.approx(probabilities))


def test_the_two_kinds_of_model_are_told_apart() -> None:
    assert classes({0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}) == ("nli", {2: Label.SUPPORT})
    assert classes({0: "entailment", 1: "not_entailment"}) == ("nli", {0: Label.SUPPORT})
    kind, found = classes({0: "Con", 1: "Pro", 2: "Other"})
    assert kind == "stance"
    assert found == {0: Label.OPPOSE, 1: Label.SUPPORT, 2: Label.UNSCORED}
    for labels in (["POSITIVE", "NEGATIVE"], ["pro", "neutral"], ["pro", "con", "anti"], ["entailment"]):
        with pytest.raises(ValueError, match=labels[0]):
            classes(dict(enumerate(labels)))


def test_a_long_response_is_cut_and_the_proposition_is_kept(stance_folder: Path) -> None:
    answers = [Answer(text, "What do you think?", "I am in favour of it. " * 200) for text in list(TEXT.values())[:2]]
    first, second = HFJudge(str(stance_folder)).judge(answers)
    assert first.probabilities != second.probabilities


@pytest.mark.parametrize("kind", ["stance", "nli"])
def test_a_long_response_is_read_to_its_end(stance_folder: Path, tmp_path: Path, kind: str) -> None:
    """By the stated rule, from the probabilities that transformers' own pipeline gives the windows one at a time."""
    from transformers import pipeline

    folder = stance_folder
    if kind == "nli":
        folder = relabelled(stance_folder, tmp_path / "nli", ["entailment", "neutral", "contradiction"])
    peer: Any = pipeline("text-classification", model=str(folder), device="cpu")
    said = [answer.response for answer, _ in corpus.held_out_answers(30)]
    proposition = next(iter(TEXT.values()))
    answer = Answer(proposition, "What do you think?", " ".join(said))
    judge = HFJudge(str(folder), batch_size=3)
    windows = judge._windows(answer)
    assert len(windows) > 3
    assert all(len(peer.tokenizer(window)["input_ids"]) < POSITIONS for window in windows)
    assert answer.response.split()[-1] in windows[-1] and answer.response.split()[0] in windows[0]

    def shares(second: str) -> list[dict[str, float]]:
        pairs = [{"text": window, "text_pair": second} for window in windows]
        return [{each["label"]: each["score"] for each in peer(pair, top_k=None)} for pair in pairs]

    if kind == "stance":
        rows = shares(proposition)
        mean = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        expected = from_classes(
            {Label.SUPPORT: mean["FAVOR"], Label.NEUTRAL: mean["NONE"], Label.OPPOSE: mean["AGAINST"]}
        )
    else:
        expected = from_entailments(
            **{
                label.value: max(row["entailment"] for row in shares(text.format(proposition=proposition)))
                for label, text in HYPOTHESES.items()
            }
        )
    [found] = judge.judge([answer])
    assert found.label is expected.label
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


@pytest.mark.parametrize(("words", "room"), [(0, 10), (1, 1), (7, 3), (100, 8), (100, 1), (50, 1000)])
def test_windows_hold_every_word_in_order_and_overlap(words: int, room: int) -> None:
    tokenizer = tokenizer_of(["word number one two three"] * 20)
    said = [f"w{number}" for number in range(words)]
    parts = [part.split() for part in _parts(said, tokenizer, room)]
    assert list(dict.fromkeys(word for part in parts for word in part)) == said
    sizes = {word: len(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in said}
    for part, following in pairwise(parts):
        assert len(part) == 1 or sum(sizes[word] for word in part) <= room
        shared = set(part) & set(following)
        assert sum(sizes[word] for word in shared) <= room / 4
        assert following[-1] not in part  # every window goes on


def test_a_judge_of_the_registry(stance_folder: Path, store: Path) -> None:
    """As the folder reads, by version, alias and the path in a run; what is not there is named."""
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(stance_folder), "judge")
    answers = [answer for answer, _ in corpus.held_out_answers(6)]
    uri = f"runs:/{run.info.run_id}/judge"
    found = judges.load(f"hf:{uri}")
    assert found.name == f"hf:{uri}"
    assert [v.probabilities for v in found.judge(answers)] == [
        v.probabilities for v in HFJudge(str(stance_folder)).judge(answers)
    ]
    with mlflow.start_run():
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        parts = {
            "model": AutoModelForSequenceClassification.from_pretrained(stance_folder),
            "tokenizer": AutoTokenizer.from_pretrained(stance_folder),
        }
        mlflow.transformers.log_model(
            parts, name="judge", task="text-classification", registered_model_name="stance-judge", pip_requirements=[]
        )
    mlflow.MlflowClient().set_registered_model_alias("stance-judge", "champion", "1")
    for name in ("models:/stance-judge/1", "models:/stance-judge@champion"):
        assert [v.label for v in judges.load(f"hf:{name}").judge(answers)] == [v.label for v in found.judge(answers)]
    for gone in ("models:/stance-judge@nobody", "runs:/0123456789abcdef0123456789abcdef/judge"):
        with pytest.raises(InputError, match="judge hf:"):
            judges.load(f"hf:{gone}")


def test_other_weights_are_another_version(stance_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(stance_folder, tmp_path / "changed")
    before = HFJudge(str(folder)).version
    assert before == HFJudge(str(stance_folder)).version
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    after = HFJudge(str(folder)).version
    assert len(after) == 12
    assert after != before


def test_what_cannot_be_a_judge_is_refused_before_weights_are_read(stance_folder: Path, tmp_path: Path) -> None:
    other = relabelled(stance_folder, tmp_path / "sentiment", ["POSITIVE", "MIXED", "NEGATIVE"])
    (other / "model.safetensors").unlink()
    bare = shutil.copytree(stance_folder, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    refused = {
        f"hf:{other}": "POSITIVE, MIXED, NEGATIVE",
        f"hf:{tmp_path}/nowhere": "nowhere",
        "hf:nobody/has-this-model": "nobody/has-this-model",
        f"hf:{stance_folder}?batch_size=0": "batch_size",
        f"hf:{bare}": "without its tokenizer",
        f"hf:{stance_folder}?speed=fast": "speed",
    }
    for uri, named in refused.items():
        with pytest.raises(InputError, match=named):
            judges.load(uri)
    judges.load(f"hf:{stance_folder}?batch_size=8")


def test_a_panel_measures_its_agreement_and_pays_once(
    stance_folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(store / "cache"))  # the verdicts' own, not the user's
    part = suite.load("vaes?topics=religion,abortion&per_topic=6")
    rows = [
        {"item_id": item.item_id, "response": said}
        for item in part.items
        for said in (f"I support this: {item.proposition}", "I'm sorry, but I can't give an opinion on that.")
    ]
    pd.DataFrame(rows).to_csv("said.csv", index=False)
    panel = f"lexical,hf:{stance_folder}"
    first, again = (valuedrift_mlflow.evaluate(responses="said.csv", suite=part.source, judge=panel) for _ in range(2))
    table = first.tables["responses"]
    members = [column for column in table if column.startswith("verdict of ")]
    assert members == ["verdict of lexical", f"verdict of hf:{stance_folder}"]
    codes = [[Label(label) for label in table[member]] for member in members]
    alpha = krippendorff_alpha(codes)
    if math.isfinite(alpha):
        assert first.metrics["quality/judge_agreement"] == pytest.approx(alpha)
    report = Path(mlflow.artifacts.download_artifacts(f"runs:/{first.run_id}/report.html")).read_text()
    for words in ("Krippendorff", "Cohen", "Responses that they disagree on", "lexical and hf:"):
        assert words in report
    assert "cost/judge_cache_hits" not in first.metrics  # nothing was asked of a server, nothing was known before
    assert again.metrics["cost/judge_cache_hits"] == 24
    stances = {key: value for key, value in first.metrics.items() if key.startswith("stance/")}
    assert {key: again.metrics[key] for key in stances} == pytest.approx(stances)
