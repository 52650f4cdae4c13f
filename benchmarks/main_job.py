"""How long the main job takes, where the time goes, and how much memory it needs.

python benchmarks/main_job.py
python benchmarks/main_job.py --skip-first --set "samples=1 checkpoint_samples=1 sft.max_steps=4 dpo.max_steps=4"

The real command, ``mlflow run . --env-manager local``, runs with an empty cache, so that it trains the embedded base
model, and with the base model cached; a clock inside the job says what each second went to. The peer, run in between,
is bare training: the same trainers on the same models and data, without MLflow and measurements.

python benchmarks/main_job.py --ablation 3
python benchmarks/main_job.py --ablation 1 --set "samples=1 dpo.max_steps=4"

The second question: what a cell of an ablation takes, by the same clock. Cells of DPO at as many value gaps as are
asked for, and what the README's design of 72 would take at that.
"""

import argparse
import atexit
import copy
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

import pandas as pd
import psutil
from processes import pinned

from valuedrift_mlflow.report.display import Display

PROJECT = Path(__file__).parent.parent
# Limits of the run with an empty cache, with a cached base model, and of an ablation as the README has one.
MINUTES = {"first": 5.0, "cached": 3.0, "72 cells": 25.0}
# Asking a large process for its memory holds it up: seldom enough to cost nothing.
GIGABYTES, POLL_SECONDS = 4.0, 2.0
TRAINING, BASE_TRAINING = "training", "base training"
IMPORTS, LOADING, LAUNCH = "start-up: imports", "start-up: data, models, trainers", "start-up: launch and exit"
VERDICTS, AUDITS = "evaluation: verdicts", "audits: rows matched, judged, told"
LOGS, MODELS, FIGURES = "tracking: records", "tracking: checkpoints", "tracking: figures and report"
# What is timed in the job. Others import these functions by name, so no module may stand before one that it imports.
TIMED = (
    ("valuedrift_mlflow.tracking.runs", "log_parameters", LOGS),
    ("valuedrift_mlflow.tracking", "log_metrics log_parameters log_table log_text", LOGS),
    ("valuedrift_mlflow.evaluation.recorded", "log_suite log_training_data", LOGS),
    ("valuedrift_mlflow.tracking", "log_checkpoint log_last_checkpoint log_final_model log_folder", MODELS),
    ("transformers.PreTrainedModel", "save_pretrained", MODELS),
    ("valuedrift_mlflow.tracking", "log_figures", FIGURES),
    ("valuedrift_mlflow.report.plots", "stage_figures", FIGURES),
    ("valuedrift_mlflow.pipeline.pipeline", "pipeline_figures drawn html", FIGURES),
    ("transformers.Trainer", "train", TRAINING),
    ("valuedrift_mlflow.models.generation.TransformersGenerator", "generate", "evaluation: answers"),
    ("valuedrift_mlflow.judges.lexical.judge.LexicalJudge", "judge", VERDICTS),
    ("valuedrift_mlflow.value_gap.audit", "run", AUDITS),
    ("valuedrift_mlflow.evaluation.metrics", "analyse", "evaluation: intervals and tests"),
    ("valuedrift_mlflow.tracking.spool.Spool", "_deliver", LOGS),
    ("valuedrift_mlflow.models.start", "start_of reference_kl", "evaluation: KL"),
    ("valuedrift_mlflow.stages.job", "build_trainer", LOADING),
    ("valuedrift_mlflow.models", "load_model", LOADING),
    ("valuedrift_mlflow.pipeline.plan", "prepare", LOADING),
)
# The sitecustomize.py of the job's processes: Python runs it before their own first line.
HOOK = (
    "import sys\nif any(own.startswith('entrypoints.') for own in sys.orig_argv):\n"
    "    import main_job\n    main_job.time_the_job()\n"
)
SECONDS: defaultdict[str, float] = defaultdict(float)  # of each part, in the process that is timed
BESIDE = "beside it, in another thread: "  # parts that delay nothing by themselves, and are in no sum
_WITHIN: defaultdict[int, float] = defaultdict(float)  # of all parts so far, by thread


@contextmanager
def part(name: str) -> Iterator[None]:
    """Time this context, or calls of a function that it decorates; a part inside it counts for itself alone."""
    thread = threading.get_ident()
    start, others = time.perf_counter(), _WITHIN[thread]
    try:
        yield
    finally:
        own = time.perf_counter() - start - (_WITHIN[thread] - others)
        _WITHIN[thread] += own
        SECONDS[name if thread == threading.main_thread().ident else BESIDE + name] += own


def time_calls(place: str, names: str, name_of_part: str) -> None:
    """Time every call of the functions (names between spaces) of a module or class."""
    owner = resolve_name(place)
    for name in names.split():
        setattr(owner, name, part(name_of_part)(getattr(owner, name)))


