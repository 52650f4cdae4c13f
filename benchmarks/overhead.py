"""What measuring a training costs beside sampling: time and memory against the same trainer alone.

python benchmarks/overhead.py                 # a random Llama of 135M parameters, 10 checkpoints: hours on two cores
python benchmarks/overhead.py --share 0.1     # a tenth of its layers and vocabulary, of the prompts, and 2 checkpoints

Each side is a process of its own, in turn, several times: bare training (no MLflow, no measurement, no checkpoint),
the stage as the pipeline trains it, and the same with every piece of work waited for in place of being done beside the
training. Steps between checkpoints (20) and tokens of a step (8 x 256) stay the same whatever the share.

python benchmarks/overhead.py --steps 2 --checkpoints 2 --prompts 110 --tokens 16 --rounds 1 --sides beside

The whole model in minutes: what each checkpoint costs beside the training is then told in seconds, to be held against
the steps that usually lie between two of them.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from processes import cpu_seconds, peak_megabytes

ROUNDS, STEPS, TOKENS, LENGTH, BATCH = 3, 20, 48, 256, 8
LAYERS, VOCABULARY, PROMPTS, CHECKPOINTS = 30, 49_152, 550, 10
SIDES = ("bare", "beside", "waited for")


def random_llama(share: float) -> tuple[Any, Any]:
    """A Llama of SmolLM2-135M's shape with random weights, and the embedded tokenizer with words for all other ids."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from valuedrift_mlflow.embedded import shipped

    tokenizer = shipped.tokenizer()
    vocabulary = max(len(tokenizer), round(VOCABULARY * share))
    tokenizer.add_tokens([f" word{number}" for number in range(vocabulary - len(tokenizer))])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=max(1, round(LAYERS * share)),
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config), tokenizer


class Size(NamedTuple):
    """Of a training: checkpoints, steps between them, prompts asked at each, tokens of an answer."""

    checkpoints: int
    steps: int
    prompts: int
    tokens: int


def recipe(folder: Path, size: Size) -> dict[str, Any]:
    return {
        "base": {"model": str(folder)},
        "suite": f"vaes?per_topic={max(1, round(size.prompts / 11))}",
        "judge": "lexical",
        "max_new_tokens": size.tokens,
        "stages": [
            {
                "name": "sft",
                "algorithm": "sft",
                "data": "embedded:sft?size=4000",
                "trainer": {"packing": True},
                "max_length": LENGTH,
                "batch_size": BATCH,
                "learning_rate": 1e-4,
                "max_steps": size.checkpoints * size.steps,
                "checkpoint_every": size.steps,
            }
        ],
    }


