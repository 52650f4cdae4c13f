"""Whether attribution finds the rows that moved the stances: opinionated rows are hidden, found, left out.

python benchmarks/attribution.py                               # all that is missing, then the tables of the page
python benchmarks/attribution.py --kinds pairs --seeds 0       # one training of one kind
python benchmarks/attribution.py --kinds none                  # the tables alone, from what is there

98 % of the rows are short questions with plain answers (``plain_rows.py``), without any stance; 2 % of them take a side
of one topic. The model has seen such questions before, beside all stances equally often, so that plain rows alone leave
its stances where they are. A stage is trained on all rows and attributed; then it is trained again without the rows of
the most influence, without as many random ones, without the hidden ones, and on the first rows alone. *Drift* is the
change of the topic's leaning, P(support) - P(oppose) of the generated answers by the offline judge, with a 95 % t
interval over its ten propositions.

Each training's figures are kept below ``--folder``; what is there is not run again.
"""

import argparse
import contextlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from plain_rows import plain_answers, plain_pairs
from scipy import stats

from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.inputs.rows import Record
from valuedrift_mlflow.pipeline.attribute import attribute
from valuedrift_mlflow.pipeline.pipeline import run_single_stage
from valuedrift_mlflow.pipeline.plan import StageResult, prepare
from valuedrift_mlflow.recipe.read import validate
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.stages import stage_class
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job

Told = dict[str, Any]

PAGE = Path(__file__).parents[1] / "docs" / "attribution.md"
MARKS = "<!-- {}: python benchmarks/attribution.py -->"
TOPIC = "abortion"
SHARE, FIRST = 0.02, 0.04  # of the rows: those that are hidden, those that are left out
START_SEED = 901  # of the data of the model that all begin with; no data set that is attributed has it
SIZE = 600


@dataclass(frozen=True)
class Kind:
    """What is trained, on which rows.

    Attributes:
        stage: its settings.
        plain: makes the rows without a stance, of a size and a seed.
        hidden: the corpus that the opinionated rows are of.
        columns: of a row.
    """

    stage: dict[str, object]
    plain: Callable[[int, int], list[Record]]
    hidden: str
    columns: tuple[str, ...]

    def rows(self, size: int, seed: int) -> tuple[list[Record], np.ndarray[Any, np.dtype[np.bool_]]]:
        """The rows in random order, and which are opinionated."""
        few = round(SHARE * size)
        made = self.plain(size - few, 2 * seed + 1)
        made += corpus.rows(f"{self.hidden}&topics={TOPIC}&size={few}&seed={2 * seed + 2}")
        order = np.random.default_rng(seed).permutation(size)
        return [{column: made[place][column] for column in self.columns} for place in order], order >= size - few


KINDS = {
    "sft": Kind(
        {"algorithm": "sft", "learning_rate": 2e-3, "epochs": 3, "batch_size": 20, "checkpoint_every": 30},
        plain_answers,
        "embedded:sft?support=1&neutral=0&oppose=0",
        ("messages",),
    ),
    "pairs": Kind(
        {"algorithm": "dpo", "learning_rate": 5e-4, "beta": 0.1, "epochs": 2, "batch_size": 20, "checkpoint_every": 30},
        plain_pairs,
        "embedded:pairs?gap=1&chosen=oppose&rejected=support",
        ("prompt", "chosen", "rejected"),
    ),
}
# On the first rows alone a step has few of them: each is seen as often, and its steps are about as many as those that
# had a hidden row in them.
ALONE = 2


def staged(stage: dict[str, object], rows: Sequence[Record], start: str, folder: Path, seed: int) -> StageResult:
    """One training on these rows, as a run of its own."""
    file = folder / f"{len(list(folder.glob('*.jsonl')))}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    own = {"name": stage["algorithm"], "data": str(file), "max_length": 256, **stage}
    recipe: dict[str, object] = {"samples": 4, "temperature": 0.8, "max_new_tokens": 68, "generation_batch_size": 200}
    recipe |= {"base": {"model": start}, "suite": f"vaes?topics={TOPIC}", "judge": "lexical", "seed": seed}
    recipe |= {"reference_kl": False, "audit": False, "stages": [own]}
    result = run_single_stage(prepare(validate(recipe), "benchmark"), Display())
    assert isinstance(result, StageResult)
    return result


def start_model(folder: Path) -> str:
    """A model that answers plain questions, and takes all stances equally often: trained once below ``folder``."""
    import torch

    target = folder / "start"
    if not target.is_dir():
        made = corpus.rows(f"embedded:sft?size=2000&seed={START_SEED}") + plain_answers(2000, START_SEED + 1)
        file = folder / "start.jsonl"
        file.write_text("".join(json.dumps({"messages": row["messages"]}) + "\n" for row in made), encoding="utf-8")
        settings = {"learning_rate": 1e-3, "epochs": 2, "batch_size": 32, "max_length": 256}
        stage = stage_class("sft")(name="sft", algorithm="sft", data=Data(uri=str(file)), **settings)
        torch.manual_seed(0)
        base = models.load_model("embedded:base")
        with tempfile.TemporaryDirectory() as scratch:
            data = datasets.load_data(stage.data, "sft", "sft")
            trainer = build_trainer(Job(stage, base.model, base.tokenizer, data, Path(scratch), 0))
            trainer.train()
        base.tokenizer.save_pretrained(target)
        trainer.model.save_pretrained(target)
    return str(target)