def save() -> None:
    """Write the seconds to the file that the parent process reads."""
    Path(os.environ["MAIN_JOB_SECONDS"]).write_text(json.dumps(SECONDS), encoding="utf-8")


def time_the_job() -> None:
    """In the job's process, before its first line: time its parts, and write them down when it ends."""
    from valuedrift_mlflow import tracking

    whole = ExitStack()
    whole.callback(save)
    whole.enter_context(part("rest"))
    atexit.register(whole.close)
    tracking.work_offline()  # as the job does before it imports anything large
    with part(IMPORTS):
        # Imported together and first, or each would count for the part that happens to need it first.
        for module in (
            "mlflow.pyfunc",
            "seaborn",
            "valuedrift_mlflow.stages.pretrain_trainer",
            "trl.trainer.dpo_trainer",
        ):
            resolve_name(module)
        for timed in TIMED:
            time_calls(*timed)


def train_only(settings: str) -> None:
    """In a process of its own: the base model where it is not cached, and every stage from the model it starts from."""
    from valuedrift_mlflow import models
    from valuedrift_mlflow.data import datasets
    from valuedrift_mlflow.models.merging import merged
    from valuedrift_mlflow.recipe import read
    from valuedrift_mlflow.stages.job import build_trainer
    from valuedrift_mlflow.stages.stage import BASE, Job

    time_calls("transformers.Trainer", "train", TRAINING)
    plan, _ = read.load_recipe("embedded", settings).merged()
    start = models.load_model(plan.base.model)
    SECONDS[BASE_TRAINING] = SECONDS.pop(TRAINING, 0.0)
    trained = {BASE: start.model}
    for stage in plan.stages:
        data = datasets.load_data(stage.data, stage.kind)
        model, seed = copy.deepcopy(trained[stage.start]), plan.seed if stage.seed is None else stage.seed
        with tempfile.TemporaryDirectory() as scratch:
            trainer = build_trainer(Job(stage, model, start.tokenizer, data, Path(scratch), seed))
            trainer.train()
        trained[stage.name] = merged(trainer.model)
    save()


class Taken(NamedTuple):
    """What a command and its children took: wall seconds, cores on average, peak gigabytes, seconds of each part."""

    seconds: float
    cores: float
    gigabytes: float
    parts: dict[str, float]


def watch(name: str, command: Sequence[str], folder: str, variables: dict[str, str]) -> Taken:
    """Run a command to its end in ``folder``, where its output goes to a file, and watch its whole process tree."""
    print(f"{name} ...", flush=True)
    result, log = Path(folder, f"{name}.json"), Path(folder, f"{name}.log")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")} | variables
    environment["MAIN_JOB_SECONDS"] = str(result)
    peak, used, start = 0, sum(os.times()[2:4]), time.perf_counter()
    with log.open("w", encoding="utf-8") as output:
        process = psutil.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, tree_memory(process))
            time.sleep(POLL_SECONDS)
    wall, cpu = time.perf_counter() - start, sum(os.times()[2:4]) - used
    said = log.read_text(encoding="utf-8")
    # Python goes on where its sitecustomize.py fails: then a function has another name than `TIMED` has.
    if process.returncode or not result.is_file() or "Error in sitecustomize" in said:
        sys.exit(f"{' '.join(command)} failed, or its clock did:\n{said[-3000:]}")
    return Taken(wall, cpu / wall, peak / 1e9, json.loads(result.read_text(encoding="utf-8")))


def variables_of(scratch: str, cores: int) -> dict[str, str]:
    """The environment of a job that is timed: a store of its own, so many threads, the clock."""
    Path(scratch, "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    return {
        "OMP_NUM_THREADS": str(cores),
        "MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/mlflow.db",
        "PYTHONPATH": os.pathsep.join((scratch, str(Path(__file__).parent), str(PROJECT))),
    }


def parts_of(entry_point: str, scratch: str, cores: int, *flags: str) -> Taken:
    """What a job of an entry point takes, run without MLflow's own process around it."""
    command = [sys.executable, "-m", f"entrypoints.{entry_point}", *flags]
    run = watch(entry_point, command, scratch, variables_of(scratch, cores))
    run.parts[LAUNCH] = run.seconds - whole(run.parts)
    return run


def whole(parts: dict[str, float]) -> float:
    """Seconds of all parts of the job's own thread."""
    return sum(seconds for part, seconds in parts.items() if not part.startswith(BESIDE))


