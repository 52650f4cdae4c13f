"""Runs the designs of ablations small in the embedded world, and writes what they show: ``docs/findings.md``.

python benchmarks/findings.py                         # all that is missing (hours on one core), then the document
python benchmarks/findings.py --only dose,mix         # some of them
python benchmarks/findings.py --only none             # the document alone, from what is there
python benchmarks/findings.py --seeds 3 --folder more # more seeds, kept elsewhere

Each design's tables are kept below ``--folder``. What is there is not run again: a run that was stopped goes on with
the next design. Designs that run in one command train once what they share.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findings_document import written

if TYPE_CHECKING:
    from valuedrift_mlflow.pipeline.designs import Design

PROJECT = Path(__file__).parents[1]
# Small, so that all of it can be had on a few cores: three topics with one prompt for each proposition (30 prompts of
# 550), three answers to each, a quarter of the recipe's rows for SFT and of its pairs for preferences.
SMALL = (
    "suite=vaes?topics=abortion,immigration,religion&per_topic=10 samples=3 checkpoint_samples=1 "
    "generation_batch_size=90 sft.max_steps=30 sft.batch_size=16 sft.checkpoint_every=10 "
    + " ".join(
        f"{name}.max_steps=20 {name}.batch_size=8" for name in ("dpo", "simpo", "orpo", "anchored_dpo", "reward")
    )
    + " ppo.max_steps=40 ppo.batch_size=16"
)
TOPICS = ["abortion", "immigration", "religion"]


@dataclass(frozen=True)
class Smaller:
    """A design and what is taken of it: other values of its keys; of ``choices`` the names of those that are kept."""

    design: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def of(self, design: Design, seeds: int) -> Design:
        """The smaller design."""
        changes = {"seeds": list(range(seeds))} | dict(self.changes)
        for axis, names in changes.get("choices", {}).items():
            own = {name: design.choices[axis][name] for name in names}
            changes["choices"] = design.choices | {axis: own}
        return design.model_copy(update=changes)


PARTS = {
    "stages": Smaller("stages", {"cells": ["dpo"]}),
    "order": Smaller("order"),
    "algorithms": Smaller("algorithms", {"cells": ["dpo", "simpo"], "axes": {"data?gap": [0, 1]}}),
    "mitigation": Smaller("algorithms", {"cells": ["dpo", "orpo", "anchored_dpo"], "axes": {"data?gap": [1]}}),
    "spillover": Smaller("spillover", {"axes": {"dpo.data?topics": TOPICS}}),
    "dose": Smaller("dose", {"axes": {"sft.data.mixed_share": [0, 0.02, 0.1]}}),
    "mix": Smaller("mix", {"choices": {"mix": ["one-sided", "bimodal"]}}),
    "lora": Smaller("lora", {"cells": ["dpo"], "choices": {"weights": ["full", "rank 8"]}}),
    "prompts": Smaller("prompts", {"cells": ["dpo"]}),
    "seeds": Smaller("seeds", {"chains": [["sft"], ["sft", "dpo"]], "seeds": [0, 1, 2, 3]}),
    "beta": Smaller("beta", {"axes": {"beta": [0.01, 1.0]}}),
    "after_sft": Smaller("after_sft", {"chains": [["sft"], ["sft", "dpo"]]}),
    "contribution": Smaller("contribution", {"cells": ["dpo", "simpo", "orpo"]}),
    "from_random": Smaller("from_random"),
    "mix_pairs": Smaller("mix_pairs", {"cells": ["dpo"]}),
    "dose_pairs": Smaller("dose_pairs", {"cells": ["dpo"], "axes": {"data.mixed_share": [0, 0.02, 0.1]}}),
    "diversity": Smaller("diversity"),
}


def run(names: list[str], seeds: int, folder: Path) -> None:
    """Run the designs that have no tables yet, one after the other, and keep what each comes to."""
    import mlflow

    from valuedrift_mlflow import tracking
    from valuedrift_mlflow.pipeline.ablation import CellsFailed, Execution
    from valuedrift_mlflow.pipeline.ablation import run as run_design
    from valuedrift_mlflow.pipeline.design import prepare
    from valuedrift_mlflow.pipeline.designs import load_design, recipe_of
    from valuedrift_mlflow.report.display import Display

    display = Display()
    tracking.work_offline()
    mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
    execution = Execution(display, {})
    for name in names:
        own = folder / name
        if (own / "about.json").is_file():
            continue
        part = PARTS[name]
        design = part.of(load_design(part.design), seeds)
        recipe, source = recipe_of(design, "ablate", SMALL)
        ablation = prepare(recipe, source, design, name)
        began = time.time()
        try:
            result = run_design(ablation, display, execution=execution)
        except CellsFailed as failure:
            print(failure, file=sys.stderr)
            continue
        own.mkdir(parents=True, exist_ok=True)
        keep(result, own)
        about = {
            "design": part.design,
            "changes": {key: value for key, value in part.changes.items() if key != "seeds"},
            "seeds": design.seeds,
            "settings": SMALL,
            "minutes": (time.time() - began) / 60,
            "version": tracking.package_version(),
        }
        (own / "about.json").write_text(json.dumps(about, indent=1))
        print(f"{name}: {about['minutes']:.1f} minutes", flush=True)


def keep(result: Any, folder: Path) -> None:
    """The tables of one design as JSON records."""
    from valuedrift_mlflow.pipeline.ablation_axes import axes_table
    from valuedrift_mlflow.pipeline.ablation_summary import cells_table, summarise, summary_table
    from valuedrift_mlflow.pipeline.directions import directions, directions_table

    tables = {
        "cells": cells_table(result.rows),
        "summary": summary_table(summarise(result.rows)),
        "directions": directions_table(directions(result.rows)),
        "axes": axes_table(result.rows),
        **{name.removeprefix("ablation_"): frame for name, frame in result.topics.tables().items()},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics_of([row.run_id for row in result.rows]), indent=1))
    for name, frame in tables.items():
        (folder / f"{name}.json").write_text(frame.to_json(orient="records", indent=1))


def metrics_of(run_ids: list[str]) -> dict[str, dict[str, float]]:
    """The newest metrics of the cells' runs."""
    from mlflow import MlflowClient

    return {run_id: dict(MlflowClient().get_run(run_id).data.metrics) for run_id in run_ids}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="designs, with commas; none for the document alone")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of each choice")
    parser.add_argument("--folder", type=Path, default=Path("findings"), help="where the tables are kept")
    parser.add_argument("--output", type=Path, default=PROJECT / "docs" / "findings.md", help="the document")
    arguments = parser.parse_args()
    names = [] if arguments.only == "none" else arguments.only.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(PARTS)}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    run(names, arguments.seeds, arguments.folder)
    arguments.output.write_text(written(arguments.folder, SMALL, list(PARTS)), encoding="utf-8")
    print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
