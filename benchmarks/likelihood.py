"""How long do forced choices on 550 prompts take, beside ``HFLM.loglikelihood`` of lm-evaluation-harness?

Every prompt has 36 openings, of which both sides give the log-probability after the same prompt and beginning, by the
same model object. The largest difference between the two is printed and must be under 1e-4 nats. The harness' batch
size is tuned first, on a tenth of the prompts. What it needs is installed as ``benchmarks/sampling.py`` says.

    python benchmarks/likelihood.py                              # embedded model and 15M
    python benchmarks/likelihood.py --models 135M --share 0.04   # a part of the prompts
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import rounds
import torch
from numpy.typing import NDArray

from valuedrift_mlflow import suite
from valuedrift_mlflow.judges.likelihood import LikelihoodJudge, log_probabilities, prefix_and_openings, verdict
from valuedrift_mlflow.models.generation import evaluation_mode
from valuedrift_mlflow.models.loading import Loaded
from valuedrift_mlflow.suite import Item

OURS, HARNESS = "ours", "lm-evaluation-harness"


def ours(loaded: Loaded, items: Sequence[Item]) -> None:
    """The verdicts of this package."""
    LikelihoodJudge().choose(loaded.model, loaded.tokenizer, items)


def harness(loaded: Loaded, items: Sequence[Item], rows: int) -> NDArray[np.float64]:
    """Log-probabilities, (items, openings), and the verdicts of these, which ours gives too."""
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=rows, max_length=2048)
    texts = [prefix_and_openings(loaded.tokenizer, item) for item in items]
    # By tokens: the harness' own way to them would part texts elsewhere, and be another question.
    asked = [
        ((str(at), str(number)), prefix, opening)
        for at, (prefix, openings) in enumerate(texts)
        for number, opening in enumerate(openings)
    ]
    with evaluation_mode(loaded.model):
        said = model._loglikelihood_tokens(asked, disable_tqdm=True)
    found = np.array([one[0] for one in said]).reshape(len(items), -1)
    for row in found:
        verdict(row)
    return found


def difference(loaded: Loaded, items: Sequence[Item]) -> float:
    """The largest difference between the two sides' log-probabilities, in nats."""
    with evaluation_mode(loaded.model):
        own = log_probabilities(loaded.model, [prefix_and_openings(loaded.tokenizer, item) for item in items])
    return float(np.abs(own - harness(loaded, items, 32)).max())


def tuned(loaded: Loaded, items: Sequence[Item], sizes: Sequence[int] = (16, 64, 256)) -> int:
    """The harness' best batch size on some items, by CPU time."""
    taken = {}
    for size in sizes:
        start = time.process_time()
        harness(loaded, items, size)
        taken[size] = time.process_time() - start
    print("  rows at once:", ", ".join(f"{size}: {seconds:.1f} s" for size, seconds in taken.items()), flush=True)
    return min(taken, key=lambda size: taken[size])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=rounds.MODELS, default=["embedded", "15M"])
    parser.add_argument("--share", type=float, default=1.0, help="of the prompts, spread over all of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    items = suite.load("vaes").items[:: max(1, round(1 / chosen.share))]
    for name in chosen.models:
        loaded = rounds.load(name, 64.0, 0.7)
        few = items[:: max(1, len(items) // max(2, len(items) // 10))]
        print(f"{name}: {len(items)} prompts x 36 openings", flush=True)
        apart = difference(loaded, few)
        size = tuned(loaded, few)
        sides = {OURS: partial(ours, loaded, items), HARNESS: partial(harness, loaded, items, size)}
        found = rounds.compared(rounds.in_turn(sides, chosen.rounds), OURS)
        result = {
            "machine": rounds.machine(chosen.threads),
            "prompts": len(items),
            "rounds": chosen.rounds,
            "rows_of_harness": size,
            "largest_difference_nats": apart,
            "sides": found,
        }
        rounds.write("likelihood", name, result)
        print(result, flush=True)


if __name__ == "__main__":
    main()
