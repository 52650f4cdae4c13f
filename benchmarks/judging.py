"""How many answers a second judges read, and whether their cost grows faster than the length of answers.

python benchmarks/judging.py            # two minutes of CPU
python benchmarks/judging.py --rounds 1 --answers 50

Three questions. The offline judge: answers of 20 to 1,000 words (the package's labelled answers, one after the other
until they have so many), beside scikit-learn's TF-IDF and logistic regression over the same texts. ``hf:`` judges: an
encoder with random weights over answers of mixed length, beside transformers' own pipeline with the same model and
batch size; the classes that they find are compared. The cache: verdicts that are had from it. All on one thread.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from processes import fitted
from rounds import compared, in_turn, machine, write

from valuedrift_mlflow.judges import labelled, load
from valuedrift_mlflow.judges.cache import CachedJudge
from valuedrift_mlflow.judges.hf import PREMISE, HFJudge
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.stances import Answer, Label, Verdict

LENGTHS = (20, 50, 130, 400, 1_000)
GOAL, CACHE_GOAL = 500, 20_000  # answers of 130 words a second on 2 cores, verdicts from the cache a second
VERDICTS = 20_000
_LABELS = ("AGAINST", "FAVOR", "NONE")


def answers(words: int, many: int) -> list[Answer]:
    """Answers of so many words, each on its first text's proposition."""
    rows = [row.answer for row in labelled.load_answers("check") if row.answer.response.strip()]
    made = []
    for start in range(many):
        text: list[str] = []
        place = start
        while len(text) < words:
            text += rows[place % len(rows)].response.split()
            place += 1
        first = rows[start % len(rows)]
        made.append(Answer(first.proposition, first.prompt, " ".join(text[:words]), first.polarity))
    return made


def by_length(many: int, rounds: int) -> dict[str, object]:
    """The offline judge and scikit-learn at each length."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    judge = load("lexical")
    known = labelled.load_answers("check")
    peer = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=500))
    peer.fit([row.answer.response for row in known], [row.label.value for row in known])
    judge.judge(answers(50, many))  # what is loaded once is loaded
    found: dict[str, object] = {}
    for words in LENGTHS:
        texts = answers(words, many)
        sides = {
            "ours": lambda texts=texts: judge.judge(texts),
            "scikit-learn": lambda texts=texts: peer.predict_proba([one.response for one in texts]),
        }
        took = compared(in_turn(sides, rounds), "ours")
        found[str(words)] = {"answers": many, "sides": took}
    return found


def encoder(folder: Path) -> None:
    """An encoder of 4 million parameters with random weights, whose classes are told apart by its texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    texts = [row.answer.response for row in labelled.load_answers("check")]
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=4_000, special_tokens=special, show_progress=False)
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1_024,
        id2label=dict(enumerate(_LABELS)),
        label2id={label: place for place, label in enumerate(_LABELS)},
        initializer_range=0.2,  # so that its classes differ from text to text
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def by_encoder(many: int, rounds: int) -> dict[str, object]:
    """An ``hf:`` judge and transformers' pipeline over answers of 10 to 250 words."""
    from transformers import pipeline

    draw = np.random.default_rng(0)
    lengths = draw.integers(10, 251, size=many).tolist()
    long = answers(max(lengths), many)
    texts = [
        replace(one, response=" ".join(one.response.split()[:words])) for one, words in zip(long, lengths, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        encoder(Path(folder))
        judge = HFJudge(folder)
        peer: Any = pipeline("text-classification", model=folder, device="cpu", batch_size=judge.batch_size)
        pairs = [
            {"text": PREMISE.format(prompt=one.prompt, response=one.response), "text_pair": one.proposition}
            for one in texts
        ]
        read: dict[str, list[str]] = {}

        def ours() -> None:
            read["ours"] = [verdict.label.value for verdict in judge.judge(texts)]

        def theirs() -> None:
            found = peer(pairs, truncation="only_first", max_length=512)
            names = {"FAVOR": "support", "NONE": "neutral", "AGAINST": "oppose"}
            read["transformers"] = [names[one["label"]] for one in found]

        judge.judge(texts[:8])
        took = compared(in_turn({"ours": ours, "transformers": theirs}, rounds), "ours")
    same = float(np.mean([a == b for a, b in zip(read["ours"], read["transformers"], strict=True)]))
    return {"answers": many, "sides": took, "labels alike": same}


class _Planted:
    """A judge that costs nothing, so that the cache is what is timed."""

    name, version = "planted", "1"

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        return [Verdict.of((0.7, 0.2, 0.1))] * len(answers)

    def verdicts(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        yield from enumerate(self.judge(answers))


def by_cache(rounds: int) -> dict[str, object]:
    """Verdicts a second that are had from the cache, of answers of 130 words."""
    texts = [
        replace(one, response=f"{one.response} {turn}") for turn in range(VERDICTS // 200) for one in answers(130, 200)
    ]
    with tempfile.TemporaryDirectory() as folder:
        judge = CachedJudge(_Planted(), Path(folder) / "verdicts.sqlite")
        judge.judge(texts)
        took = compared(in_turn({"ours": lambda: judge.judge(texts)}, rounds), "ours")
        assert all(verdict.cached and verdict.label is Label.SUPPORT for verdict in judge.judge(texts))
    return {"verdicts": len(texts), "sides": took}


def _second(result: Any, side: str = "ours") -> float:
    return (result.get("answers") or result["verdicts"]) / result["sides"][side]["cpu"]["median_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=400, help="of each length")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    told = machine(1)
    lengths: Any = by_length(arguments.answers, arguments.rounds)
    encoded: Any = by_encoder(arguments.answers, arguments.rounds)
    cached: Any = by_cache(arguments.rounds)
    growth = fitted(LENGTHS, [1 / _second(lengths[str(words)]) for words in LENGTHS])
    rows = [
        [
            f"{words} words",
            f"{_second(lengths[str(words)]):,.0f}",
            f"{_second(lengths[str(words)], 'scikit-learn'):,.0f}",
        ]
        for words in LENGTHS
    ]
    rows.append(["hf:, 10 to 250 words", f"{_second(encoded):,.0f}", f"{_second(encoded, 'transformers'):,.0f}"])
    rows.append(["from the cache", f"{_second(cached):,.0f}", ""])
    Display().table("Answers a second of CPU", ("answers", "ours", "peer"), rows)
    two, faster = 2 * _second(lengths["130"]), encoded["sides"]["transformers"]["cpu"]["times_ours"]
    print(f"offline judge: time grows with the power {growth:.2f} of the length; on 2 cores")
    print(f"  {two:,.0f} answers of 130 words a second (goal {GOAL:,})")
    print(
        f"hf: judge: {faster:.2f} times as fast as transformers' pipeline, {encoded['labels alike']:.1%} labels alike"
    )
    print(f"cache: {_second(cached):,.0f} verdicts a second (goal {CACHE_GOAL:,})")
    result = {"machine": told, "lengths": lengths, "exponent": round(growth, 2), "hf": encoded, "cache": cached}
    write("judging", "all", result)


if __name__ == "__main__":
    main()
