"""What starting costs: ``--help`` of every command, the import, and what a tiny stage takes beside its training.

python benchmarks/startup.py                # four minutes of CPU
python benchmarks/startup.py --rounds 1 --no-stage

Seconds are those of the processor (user and system), which a busy machine moves less than those of the wall. The stage
is the SFT of the embedded world with two steps, few prompts and one response each: nearly all of it is fixed cost, by
the same clock inside the job that ``main_job.py`` has. The last table is what Python itself says of its imports.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from main_job import parts_of
from processes import pinned
from rounds import machine, write

from valuedrift_mlflow.cli.commands import COMMANDS
from valuedrift_mlflow.report.display import Display

HELP_GOAL, IMPORT_GOAL = 0.6, 0.1
TINY = "samples=1 checkpoint_samples=1 suite=vaes?per_topic=2 max_new_tokens=16 sft.max_steps=2 sft.checkpoint_every=2"
_IMPORTS = 12  # of the slowest packages that are shown


def cpu(command: Sequence[str]) -> float:
    """Seconds of the processor that a command takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def medians(commands: dict[str, list[str]], rounds: int) -> dict[str, float]:
    """The median of each command, all in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            seconds[name].append(cpu(command))
    return {name: round(statistics.median(own), 3) for name, own in seconds.items()}


def imports(folder: str) -> dict[str, float]:
    """Seconds that the packages of a tiny stage's imports take by themselves, the slowest first."""
    command = [sys.executable, "-X", "importtime", "-m", "valuedrift_mlflow.cli.main", "sft", "--set", TINY]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    by_package: dict[str, float] = {}
    for own, name in re.findall(r"import time: +(\d+) \| +\d+ \| +([\w.]+)", done.stderr):
        package = name.split(".")[0]
        by_package[package] = by_package.get(package, 0.0) + int(own) / 1e6
    return dict(sorted(by_package.items(), key=lambda entry: -entry[1]))


def main() -> None:
    """Print the tables and write them down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--no-stage", action="store_true", help="leave out the tiny stage and its imports")
    arguments = parser.parse_args()
    pinned(arguments.cores)
    told, display = machine(arguments.cores), Display()
    program = [sys.executable, "-m", "valuedrift_mlflow.cli.main"]
    commands = {f"{own.spoken} --help": [*program, own.spoken, "--help"] for own in COMMANDS}
    helps = medians({"--help": [*program, "--help"], **commands}, arguments.rounds)
    bare = {"mlflow": "import mlflow", "both": "import mlflow, valuedrift_mlflow"}
    of_imports = medians({name: [sys.executable, "-c", code] for name, code in bare.items()}, arguments.rounds)
    rows = [[name, f"{own:.2f}"] for name, own in helps.items()]
    display.table("CPU seconds of --help", ("command", "seconds"), rows)
    alone, more = of_imports["mlflow"], of_imports["both"] - of_imports["mlflow"]
    print(f"the slowest --help takes {max(helps.values()):.2f} s of CPU (goal {HELP_GOAL})")
    print(f"import valuedrift_mlflow takes {more:.2f} s over import mlflow, {alone:.2f} s (goal {IMPORT_GOAL})")
    result = {"machine": told, "help": helps, "import": of_imports}
    if not arguments.no_stage:
        with tempfile.TemporaryDirectory(prefix="valuedrift-benchmark-") as scratch:
            os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlflow.db"
            slowest = imports(scratch)  # it makes the store too: what a first run makes is no cost of a stage
            run = parts_of("sft", scratch, arguments.cores, "--set", TINY)
        parts = dict(sorted(run.parts.items(), key=lambda entry: -entry[1]))
        first = dict(list(slowest.items())[:_IMPORTS])
        for title, seconds in (("A tiny stage", parts), ("Its imports", first)):
            display.table(f"{title}, seconds", ("", "seconds"), [[name, f"{own:.2f}"] for name, own in seconds.items()])
        result |= {"stage": parts, "imports": first}
    write("startup", "all", result)


if __name__ == "__main__":
    main()
