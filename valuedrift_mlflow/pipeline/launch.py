"""A stage in several processes: torchrun starts them under the process that holds the MLflow runs.

Each process loads the stage's start and trains on its own share of every batch; gradients are averaged (gloo on CPU,
NCCL on GPUs). All answer their part of the prompts. The first one judges, saves and writes to the stage's MLflow run.

A model that does not fit one device is split (``launch.sharded``): each process holds a part of every weight, of its
gradient and of the optimizer, and gathers a layer while it computes with it (FSDP2, by transformers).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.recipe.read import validate
from valuedrift_mlflow.stages.job import PATIENCE, merged
from valuedrift_mlflow.stages.stage import Stage

if TYPE_CHECKING:
    from torch import nn
    from transformers import Trainer

    from valuedrift_mlflow.evaluation.measurement import Measurement
    from valuedrift_mlflow.models import Loaded
    from valuedrift_mlflow.pipeline.pipeline import Plan, Trained
    from valuedrift_mlflow.report.display import Display
    from valuedrift_mlflow.tracking import OpenRun

_ORDERS, _RESULT, _LOG, _START = "orders.json", "result.json", "torchrun.log", "start.json"
_SHOWN = 30  # first lines of the processes' own output that an error shows: a process may die without an exception


def check(stage: Stage) -> None:
    """Refuse a number of processes that cannot be had here.

    Raises:
        InputError: more processes than GPUs, or this process is itself one of several.
    """
    import torch

    field, wanted = f"{stage.name}.launch.processes", stage.launch.processes
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1:
        mend = "start the entry point once, without torchrun: it starts the processes"
        raise InputError(problem(field, f"{wanted}, inside one of {started} processes", "one first process", mend))
    devices = torch.cuda.device_count()
    if devices and wanted > devices:
        raise InputError(problem(field, wanted, f"at most {devices}, one on each GPU"))
    if stage.launch.sharded and wanted == 1:
        raise InputError(problem(f"{stage.name}.launch.sharded", True, "more than one process", f"raise {field}"))
    if stage.launch.sharded and not stage.lora.rank and stage.has_reference:
        mend = "the reference would be a second split model: with adapters it is the model without them"
        raise InputError(problem(f"{stage.name}.lora.rank", 0, "at least 1 with launch.sharded", mend))


def check_processes(stage: Stage, trainer: Trainer) -> None:
    """Make sure that the processes train together: some launchers start one, or several that do not know each other.

    Raises:
        RuntimeError: the trainer has another number of processes than the recipe asks for.
    """
    if trainer.args.world_size != stage.launch.processes:
        found, wanted = trainer.args.world_size, stage.launch.processes
        raise RuntimeError(f"{stage.name} is trained in {found} processes, but launch.processes is {wanted}")


def check_equal_weights(model: Any) -> None:
    """Make sure that all processes have come to the same weights; nothing to compare in a training of one process.

    Raises:
        RuntimeError: two processes have different weights.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return
    sums: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(sums, checksum(model))
    if len(set(sums)) > 1:
        raise RuntimeError(f"the processes have different weights after the training: checksums {sums}")


def checksum(model: nn.Module) -> int:
    """A sum over the bits of all trained weights, each tensor weighted by its place: quick, and exact.

    Weights that are split over processes are left out: their parts differ.
    """
    import torch
    from torch.distributed.tensor import DTensor

    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    total = 0
    trained = (w for w in model.parameters() if w.requires_grad and not isinstance(w, DTensor))
    for place, weight in enumerate(trained, start=1):
        bits = weight.detach().contiguous().view(words[weight.element_size()])
        total = (total + place * int(bits.sum(dtype=torch.int64))) % 2**63
    return total


def is_first() -> bool:
    """Whether this process is the only one of the training, or the one that writes."""
    import torch.distributed as dist

    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def load_sharded(stage: Stage, start_uri: str) -> Loaded:
    """The model that a stage starts from, split over its processes; each of them reads only its part.

    Raises:
        InputError: the URI names no whole model that transformers can load.
    """
    import torch
    import torch.distributed as dist
    from transformers import AutoModelForCausalLM
    from transformers.distributed.configuration_utils import DistributedConfig

    from valuedrift_mlflow.models import Loaded, load_tokenizer, whole_folder

    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(seconds=PATIENCE))
    folder = str(whole_folder(start_uri))
    auto_model: Any = AutoModelForCausalLM  # its methods carry no usable types
    model = auto_model.from_pretrained(
        folder,
        dtype="auto" if stage.lora.rank else torch.float32,
        distributed_config=DistributedConfig(fsdp_size=stage.launch.processes),
    )
    model.config.name_or_path = start_uri
    return Loaded(start_uri, model, load_tokenizer(folder))


def make_whole(stage: Stage, start_uri: str, folder: Path) -> None:
    """Turn a folder with a split stage's adapters into one with the merged model; a folder of full weights stays.

    It is done in main memory, where the whole model must fit.
    """
    if not stage.lora.rank:
        return
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from valuedrift_mlflow.models import whole_folder

    auto_model: Any = AutoModelForCausalLM
    start = auto_model.from_pretrained(str(whole_folder(start_uri)), dtype="auto")
    whole = merged(PeftModel.from_pretrained(start, str(folder)))
    for file in folder.glob("adapter_*"):
        file.unlink()
    whole.save_pretrained(folder)