def train(side: str, folder: Path, size: Size) -> dict[str, float]:
    """In a process of its own: one training, with what it took from its first step (or measurement) to its end."""
    from transformers import Trainer

    from valuedrift_mlflow import tracking
    from valuedrift_mlflow.evaluation.beside import Beside
    from valuedrift_mlflow.models.generation import TransformersGenerator
    from valuedrift_mlflow.pipeline.pipeline import run_single_stage
    from valuedrift_mlflow.pipeline.plan import StageRun, prepare
    from valuedrift_mlflow.pipeline.train import load_start
    from valuedrift_mlflow.recipe.read import validate
    from valuedrift_mlflow.report.display import Display, quiet_libraries
    from valuedrift_mlflow.stages.job import build_trainer
    from valuedrift_mlflow.stages.stage import Job

    tracking.work_offline()
    quiet_libraries()
    begun: list[tuple[float, float]] = []
    sampling: list[float] = []
    learn, generate = Trainer.train, TransformersGenerator.generate

    def training(self: Any, *arguments: Any, **named: Any) -> Any:
        begun.append((time.perf_counter(), cpu_seconds()))
        return learn(self, *arguments, **named)

    def sampled(self: Any, *arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return generate(self, *arguments, **named)
        finally:
            sampling.append(time.perf_counter() - start)

    Trainer.train, TransformersGenerator.generate = training, sampled  # type: ignore[method-assign]
    plan = prepare(validate(recipe(folder, size)), "overhead")
    if side == "bare":
        work = StageRun(plan, plan.recipe.stages[0], str(folder))
        loaded = load_start(work)
        job = Job(work.stage, loaded.model, loaded.tokenizer, work.data, Path("bare"), work.seed)
        build_trainer(job).train()
    else:
        if side == "waited for":
            Beside.do = lambda self, work: work()  # type: ignore[method-assign]
        run_single_stage(plan, Display())
    wall, used = time.perf_counter() - begun[0][0], cpu_seconds() - begun[0][1]
    return {
        "wall": wall,
        "cpu": used,
        "sampling": sum(sampling),
        "megabytes": peak_megabytes(),
    }


def run(side: str, model: Path, size: Size) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="valuedrift-benchmark-") as scratch:
        variables = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/mlflow.db",
            "XDG_CACHE_HOME": scratch,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH")))),
        }
        script = (
            "import json, pathlib, overhead\n"
            f"taken = overhead.train({side!r}, pathlib.Path({str(model)!r}), overhead.{size!r})\n"
            "pathlib.Path('taken.json').write_text(json.dumps(taken))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=scratch, env=os.environ | variables, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
        return dict(json.loads(Path(scratch, "taken.json").read_text(encoding="utf-8")))


def told(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description="What measuring costs beside sampling.")
    parser.add_argument("--share", type=float, default=1.0, help="share of layers, vocabulary, prompts, checkpoints")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each side runs, in turn")
    parser.add_argument("--checkpoints", type=int, help=f"in place of the share of {CHECKPOINTS}")
    parser.add_argument("--prompts", type=int, help=f"in place of the share of {PROMPTS}")
    parser.add_argument("--steps", type=int, default=STEPS, help="between checkpoints")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of an answer")
    parser.add_argument("--sides", nargs="+", choices=SIDES[1:], default=SIDES[1:], help="held against bare training")
    arguments = parser.parse_args()
    share = arguments.share
    size = Size(
        arguments.checkpoints or max(2, round(CHECKPOINTS * share)),
        arguments.steps,
        arguments.prompts or round(PROMPTS * share),
        arguments.tokens,
    )
    sides = ("bare", *arguments.sides)
    taken: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory(prefix="valuedrift-benchmark-") as scratch:
        model, tokenizer = random_llama(share)
        parameters = model.num_parameters()
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        del model
        for number in range(arguments.rounds):
            for side in sides:
                taken[side].append(run(side, Path(scratch), size))
                print(f"round {number + 1}: {side}: {taken[side][-1]}", flush=True)
    over: dict[str, dict[str, dict[str, float]]] = {}
    for side in arguments.sides:
        pairs = list(zip(taken[side], taken["bare"], strict=True))
        over[side] = {
            "time, all but sampling": told([(own["wall"] - own["sampling"]) / bare["wall"] - 1 for own, bare in pairs]),
            "memory": told([own["megabytes"] / bare["megabytes"] - 1 for own, bare in pairs]),
        }
        each = told([(own["wall"] - own["sampling"] - bare["wall"]) / size.checkpoints for own, bare in pairs])
        step = told([bare["wall"] / (size.checkpoints * size.steps) for _, bare in pairs])
        print(f"{side}: {each['median']:.1f} s a checkpoint, beside steps of {step['median']:.1f} s")
        for name, values in over[side].items():
            print(
                f"{side}, {name}: {values['median']:+.1%} of bare training "
                f"({values['least']:+.1%} to {values['most']:+.1%})"
            )
    report = {
        "command": " ".join(["python", "benchmarks/overhead.py", *sys.argv[1:]]),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "parameters": parameters,
        "size": size._asdict(),
        "over bare training": over,
        "taken": taken,
    }
    file = Path(__file__).parent / "results" / "overhead.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
