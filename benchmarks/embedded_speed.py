"""Times the embedded world on one core, for the minutes that a dry run of `ablate` announces.

OMP_NUM_THREADS=1 python benchmarks/embedded_speed.py            # writes valuedrift_mlflow/embedded/speed.json
OMP_NUM_THREADS=1 python benchmarks/embedded_speed.py --only sft # the rows of one algorithm anew

Seconds are those of the processor, so that other work on the machine changes them little.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

SPEED = Path(__file__).parents[1] / "valuedrift_mlflow" / "embedded" / "speed.json"
STEPS = (2, 10)  # of two trainings of each algorithm: their difference is the rows' alone
# What others start from is trained for a step alone: it is not timed there.
SETTINGS = "suite=vaes?per_topic=1 samples=1 sft.max_steps=1 reward.max_steps=1"


def main() -> None:
    import mlflow

    from valuedrift_mlflow import tracking
    from valuedrift_mlflow.pipeline.ablation import Execution
    from valuedrift_mlflow.pipeline.design import Design, Training, prepare
    from valuedrift_mlflow.recipe.read import load_recipe
    from valuedrift_mlflow.report.display import Display

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="algorithms, with commas; the others stay as they are")
    only = [name for name in parser.parse_args().only.split(",") if name]
    tracking.work_offline()
    with tempfile.TemporaryDirectory(prefix="valuedrift-speed-") as scratch:
        os.chdir(scratch)
        mlflow.set_tracking_uri(f"sqlite:///{scratch}/mlflow.db")
        execution = Execution(Display(), {})

        def seconds(training: Training) -> float:
            for needed in (training.start, training.reward):
                if needed is not None:
                    execution.trained(needed)
            began = time.process_time()
            execution.trained(training)
            return time.process_time() - began

        rows: dict[str, float] = {}
        fixed: list[float] = []
        recipe = load_recipe("ablate", SETTINGS)
        # Once before anything is timed: the first training of a process loads its libraries.
        warm = prepare(recipe, "ablate", Design(cells=["sft"], seeds=[1]), "warm").cells[0].training
        execution.trained(warm)
        for name in only or [stage.name for stage in recipe.stages]:
            design = Design(
                cells=["ppo" if name == "reward" else name], axes={f"{name}.max_steps": list(STEPS)}, seeds=[0]
            )
            ends = [cell.training for cell in prepare(recipe, "ablate", design, name).cells]
            ends = [one.reward for one in ends if one.reward] if name == "reward" else ends
            few, many = (seconds(training) for training in ends)
            own = ends[0].stage
            rows[name] = (many - few) / ((STEPS[1] - STEPS[0]) * own.batch_size)
            fixed.append(max(0.0, few - rows[name] * STEPS[0] * own.batch_size))
        if only:
            known = json.loads(SPEED.read_text())
            known["row"] |= {name: round(value, 4) for name, value in rows.items()}
            SPEED.write_text(json.dumps(known, indent=1) + "\n")
            print(rows)
            return
        plans = [
            prepare(load_recipe("ablate", f"suite=vaes samples={samples}"), "ablate", Design(seeds=[0]), "").cells[0]
            for samples in (1, 2)
        ]
        times = []
        for cell in plans:
            began = time.process_time()
            execution.base(cell.training.origin)
            times.append(time.process_time() - began)
        response = (times[1] - times[0]) / 550
    found = {
        "seconds": {"training": round(sorted(fixed)[len(fixed) // 2], 2), "response": round(response, 4)},
        "row": {name: round(value, 4) for name, value in rows.items()},
    }
    SPEED.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
