"""What a second process brings, where the threads are split fairly: efficiency of measurements and audits.

python benchmarks/ranks.py                          # ten minutes of CPU
python benchmarks/ranks.py --prompts 60 --rows 12000 --rounds 1

One process with all threads against as many processes as there are threads, each with one, both sides in turn.
Efficiency is what the first takes over what the second takes: 1 where nothing is lost. On a machine that is busy the
seconds of the processor tell more: those of the second side must not be more than those of the first.

A measurement is asked of the embedded base model by the processes of a torchrun, as in a training. An audit starts its
processes itself; its pairs are those of HH-RLHF (``--data``).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from audit import REAL
from audit import write as write_pairs
from processes import alone, pinned, say, taken

from valuedrift_mlflow.report.display import Display

GOAL = 0.8


def rank(prompts: int, samples: int, told: Path) -> None:
    """One process of a torchrun: measure the base model together, and note what it took from start to end."""
    import torch.distributed as dist

    from valuedrift_mlflow import judges, models, suite
    from valuedrift_mlflow.evaluation.measurement import measure_together
    from valuedrift_mlflow.models.generation import Sampling

    dist.init_process_group("gloo")
    loaded, judge = models.load_model("embedded:base"), judges.load("lexical")
    asked = suite.load(f"vaes?per_topic={max(1, prompts // len(suite.load('vaes').topics))}")

    def measure(samples: int) -> None:
        measure_together(loaded.generator(), asked, judge, Sampling(samples, 0.8, 68, 550, 0))

    measure(1)
    dist.barrier()
    start, cpu = time.perf_counter(), time.process_time()
    measure(samples)
    dist.barrier()
    seconds = [0.0] * dist.get_world_size()
    dist.all_gather_object(seconds, time.process_time() - cpu)
    if not dist.get_rank():
        told.write_text(json.dumps({"wall": time.perf_counter() - start, "cpu": sum(seconds)}), encoding="utf-8")
    dist.destroy_process_group()


def measured(processes: int, threads: int, prompts: int, samples: int) -> dict[str, float]:
    """A measurement by so many processes with so many threads each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", __file__]
    with tempfile.TemporaryDirectory(prefix="valuedrift-benchmark-") as scratch:
        told = Path(scratch, "told.json")
        asked = ["--prompts", str(prompts), "--samples", str(samples), "--rank", str(told)]
        variables = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run([*command, *asked], env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        found: dict[str, float] = json.loads(told.read_text(encoding="utf-8"))
    return found


def audited(pairs: Path) -> None:
    """In a process of its own: audit pairs, print what it took."""
    from valuedrift_mlflow.value_gap import audit

    prepared = audit.prepare(str(pairs), "lexical")
    prepared.matcher.match(list(audit.first_rows(prepared, 50)))  # what is loaded once is loaded
    told: dict[str, Any] = {}
    with taken(told):
        audit.examine(prepared.data, prepared.data.kind, prepared.judge, prepared.matcher)
    say(told)


def main() -> None:
    """Print the efficiency of both, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=550)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--rows", type=int, default=160_000)
    parser.add_argument("--data", type=Path, default=REAL, help="HH-RLHF pairs, jsonl.gz")
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--audit", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        rank(arguments.prompts, arguments.samples, arguments.rank)
        return
    if arguments.audit:
        audited(arguments.audit)
        return
    from rounds import machine, write

    cores = arguments.cores
    pinned(cores)
    told, sides = machine(cores), (1, cores)
    found: dict[str, dict[int, list[dict[str, float]]]] = {
        name: {side: [] for side in sides} for name in ("measurement", "audit")
    }
    with tempfile.TemporaryDirectory(prefix="valuedrift-benchmark-") as scratch:
        pairs = Path(scratch, "pairs.jsonl.gz")
        write_pairs(pairs, arguments.data, arguments.rows)
        for _ in range(arguments.rounds):
            for side in sides:
                one = measured(side, cores // side, arguments.prompts, arguments.samples)
                found["measurement"][side].append(one)
                found["audit"][side].append(alone(__file__, "--audit", pairs, LOKY_MAX_CPU_COUNT=str(side)))
    result, rows = {}, []
    for name, taken_by in found.items():
        wall, cpu = (
            {side: statistics.median(one[clock] for one in taken_by[side]) for side in sides}
            for clock in ("wall", "cpu")
        )
        # An audit in one process has one thread; a measurement has them all.
        fair = 1 if name == "measurement" else cores
        efficiency, work = wall[1] / (fair * wall[cores]), cpu[1] / cpu[cores]
        result[name] = {"wall": wall, "cpu": cpu, "efficiency": round(efficiency, 3), "of CPU": round(work, 3)}
        seconds = (f"{own[side]:.1f}" for side in sides for own in (wall, cpu))
        rows.append([name, *seconds, f"{efficiency:.2f}", f"{work:.2f}"])
    several = f"{cores} processes"
    columns = ("", "1 process, s", "CPU s", f"{several}, s", "CPU s", "efficiency", "by CPU seconds")
    Display().table(f"One process against {several}", columns, rows)
    print(f"goal: at least {GOAL} for both")
    write("ranks", f"{arguments.prompts} prompts, {arguments.rows} rows", {"machine": told, **result})


if __name__ == "__main__":
    main()
