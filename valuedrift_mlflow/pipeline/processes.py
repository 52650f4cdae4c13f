"""What a training of several processes needs in each of them: checks, split models, who writes.

Gradients are averaged (gloo on CPU, NCCL on GPUs). A model that does not fit one device is split (``launch.sharded``):
each process holds a part of every weight, of its gradient and of the optimizer, and gathers a layer while it computes
with it (FSDP2, by transformers).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.models import Loaded, auto, load_tokenizer, whole_folder
from valuedrift_mlflow.models.ending import align
from valuedrift_mlflow.models.how import STORED, How
from valuedrift_mlflow.models.merging import merged
from valuedrift_mlflow.stages.job import PATIENCE
from valuedrift_mlflow.stages.stage import Stage

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, Trainer


def check_launch(stage: Stage) -> None:
    """Refuse a number of processes that cannot be had here.

    Raises:
        InputError: more processes than GPUs, or this process is itself one of several.
    """
    import torch

    field, wanted = f"{stage.name}.launch.processes", stage.launch.processes
    # Set by torchrun: each of its processes would start processes of its own, and a run.
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1:
        mend = "start the entry point once, without torchrun: it starts the processes"
        raise InputError(problem(field, f"{wanted}, inside one of {started} processes", "one first process", mend))
    devices = torch.cuda.device_count()
    # On a CPU there is no such limit: processes share it.
    if devices and wanted > devices:
        raise InputError(problem(field, wanted, f"at most {devices}, one on each GPU"))
    if stage.launch.sharded and stage.launch.world == 1:
        raise InputError(problem(f"{stage.name}.launch.sharded", True, "more than one process", f"raise {field}"))
    if stage.launch.sharded and not stage.lora.rank and stage.has_reference:
        mend = "the reference would be a second split model: with adapters it is the model without them"
        raise InputError(problem(f"{stage.name}.lora.rank", 0, "at least 1 with launch.sharded", mend))


def check_processes(stage: Stage, trainer: Trainer) -> None:
    """Make sure that the processes train together: some launchers start one, or several that do not know each other.

    Raises:
        RuntimeError: the trainer has another number of processes than the recipe asks for.
    """
    found, launch = trainer.args.world_size, stage.launch
    if found != launch.world:
        wanted = f"{launch.processes}" + (f" on each of {launch.nodes} machines" if launch.nodes > 1 else "")
        raise RuntimeError(f"{stage.name} is trained in {found} processes, but launch.processes is {wanted}")


def same_checkpoint(mine: Path | None) -> Path | None:
    """The checkpoint that the first process goes on from, if this one has it too; all of them must ask.

    Raises:
        InputError: another machine lacks it.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return mine
    names: list[str] = ["" if mine is None else mine.name]
    dist.broadcast_object_list(names, src=0)
    found = mine if mine is None or mine.name == names[0] else mine.with_name(names[0])
    lacks: list[str] = [""] * dist.get_world_size()
    here = bool(names[0]) == (found is not None) and (found is None or found.is_dir())
    dist.all_gather_object(lacks, "" if here else os.uname().nodename)
    if any(lacks):
        without = ", ".join(sorted(set(filter(None, lacks))))
        mend = "let VALUEDRIFT_STATE be one folder for all machines"
        raise InputError(problem("--resume", f"{without} without {names[0]}", "states that all machines have", mend))
    return found if names[0] else None


def check_equal_weights(model: Any) -> None:
    """Make sure that all processes have come to the same weights; nothing to compare in a training of one process.

    Raises:
        RuntimeError: two processes have different weights.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return
    sums: list[Any] = [None] * dist.get_world_size()
    # Equal to the last bit: all of them have applied the same averaged gradients to the same start.
    dist.all_gather_object(sums, checksum(model))
    if len(set(sums)) > 1:
        raise RuntimeError(f"the processes have different weights after the training: checksums {sums}")


def checksum(model: nn.Module) -> int:
    """A sum over the bits of all trained weights, each tensor weighted by its place: quick, and exact.

    Weights that are split over processes are left out: their parts differ.
    """
    import torch
    from torch.distributed.tensor import DTensor

    # Bits, not numbers: a sum of floats hangs on its order, and NaN is equal to nothing.
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    total = 0
    trained = (w for w in model.parameters() if w.requires_grad and not isinstance(w, DTensor))
    for place, weight in enumerate(trained, start=1):
        bits = weight.detach().contiguous().view(words[weight.element_size()])
        total = (total + place * int(bits.sum(dtype=torch.int64))) % 2**63
    return total


def is_first() -> bool:
    """Whether this process is the only one of the training, or the one that writes.

    Also before the processes have found each other, as torchrun has told each of them its number.
    """
    import torch.distributed as dist

    if not dist.is_available():
        return True
    if dist.is_initialized():
        return dist.get_rank() == 0
    return not dist.is_torchelastic_launched() or os.environ["RANK"] == "0"


def load_sharded(stage: Stage, start_uri: str, stop: Sequence[str] = (), *, how: How = STORED) -> Loaded:
    """The model that a stage starts from, split over its processes; each of them reads only its part.

    Raises:
        InputError: the URI names no whole model that transformers can load.
    """
    import torch
    import torch.distributed as dist
    from transformers.distributed.configuration_utils import DistributedConfig

    # Now, not with the Trainer: the weights are split while they are loaded. Its `ddp_timeout` would come too late too.
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(seconds=PATIENCE))
    folder = str(whole_folder(start_uri, how))
    if not stage.lora.rank and how.dtype == "auto":
        how = replace(how, dtype="float32")  # small updates of weights in 16 bits would be rounded away
    try:
        split = DistributedConfig(fsdp_size=stage.launch.world)
        model = auto.causal_lm(folder, how, distributed_config=split)
    except ValueError as error:
        allowed = "a causal language model that transformers can load"
        raise InputError(problem("model", start_uri, allowed, one_line(error))) from error
    tokenizer = load_tokenizer(folder, how.own_code)
    align(model, tokenizer, stop)
    # What adapters name as their base; see `train.load_start`.
    model.name_or_path = model.config.name_or_path = tracking.pinned(start_uri)
    return Loaded(start_uri, model, tokenizer)


def whole(
    stage: Stage, start_uri: str, folder: Path, stop: Sequence[str] = (), *, how: How = STORED
) -> PreTrainedModel:
    """The whole model of a split stage: of the weights in a folder, or of its start and the adapters there.

    It is made in main memory, where it must fit.
    """
    if not stage.lora.rank:
        return auto.causal_lm(str(folder), how)
    from peft import PeftModel

    start = auto.causal_lm(str(whole_folder(start_uri, how)), how)
    made = merged(PeftModel.from_pretrained(start, str(folder)))
    align(made, load_tokenizer(str(folder)), stop)
    return made