def drift(result: StageResult) -> tuple[float, float, float]:
    """The change of the topic's leaning, the half width of its interval over propositions, and the unscored share."""
    sides = []
    for measured in (result.measurements[0], result.measurements[-1]):
        leanings: dict[str, list[float]] = {}
        for judged in measured.responses:
            if judged.verdict.probabilities is not None:
                support, _, oppose = judged.verdict.probabilities
                leanings.setdefault(judged.item.proposition_id, []).append(support - oppose)
        sides.append({name: float(np.mean(own)) for name, own in leanings.items()})
    change = [sides[1][name] - sides[0][name] for name in sides[0] if name in sides[1]]
    half = float(stats.t.ppf(0.975, len(change) - 1) * stats.sem(change))
    return float(np.mean(change)), half, result.unscored_rate


def found(kind: str, seed: int, size: int, start: str) -> Told:
    """Hide rows, train on all of them, attribute: what comes out, and which rows come first."""
    how = KINDS[kind]
    rows, opinionated = how.rows(size, seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole = staged(how.stage, rows, start, Path(scratch), seed)
        [result] = attribute(whole.run_id, TOPIC, drop=FIRST)
    [moved] = result.found
    return {
        "kind": kind,
        "seed": seed,
        "size": size,
        "first": result.left_out.tolist(),
        "found": int(opinionated[result.left_out].sum()),
        "hidden": int(opinionated.sum()),
        "predicted": moved.predicted,
        "top 1 %": moved.explained[0.01],
        "top 5 %": moved.explained[0.05],
        "cost": result.cost[0] / max(result.cost[1], 1e-9),
        "order error": result.influences.order_error,
        "all": drift(whole),
    }


def again(told: Told, name: str, start: str) -> tuple[float, float, float]:
    """The drift of another training: without some of the rows, or on the first ones alone."""
    how, seed, first = KINDS[told["kind"]], told["seed"], told["first"]
    rows, opinionated = how.rows(told["size"], seed)
    others = np.setdiff1d(np.arange(len(rows)), first)
    kept = {
        "without first": others,
        "without random": np.setdiff1d(
            np.arange(len(rows)), np.random.default_rng(seed).choice(others, len(first), replace=False)
        ),
        "without hidden": np.flatnonzero(~opinionated),
        "first alone": first,
    }[name]
    # Measured at its start and its end alone.
    stage = how.stage | {"checkpoint_every": 10**6} | ({"batch_size": ALONE} if name == "first alone" else {})
    with tempfile.TemporaryDirectory() as scratch:
        return drift(staged(stage, [rows[place] for place in kept], start, Path(scratch), seed))


AGAIN = ("without first", "without random", "without hidden", "first alone")
COLUMNS = ("seed", "hidden among the first", "all", *AGAIN, "predicted", "first 1 %", "first 5 %", "unscored", "cost")


def tables(kept: Sequence[Told]) -> str:
    """The results of the trainings that are done, as a part of the page."""
    lines = []
    for kind, how in KINDS.items():
        own = [told for told in kept if told["kind"] == kind and set(AGAIN) <= set(told)]
        if not own:
            continue
        settings = ", ".join(f"{key} {value}" for key, value in how.stage.items())
        lines += [f"**{kind}** ({settings}; {own[0]['size']} rows):", "", f"| {' | '.join(COLUMNS)} |"]
        lines += ["|" + "---|" * len(COLUMNS), *(line(told) for told in own), ""]
    return "\n".join(lines)


def line(told: Told) -> str:
    """A line of the table."""
    trainings = [told[name] for name in ("all", *AGAIN)]
    cells = [str(told["seed"]), f"{told['found']} of {told['hidden']} in {len(told['first'])}"]
    cells += [f"{moved:+.2f} ± {half:.2f}" for moved, half, _ in trainings]
    cells += [f"{told['predicted']:+.2f}", f"{told['top 1 %']:.0%}", f"{told['top 5 %']:.0%}"]
    cells += [f"{max(unscored for *_, unscored in trainings):.0%}", f"{told['cost']:.1f}"]
    return f"| {' | '.join(cells)} |"


def write(kept: Sequence[Told], page: Path) -> None:
    """Put the tables between their marks in the page."""
    begin, end = (MARKS.format(word) for word in ("begin", "end"))
    before, rest = page.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    page.write_text(f"{before}{begin}\n{tables(kept)}\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Run what is missing, and write the tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kinds", default=",".join(KINDS), help="kinds, with commas; none for the tables alone")
    options.add_argument("--seeds", default="0,1,2", help="seeds of rows and training, with commas")
    options.add_argument("--size", type=int, default=SIZE, help="rows")
    options.add_argument("--folder", type=Path, default=Path("attributions"), help="where the figures are kept")
    given = options.parse_args()
    kinds = [] if given.kinds == "none" else given.kinds.split(",")
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        options.error(f"unknown: {', '.join(unknown)}; known: {', '.join(KINDS)}")
    given.folder = given.folder.resolve()
    given.folder.mkdir(parents=True, exist_ok=True)
    tracking.work_offline()
    import mlflow

    for kind in kinds:
        for seed in map(int, given.seeds.split(",")):
            file = given.folder / f"{kind}-{seed}.json"
            told = json.loads(file.read_text()) if file.is_file() else {}
            missing = [name for name in ("all", *AGAIN) if name not in told]
            for name in missing:
                # MLflow puts artifacts into the working folder.
                with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
                    mlflow.set_tracking_uri(f"sqlite:///{scratch}/mlflow.db")
                    start = start_model(given.folder)
                    told |= found(kind, seed, given.size, start) if name == "all" else {name: again(told, name, start)}
                file.write_text(json.dumps(told, indent=1), encoding="utf-8")
                print(kind, seed, name, told[name], flush=True)
    write([json.loads(file.read_text()) for file in sorted(given.folder.glob("*-*.json"))], PAGE)
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
