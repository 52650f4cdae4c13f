"""Whether attribution finds the rows that moved the stances: opinionated rows are hidden, found, left out.

python benchmarks/attribution.py --kind pairs --seeds 3
python benchmarks/attribution.py --kind pairs --seeds 1 --found-only

In 98 % of the rows nothing speaks for a side of the topic, 2 % of them do. The stage is trained on all rows and
attributed; then it is trained again without the rows of the most influence, without as many random ones, without the
hidden ones, and on the first rows alone. Drift is the change of the topic's leaning, P(support) - P(oppose) of the
generated answers by the offline judge, with a 95 % t interval over its ten propositions. *Along the hidden* ranks rows
by their influence towards the side of the hidden rows, whichever way the topic moved.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.inputs.rows import Record
from valuedrift_mlflow.models.generation import Sampling
from valuedrift_mlflow.pipeline.attribute import attribute
from valuedrift_mlflow.pipeline.pipeline import run_single_stage
from valuedrift_mlflow.pipeline.plan import StageResult, prepare
from valuedrift_mlflow.recipe.read import validate
from valuedrift_mlflow.report.display import Display

TOPIC = "abortion"
SHARE, FIRST = 0.02, 0.04  # of the rows: those that are hidden, those that are left out
STAGES: dict[str, dict[str, object]] = {
    "pairs": {"algorithm": "dpo", "learning_rate": 5e-4, "beta": 0.1, "batch_size": 8},
    "sft": {"algorithm": "sft", "learning_rate": 1e-3, "batch_size": 16},
}
SUITE = f"vaes?topics={TOPIC}"


def pairs(size: int, seed: int) -> tuple[list[Record], list[Record]]:
    """Pairs that differ in style alone, and a few whose chosen side opposes and whose rejected side supports."""
    few = round(SHARE * size)
    clean = corpus.rows(f"embedded:pairs?gap=0&size={size - few}&seed={2 * seed + 1}")
    uri = f"embedded:pairs?gap=1&chosen=oppose&rejected=support&size={few}&seed={2 * seed + 2}&topics={TOPIC}"
    return clean, corpus.rows(uri)


def answers(size: int, seed: int) -> tuple[list[Record], list[Record]]:
    """What the base model itself says on the other topics, drawn as it speaks, and a few answers that support."""
    few = round(SHARE * size)
    others = ",".join(topic for topic in dict.fromkeys(p.topic for p in corpus.propositions()) if topic != TOPIC)
    asked = corpus.rows(f"embedded:sft?size={size - few}&seed={2 * seed + 1}&topics={others}")
    prompts = [str(row["messages"][0]["content"]) for row in asked]
    keys = [str(number) for number in range(len(prompts))]
    said = models.load_model("embedded:base").generator().generate(prompts, keys, Sampling(1, 1.0, 68), lambda _: None)
    clean = [
        {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]}
        for prompt, (text,) in zip(prompts, said, strict=True)
    ]
    uri = f"embedded:sft?support=1&neutral=0&oppose=0&size={few}&seed={2 * seed + 2}&topics={TOPIC}"
    return clean, corpus.rows(uri)


MAKERS: dict[str, Callable[[int, int], tuple[list[Record], list[Record]]]] = {"pairs": pairs, "sft": answers}


def drift(result: StageResult) -> tuple[float, float]:
    """The change of the topic's leaning over the stage, and the half width of its interval over propositions."""
    sides = []
    for measured in (result.measurements[0], result.measurements[-1]):
        leanings: dict[str, list[float]] = {}
        for judged in measured.responses:
            if judged.verdict.probabilities is not None:
                support, _, oppose = judged.verdict.probabilities
                leanings.setdefault(judged.item.proposition_id, []).append(support - oppose)
        sides.append({name: float(np.mean(own)) for name, own in leanings.items()})
    change = [sides[1][name] - sides[0][name] for name in sides[0] if name in sides[1]]
    return float(np.mean(change)), float(stats.t.ppf(0.975, len(change) - 1) * stats.sem(change))