def ablation(cells: int, settings: str, cores: int) -> None:
    """Print what each cell of an ablation takes: two runs that differ in their number of cells tell."""
    gaps = [round(number / max(1, cells), 3) for number in range(cells + 1)]
    runs = {}
    with tempfile.TemporaryDirectory(prefix="valuedrift-benchmark-") as scratch:
        for number in (1, cells + 1):
            design = Path(scratch, f"{number}.yaml")
            about = f'about: trial\ncells: [dpo]\nseeds: [0]\naxes: {{"data?gap": {gaps[:number]}}}\n'
            design.write_text(about, encoding="utf-8")
            runs[number] = parts_of("ablate", scratch, cores, "--design", str(design), "--set", settings)
    one, more = runs.values()
    each = {part: (seconds - one.parts.get(part, 0.0)) / cells for part, seconds in more.parts.items()}
    seconds = (more.seconds - one.seconds) / cells
    longest = sorted(each.items(), key=lambda kind: -kind[1])
    table = [[part, f"{own:.2f}", f"{own / seconds:.1%}"] for part, own in longest]
    Display().table(f"A cell of an ablation on {cores} cores", ("part", "seconds", "share"), table)
    minutes = (one.seconds + 71 * seconds) / 60
    print(
        f"a cell takes {seconds:.1f} s, all before the second {one.seconds:.1f} s: 72 such cells {minutes:.0f} min "
        f"(limit {MINUTES['72 cells']:.0f}; cells of other algorithms differ)"
    )
    from rounds import machine, write  # in the job's own process this module must import nothing heavy

    write("ablation", "cell", {"machine": machine(cores), "settings": settings, "seconds": seconds, "parts": each})


def tree_memory(process: psutil.Process) -> int:
    """Bytes of a process tree; shared pages are counted once (PSS) where the platform tells, else left out (USS)."""
    with suppress(psutil.Error):  # one has just ended
        memories = [member.memory_full_info() for member in (process, *process.children(recursive=True))]
        return sum(getattr(memory, "pss", memory.uss) for memory in memories)
    return 0


def rows(runs: Sequence[Taken]) -> list[list[str]]:
    """Seconds and share of every part in each run, each kind of part before its parts."""
    parts = pd.DataFrame([run.parts for run in runs]).T.fillna(0.0)
    kinds = parts.groupby(lambda part: part.partition(":")[0]).sum()
    table = pd.concat([parts, kinds.drop(parts.index, errors="ignore")]).sort_index()
    table.loc["whole job"] = [whole(run.parts) for run in runs]
    shares = table / [run.seconds for run in runs]
    cells = table.map("{:.1f} s ".format) + shares.map("{:6.1%}".format)
    return [[str(cell) for cell in row] for row in cells.reset_index().to_numpy()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of the main job.")
    parser.add_argument("--set", default="", help="settings over the recipe's, for a quick trial")
    parser.add_argument("--cores", type=int, default=2, help="cores that everything is pinned to")
    parser.add_argument("--ablation", type=int, default=0, help="ask what a cell takes, by so many of them")
    parser.add_argument("--skip-first", action="store_true", help="leave out the run with an empty cache")
    arguments = parser.parse_args()
    pinned(arguments.cores)
    if arguments.ablation:
        ablation(arguments.ablation, arguments.set, arguments.cores)
        return
    job = [sys.executable, "-m", "mlflow", "run", str(PROJECT), "--env-manager", "local", "-P", f"set={arguments.set}"]
    bare = [sys.executable, "-c", f"import main_job; main_job.train_only({arguments.set!r})"]
    with tempfile.TemporaryDirectory(prefix="valuedrift-benchmark-") as scratch:
        variables = variables_of(scratch, arguments.cores)
        first = () if arguments.skip_first else ("first",)
        own_cache = [{"XDG_CACHE_HOME": f"{scratch}/{of}"} if first else {} for of in ("job", "bare")]
        runs = {name: watch(name, job, scratch, variables | own_cache[0]) for name in first}
        peer = watch("bare training", bare, scratch, variables | own_cache[1])
        runs["cached"] = watch("cached", job, scratch, variables | own_cache[0])
        for run in runs.values():
            run.parts[LAUNCH] = run.seconds - whole(run.parts)
    Display().table(f"Main job on {arguments.cores} cores", ("part", *runs), rows(list(runs.values())))
    for name, run in runs.items():
        alone = peer.parts[TRAINING] + (peer.parts[BASE_TRAINING] if name == "first" else 0.0)
        fast, small = run.seconds <= MINUTES[name] * 60, run.gigabytes < GIGABYTES
        print(
            f"{name}: {run.seconds / 60:.1f} min (limit {MINUTES[name]:.0f}: {'met' if fast else 'NOT MET'}), "
            f"peak memory {run.gigabytes:.2f} GB (limit {GIGABYTES:.0f}: {'met' if small else 'NOT MET'})\n"
            f"{name}: bare training {alone:.1f} s, job / bare training {run.seconds / alone:.2f}, "
            f"{run.cores:.2f} cores used on average"
        )
    from rounds import machine, write

    told = {name: run._asdict() for name, run in (*runs.items(), ("bare training", peer))}
    write("main_job", arguments.set or "all", {"machine": machine(arguments.cores), "runs": told})


if __name__ == "__main__":
    main()
