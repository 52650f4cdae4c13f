"""What evaluating many checkpoints or adapters of one training takes beside sampling, and a second time from the store.

python benchmarks/checkpoints.py                 # 20 checkpoints and 20 adapters of a random Llama of 135M parameters
python benchmarks/checkpoints.py --share 0.1     # a tenth of its layers and vocabulary, of the prompts, and 4 of each
python benchmarks/checkpoints.py --models 3 --prompts 44 --rounds 1 --sides evaluate_each    # it in minutes

``evaluate_each`` is held against sampling alone (the seconds inside the generator, of the same responses in the same
run) and, in turn, against ``evaluate`` called for each model, which loads every one from its beginning.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from overhead import random_llama

ROUNDS, TOKENS = 3, 48
FULL = {"models": 20, "prompts": 550}
SIDES = ("evaluate_each", "evaluate", "again")


@contextmanager
def timed(owner: Any, name: str) -> Iterator[list[float]]:
    """The seconds of every call of a method while the context is open."""
    original, seconds = getattr(owner, name), list[float]()

    def timing(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return original(*arguments, **named)
        finally:
            seconds.append(time.perf_counter() - start)

    setattr(owner, name, timing)
    try:
        yield seconds
    finally:
        setattr(owner, name, original)


def make(folder: Path, count: int, share: float) -> dict[str, list[str]]:
    """Whole checkpoints, and adapters on the first of them."""
    import torch
    from peft import LoraConfig, get_peft_model

    model, tokenizer = random_llama(share)
    uris: dict[str, list[str]] = {"checkpoints": [], "adapters": []}
    for number in range(count):
        torch.manual_seed(number)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.001 * torch.randn_like(weight))
        place = folder / f"step-{number:06d}"
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        uris["checkpoints"].append(str(place))
    model.name_or_path = model.config.name_or_path = uris["checkpoints"][0]
    policy = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False))
    for number in range(count):
        torch.manual_seed(number)
        with torch.no_grad():
            for name, weight in policy.named_parameters():
                if "lora_" in name:
                    weight.copy_(0.001 * torch.randn_like(weight))
        place = folder / f"adapter-{number:06d}"
        policy.save_pretrained(str(place))
        uris["adapters"].append(str(place))
    return uris


def ratios(evaluate: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Of every further model: the seconds of its whole evaluation, and those over the seconds of its sampling."""
    from valuedrift_mlflow.evaluation import each
    from valuedrift_mlflow.evaluation import evaluate as room
    from valuedrift_mlflow.models.generation import TransformersGenerator

    with (
        timed(each, "run_evaluation") as whole,
        timed(room, "run_evaluation") as alone,
        timed(TransformersGenerator, "generate") as sampling,
    ):
        evaluate()
    seconds = (whole or alone)[1:]  # the first one loads what the others share
    sampled = sampling[1:]
    return seconds, [one / other for one, other in zip(seconds, sampled, strict=True)] if sampled else []


def told(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def measure(uris: Sequence[str], prompts: str, rounds: int, sides: Sequence[str]) -> dict[str, Any]:
    import valuedrift_mlflow
    from valuedrift_mlflow.models import response_store

    settings: dict[str, Any] = {
        "suite": prompts,
        "judge": "lexical",
        "samples": 5,
        "max_new_tokens": TOKENS,
        "reuse_responses": False,
    }

    def each() -> None:
        valuedrift_mlflow.evaluate_each(uris, **settings)

    def one_by_one() -> None:
        for uri in uris:
            valuedrift_mlflow.evaluate(uri, **settings)

    works = {"evaluate_each": each, "evaluate": one_by_one}
    found: dict[str, list[float]] = {side: [] for side in works if side in sides}
    taken: dict[str, list[float]] = {side: [] for side in found}
    for number in range(rounds):
        for side in found:
            print(f"round {number + 1}: {side} ...", flush=True)
            seconds, own = ratios(works[side])
            found[side] += own
            taken[side] += seconds
    result: dict[str, Any] = {
        "over sampling": {side: told(values) for side, values in found.items()},
        "seconds": {side: told(values) for side, values in taken.items()},
    }
    if "again" in sides:
        settings["reuse_responses"] = True
        each()  # fills the store
        again, sampled = ratios(each)
        assert not sampled, "nothing is sampled a second time"
        result["seconds"]["again"] = told(again)
        result["store, megabytes"] = response_store.store_file().stat().st_size / 1e6
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluating many checkpoints of one training.")
    parser.add_argument("--share", type=float, default=1.0, help="share of layers, vocabulary, prompts and models")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each side runs, in turn")
    parser.add_argument("--models", type=int, help=f"in place of the share of {FULL['models']}")
    parser.add_argument("--prompts", type=int, help=f"in place of the share of {FULL['prompts']}")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, help="what is measured")
    arguments = parser.parse_args()
    share = arguments.share
    count = arguments.models or max(4, round(FULL["models"] * share))
    each_topic = max(1, round((arguments.prompts or FULL["prompts"] * share) / 11))
    with tempfile.TemporaryDirectory(prefix="valuedrift-benchmark-") as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlflow.db"
        os.chdir(scratch)
        from valuedrift_mlflow import tracking
        from valuedrift_mlflow.report.display import quiet_libraries

        tracking.work_offline()
        quiet_libraries()
        made = make(Path(scratch), count, share)
        prompts = f"vaes?per_topic={each_topic}"
        results = {kind: measure(uris, prompts, arguments.rounds, arguments.sides) for kind, uris in made.items()}
    for kind, result in results.items():
        for name, ratio in result["over sampling"].items():
            print(
                f"{kind}, {name}: {ratio['median']:.2f} x sampling alone "
                f"({ratio['least']:.2f} to {ratio['most']:.2f}), {result['seconds'][name]['median']:.1f} s each"
            )
        if "again" in result["seconds"]:
            print(f"{kind}, again from the store: {result['seconds']['again']['median']:.1f} s each")
    report = {
        "command": " ".join(["python", "benchmarks/checkpoints.py", *sys.argv[1:]]),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "models": count,
        "results": results,
    }
    file = Path(__file__).parent / "results" / "checkpoints.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