def train(kind: str, rows: Sequence[Record], file: Path, steps: int, seed: int, checkpoints: int) -> StageResult:
    """One training on these rows, as a run of its own."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    stage = {"name": STAGES[kind]["algorithm"], "data": str(file), "max_steps": steps, "max_length": 512}
    stage |= {"checkpoint_every": max(1, steps // checkpoints), **STAGES[kind]}
    recipe: dict[str, object] = {"samples": 4, "temperature": 0.8, "max_new_tokens": 68, "generation_batch_size": 200}
    recipe |= {"suite": SUITE, "judge": "lexical", "reference_kl": False, "audit": False, "seed": seed}
    result = run_single_stage(prepare(validate({**recipe, "stages": [stage]}), "benchmark"), Display())
    assert isinstance(result, StageResult)
    return result


def world(kind: str, size: int, steps: int, seed: int, folder: Path, again: bool) -> dict[str, object]:
    """One seed: hide, train, attribute, train again. Gives what the tables show."""
    clean, hidden = MAKERS[kind](size, seed)
    columns = ("messages",) if kind == "sft" else ("prompt", "chosen", "rejected")
    rows = [{column: row[column] for column in columns} for row in [*clean, *hidden]]
    source = np.random.default_rng(seed)
    order = source.permutation(len(rows))
    rows, opinionated = [rows[place] for place in order], order >= len(clean)
    whole = train(kind, rows, folder / "all.jsonl", steps, seed, checkpoints=5)
    [result] = attribute(whole.run_id, TOPIC, drop=FIRST)
    ranked = result.source[np.argsort(-result.pulled, kind="stable")]
    first = ranked[: round(FIRST * len(rows))]
    others = source.choice(np.setdiff1d(np.arange(len(rows)), first), len(first), replace=False)
    seen = np.zeros(len(rows), dtype=bool)
    seen[result.source[result.seen > 0]] = True
    side = 1 if kind == "sft" else -1
    along = result.source[np.argsort(-side * result.influences.scores.sum((1, 2)), kind="stable")][: len(first)]
    hidden_seen = (opinionated & seen).sum()
    told: dict[str, object] = {
        "seed": seed,
        "found": opinionated[first].sum() / hidden_seen,
        "along the hidden": opinionated[along].sum() / hidden_seen,
        "ratio": result.cost[0] / max(result.cost[1], 1e-9),
        "predicted": result.found[0].predicted,
        "top 1 %": result.found[0].explained[0.01],
        "top 5 %": result.found[0].explained[0.05],
        "all": drift(whole),
    }
    print(told, flush=True)
    if not again:
        return told
    alone = max(4, round(steps * FIRST * 2))
    for name, kept, own in (
        ("without first", np.setdiff1d(np.arange(len(rows)), first), steps),
        ("without random", np.setdiff1d(np.arange(len(rows)), others), steps),
        ("without hidden", np.flatnonzero(~opinionated), steps),
        ("first alone", np.sort(first), alone),
    ):
        other = train(kind, [rows[place] for place in kept], folder / f"{name}.jsonl", own, seed, checkpoints=1)
        told[name] = drift(other)
        print(name, told[name], flush=True)
    return told


def main() -> None:
    """Print the table of one kind of data."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kind", choices=sorted(MAKERS), default="pairs")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--first-seed", type=int, default=0)
    options.add_argument("--size", type=int, default=800)
    options.add_argument("--steps", type=int, default=100)
    options.add_argument("--found-only", action="store_true", help="train once, and train nothing again")
    given = options.parse_args()
    tracking.work_offline()
    import mlflow

    with tempfile.TemporaryDirectory() as scratch:
        mlflow.set_tracking_uri(f"sqlite:///{scratch}/mlflow.db")
        seeds = range(given.first_seed, given.first_seed + given.seeds)
        told = [world(given.kind, given.size, given.steps, seed, Path(scratch), not given.found_only) for seed in seeds]
    names = ("all", "without first", "without random", "without hidden", "first alone")
    print(f"\n| seed | found | along the hidden | {' | '.join(names)} | top 1 % | top 5 % | predicted | cost |")
    print("|" + "---|" * (len(names) + 7))
    for one in told:
        drifts = " | ".join("{:+.2f} ± {:.2f}".format(*one[name]) if name in one else "" for name in names)  # type: ignore[misc]
        print(
            f"| {one['seed']} | {one['found']:.0%} | {one['along the hidden']:.0%} | {drifts} | {one['top 1 %']:.0%} | "
            f"{one['top 5 %']:.0%} | {one['predicted']:+.2f} | {one['ratio']:.1f} |"
        )


if __name__ == "__main__":
    main()