def train(
    plan: Plan, stage: Stage, start_uri: str, run: OpenRun, state: Path, display: Display, given: Measurement | None
) -> Trained:
    """As ``pipeline.train_stage``, in as many processes as the stage asks for.

    Raises:
        InputError, FloatingPointError: as the training of one process.
        RuntimeError: a process has failed otherwise; the message has its reason.
    """
    from valuedrift_mlflow.evaluation import kept
    from valuedrift_mlflow.pipeline.pipeline import Trained

    with tempfile.TemporaryDirectory(prefix="valuedrift-") as scratch:
        folder = Path(scratch)
        if given:
            kept.write_measurements(folder / _START, [given], run.run_id)
        orders = {
            "recipe": plan.recipe.model_dump(mode="json", by_alias=True),
            "source": plan.source,
            "reward_models": plan.reward_models,
            "stage": stage.name,
            "audited": plan.audited,
            "start_uri": start_uri,
            "run_id": run.run_id,
            "state": str(state),
            "parent": os.getpid(),
        }
        (folder / _ORDERS).write_text(json.dumps(orders), encoding="utf-8")
        code = _torchrun(stage.launch.processes, folder, display)
        if code:
            raise _failure(folder, code)
        measurements, _ = kept.read_measurements(folder / kept.MEASUREMENTS, plan.suite, plan.recipe.refusal)
        return Trained(json.loads((folder / _RESULT).read_text(encoding="utf-8"))["model_uri"], measurements)


def _torchrun(processes: int, folder: Path, display: Display) -> int:
    """Run the processes to their end, show what they print, return the exit code."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "MLFLOW_TRACKING_URI": tracking.address()}
    with (
        (folder / _LOG).open("w", encoding="utf-8") as log,
        subprocess.Popen(
            [*command, "-m", "valuedrift_mlflow.pipeline.launch", str(folder)],
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            text=True,
        ) as running,
    ):
        try:
            assert running.stdout is not None
            for line in running.stdout:
                display.line(line.rstrip())
            return running.wait()
        finally:
            running.terminate()  # where this process is interrupted; a process that has ended does not mind


def _failure(folder: Path, code: int) -> Exception:
    """What went wrong, from the process that failed first: the others only miss it."""
    reports = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("error-*.json")]
    printed = "\n".join((folder / _LOG).read_text(encoding="utf-8").splitlines()[:_SHOWN])
    if not reports:
        return RuntimeError(f"the processes of the stage ended with code {code}\n{printed}")
    first = min(reports, key=lambda report: float(report["time"]))
    if first["kind"] == "InputError":
        return InputError(first["problems"])
    if first["kind"] == "FloatingPointError":
        return FloatingPointError(first["message"])
    return RuntimeError(f"process {first['rank']}: {first['kind']}: {first['message']}\n{first['traceback']}{printed}")


def main(folder: Path) -> None:
    """One of the processes that torchrun has started."""
    rank = int(os.environ["RANK"])
    try:
        _work(folder, rank)
    except BaseException as error:
        report = {
            "time": time.time(),
            "rank": rank,
            "kind": type(error).__name__,
            "message": str(error),
            "problems": getattr(error, "problems", []),
            "traceback": "".join(traceback.format_exception(error))[-3000:],
        }
        (folder / f"error-{rank}.json").write_text(json.dumps(report), encoding="utf-8")
        raise


def _work(folder: Path, rank: int) -> None:
    from contextlib import nullcontext

    import torch
    import torch.distributed as dist
    from rich.console import Console

    from valuedrift_mlflow.evaluation import kept
    from valuedrift_mlflow.pipeline.pipeline import prepare_stage, train_stage
    from valuedrift_mlflow.report.display import Display

    orders = json.loads((folder / _ORDERS).read_text(encoding="utf-8"))
    threading.Thread(target=_end_with, args=(int(orders["parent"]),), daemon=True).start()
    tracking.work_offline()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    plan, stage = prepare_stage(validate(orders["recipe"]), orders["source"], orders["stage"])
    plan.reward_models.update(orders["reward_models"])
    plan.audited.update(orders["audited"])
    given = None
    if (folder / _START).is_file():
        [given], _ = kept.read_measurements(folder / _START, plan.suite, plan.recipe.refusal)
    display = Display(None if rank == 0 else Console(quiet=True))
    run_id = orders["run_id"]
    with tracking.share(run_id) if rank == 0 else nullcontext(tracking.OpenRun(run_id)) as run:
        trained = train_stage(plan, stage, orders["start_uri"], run, Path(orders["state"]), display, given)
        if rank == 0:
            kept.write_measurements(folder / kept.MEASUREMENTS, trained.measurements, run.run_id)
            (folder / _RESULT).write_text(json.dumps({"model_uri": trained.model_uri}), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def _end_with(parent: int) -> None:
    """End this process when the one that started the stage has ended, however it did."""
    while True:
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
