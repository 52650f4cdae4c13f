"""A stage in several processes: torchrun starts them under the process that holds the MLflow runs.

Each process loads the stage's start and trains on its own share of every batch. All answer their part of the prompts.
The first one judges, saves and writes to the stage's MLflow run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import joblib

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation import kept
from valuedrift_mlflow.inputs import interrupts, processes, scratch
from valuedrift_mlflow.inputs.errors import InputError, Unanswered
from valuedrift_mlflow.inputs.interrupts import Terminated
from valuedrift_mlflow.inputs.scratch import temporary_folder
from valuedrift_mlflow.pipeline import nodes
from valuedrift_mlflow.pipeline.plan import Plan, StageRun, Trained, prepare_stage
from valuedrift_mlflow.pipeline.train import train_stage
from valuedrift_mlflow.recipe.read import validate
from valuedrift_mlflow.report.display import Display

_ORDERS, _RESULT, _LOG, _START = "orders.json", "result.json", "torchrun.log", "start.json"
_SHOWN = 30  # first lines of the processes' own output that an error shows: a process may die without an exception


def train(work: StageRun, display: Display) -> Trained:
    """As ``train.train_stage``, in as many processes as the stage asks for.

    Raises:
        InputError, Unanswered, FloatingPointError: as the training of one process.
        RuntimeError: a process has failed otherwise; the message has its reason.
    """
    plan = work.plan
    tracking.settle(work.run)  # the first process asks what the run has, and writes to it
    with temporary_folder() as scratch:
        folder = Path(scratch)
        if work.given:
            kept.write_measurements(folder / _START, [work.given], work.run.run_id)
        orders = {
            "recipe": plan.recipe.model_dump(mode="json", by_alias=True),
            "source": plan.source,
            "stage": work.stage.name,
            "start_uri": work.start_uri,
            "reward": work.reward,
            "mix": work.mix,
            "run_id": work.run.run_id,
            "parent": os.getpid(),
        }
        (folder / _ORDERS).write_text(json.dumps(orders), encoding="utf-8")
        launch = work.stage.launch
        meeting = nodes.current(work.stage.name) if launch.nodes > 1 else None
        # --standalone: a free port of its own, so that several trainings can run on one machine.
        place = ["--standalone"] if meeting is None else meeting.order(_texts(folder))
        code = _torchrun(launch.processes, place, folder, display)
        stop = interrupts.asked()
        if stop is not None:
            if not stop.saves:
                tracking.drop_shared(work.run.run_id)
            raise stop
        if code:
            elsewhere = meeting.reports() if meeting is not None else []
            raise _failure([*_reports(folder), *elsewhere], folder, code)
        measurements, _ = kept.read_measurements(folder / kept.MEASUREMENTS, plan.suite, plan.recipe.refusal)
        return Trained(json.loads((folder / _RESULT).read_text(encoding="utf-8"))["model_uri"], measurements)


def follow(meeting: nodes.Meeting, plan: Plan, display: Display) -> None:
    """Start this machine's processes of every stage that the first machine starts, until that has come to its end.

    Raises:
        InputError: the first machine has failed, or what this one's processes cannot do.
        RuntimeError: one of them has failed otherwise.
        Stopped: this process was told to stop.
    """
    display.line(f"machine {meeting.rank + 1} of {meeting.nodes}: waiting for the first, at {meeting.address}")
    while (orders := meeting.next_orders()) is not None:
        texts, place = orders
        with temporary_folder() as scratch:
            folder = Path(scratch)
            for name in (_ORDERS, _START):
                if name in texts:
                    (folder / name).write_text(texts[name], encoding="utf-8")
            own = json.loads(texts[_ORDERS])
            # Its own recipe: what is run here is what was started here.
            own |= {"parent": os.getpid(), "recipe": plan.recipe.model_dump(mode="json", by_alias=True)}
            (folder / _ORDERS).write_text(json.dumps(own), encoding="utf-8")
            stage = next(stage for stage in plan.recipe.stages if stage.name == own["stage"])
            display.line(f"{stage.name}: {stage.launch.processes} processes of {stage.launch.world}")
            code = _torchrun(stage.launch.processes, place, folder, display)
            stop = interrupts.asked()
            if code and stop is None:
                meeting.report(_reports(folder))
                raise _failure(_reports(folder), folder, code)
        if stop is not None:
            raise stop


def _texts(folder: Path) -> dict[str, str]:
    files = (folder / name for name in (_ORDERS, _START))
    return {file.name: file.read_text(encoding="utf-8") for file in files if file.is_file()}


def _torchrun(processes: int, place: Sequence[str], folder: Path, display: Display) -> int:
    """Run the processes to their end, show what they print, return the exit code."""
    command = [sys.executable, "-m", "torch.distributed.run", *place, f"--nproc-per-node={processes}"]
    # The cores that this process may use: of a container or a pinned job these are fewer than the machine has.
    threads = max(1, joblib.cpu_count() // processes)
    # What the user has set wins; torchrun would set 1 thread. The store's address may have been set in Python, where
    # other processes do not see it.
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "MLFLOW_TRACKING_URI": tracking.address()}
    with (
        (folder / _LOG).open("w", encoding="utf-8") as log,
        subprocess.Popen(
            [*command, "-m", "valuedrift_mlflow.pipeline.launch", str(folder)],
            stdout=subprocess.PIPE,
            # To a file: nobody reads it before the end, and a pipe that is full would stop the processes.
            stderr=log,
            env=environment,
            text=True,
            # Out of the reach of Ctrl-C, which goes to a whole group: this process passes on what comes to it, once.
            start_new_session=True,
        ) as running,
        # torchrun passes it on to its processes, which stop between two steps; those whose run another process has
        # taken end with it, see `_end_with`.
        interrupts.passed_on(lambda stop: running.terminate() if stop.saves else running.kill()),
    ):
        try:
            assert running.stdout is not None
            for line in running.stdout:
                display.line(line.rstrip())
            return running.wait()
        finally:
            running.terminate()  # where this process is interrupted; a process that has ended does not mind


def _reports(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("error-*.json")]


def _failure(reports: Sequence[dict[str, Any]], folder: Path, code: int) -> BaseException:
    """What went wrong, from the process that failed first: the others only miss it."""
    printed = "\n".join((folder / _LOG).read_text(encoding="utf-8").splitlines()[:_SHOWN])
    if not reports:
        return RuntimeError(f"the processes of the stage ended with code {code}\n{printed}")
    # By time, not by rank: when one process dies, the collectives of the others fail after it.
    first = min(reports, key=lambda report: float(report["time"]))
    # Made again as what they were: commands and ablations tell these apart by their kind.
    if first["kind"] == "InputError":
        return InputError(first["problems"])
    if first["kind"] == Terminated.__name__:  # a cluster may tell them and not this process
        return Terminated(first["message"])
    if first["unanswered"]:
        return Unanswered(first["message"])
    if first["kind"] == "FloatingPointError":
        return FloatingPointError(first["message"])
    return RuntimeError(f"process {first['rank']}: {first['kind']}: {first['message']}\n{first['traceback']}{printed}")


def main(folder: Path) -> None:
    """One of the processes that torchrun has started."""
    rank = int(os.environ["RANK"])
    scratch.keep_together()
    # Told by its group and by torchrun, a process has one notice twice.
    with interrupts.minded(ends=True, second_ends=False):
        _reported(folder, rank)


def _reported(folder: Path, rank: int) -> None:
    try:
        _work(folder, rank)
    # Of any kind: without a report the process that started this one knows an exit code and nothing else.
    except BaseException as error:
        report = {
            "time": time.time(),
            "rank": rank,
            "kind": type(error).__name__,
            "message": str(error),
            "problems": getattr(error, "problems", []),
            "unanswered": isinstance(error, Unanswered),
            "traceback": "".join(traceback.format_exception(error))[-3000:],
        }
        (folder / f"error-{rank}.json").write_text(json.dumps(report), encoding="utf-8")
        raise


def _work(folder: Path, rank: int) -> None:
    import torch
    import torch.distributed as dist
    from rich.console import Console

    orders = json.loads((folder / _ORDERS).read_text(encoding="utf-8"))
    # A daemon: it must not keep a process alive whose work is done.
    threading.Thread(target=_end_with, args=(int(orders["parent"]),), daemon=True).start()
    tracking.work_offline()
    processes.keep_freed_memory()
    if torch.cuda.is_available():
        # Before anything is loaded: models go to "cuda", which is the first device of all for whoever has chosen none.
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    plan, stage = prepare_stage(validate(orders["recipe"]), orders["source"], orders["stage"])
    given = None
    if (folder / _START).is_file():
        [given], _ = kept.read_measurements(folder / _START, plan.suite, plan.recipe.refusal)
    display = Display(None if rank == 0 else Console(quiet=True))
    run_id = orders["run_id"]
    # One writer: every process that opened the run would log each metric once more.
    with tracking.share(run_id, int(orders["parent"])) if rank == 0 else nullcontext(tracking.OpenRun(run_id)) as run:
        work = StageRun(
            plan,
            stage,
            orders["start_uri"],
            before=given,
            remeasure=given is None,
            reward=orders["reward"],
            mix=orders["mix"],
            run=run,
        )
        trained = train_stage(work, display)
        if rank == 0:
            kept.write_measurements(folder / kept.MEASUREMENTS, trained.measurements, run.run_id)
            (folder / _RESULT).write_text(json.dumps({"model_uri": trained.model_uri}), encoding="utf-8")
    # The first one still writes; who leaves without an end of its group makes torch warn of leaked resources.
    dist.barrier()
    dist.destroy_process_group()


def _end_with(parent: int) -> None:
    """End this process when the one that started the stage has ended, however it did, or torchrun has."""
    torchrun = os.getppid()
    while True:
        try:
            os.kill(parent, 0)  # signal 0 only asks whether it is there
            alone = os.getppid() != torchrun
        except ProcessLookupError:
            alone = True
        if alone:
            scratch.remove()
            os._exit(1)  # sys.exit would end this thread alone
        time.sleep(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
