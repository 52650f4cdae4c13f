"""``STAGE.trainer``: fields of the configuration that a stage's trainer takes, checked before anything is computed.

The recipe has keys of its own for what a measurement must know (steps, checkpoints, seed, ...). A field that fights one
of them is refused, and the key is named.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import re
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from valuedrift_mlflow.inputs.errors import InputError, collecting, one_line, problem
from valuedrift_mlflow.inputs.parts import import_object
from valuedrift_mlflow.inputs.reading import settings_of, user_path
from valuedrift_mlflow.inputs.scratch import temporary_folder

if TYPE_CHECKING:
    from torch import nn

    from valuedrift_mlflow.stages.stage import Stage

_STORE = "the run in MLflow keeps what is logged"
_MEASURED = "set STAGE.checkpoint_every: checkpoints are saved and measured together"
_HELD_OUT = "set STAGE.eval_data: it is evaluated at every checkpoint"
_PROCESSES = "set STAGE.launch"
_MODEL = "set base.dtype, base.attn_implementation, base.quantization or base.trust_remote_code"
# Fields of every trainer's configuration that the recipe decides, and what to do instead.
TAKEN: Mapping[str, str] = {
    "output_dir": _STORE,
    "logging_dir": _STORE,
    "report_to": _STORE,
    "run_name": _STORE,
    "project": _STORE,
    "disable_tqdm": "every entry of the log is written to the run",
    "logging_strategy": "every step is logged",
    "logging_steps": "every step is logged",
    "logging_first_step": "every step is logged",
    "logging_nan_inf_filter": "a loss that is not finite ends the stage",
    "push_to_hub": _STORE,
    "hub_model_id": _STORE,
    "hub_strategy": _STORE,
    "hub_token": _STORE,
    "hub_private_repo": _STORE,
    "hub_always_push": _STORE,
    "hub_revision": _STORE,
    "do_train": "the recipe's stages say what is trained",
    "do_eval": _HELD_OUT,
    "do_predict": "the recipe's stages say what is trained",
    "max_steps": "set STAGE.max_steps",
    "num_train_epochs": "set STAGE.epochs",
    "per_device_train_batch_size": "set STAGE.batch_size",
    "auto_find_batch_size": "set STAGE.batch_size",
    "gradient_accumulation_steps": "set STAGE.gradient_accumulation",
    "learning_rate": "set STAGE.learning_rate",
    "lr_scheduler_type": "set STAGE.schedule",
    "warmup_steps": "set STAGE.warmup_ratio",
    "warmup_ratio": "set STAGE.warmup_ratio",
    "weight_decay": "set STAGE.weight_decay",
    "max_length": "set STAGE.max_length",
    "seed": "set STAGE.seed or the recipe's seed",
    "data_seed": "set STAGE.seed or the recipe's seed",
    "gradient_checkpointing": "set STAGE.gradient_checkpointing",
    "activation_checkpointing": "set STAGE.gradient_checkpointing",
    "save_strategy": _MEASURED,
    "save_steps": _MEASURED,
    "save_total_limit": _MEASURED,
    "save_on_each_node": _MEASURED,
    "save_only_model": _MEASURED,
    "load_best_model_at_end": "a stage ends with its last step, which is what was measured",
    "metric_for_best_model": "a stage ends with its last step, which is what was measured",
    "greater_is_better": "a stage ends with its last step, which is what was measured",
    "resume_from_checkpoint": "use --resume",
    "ignore_data_skip": "use --resume",
    "eval_strategy": _HELD_OUT,
    "eval_steps": _HELD_OUT,
    "eval_delay": _HELD_OUT,
    "eval_on_start": _HELD_OUT,
    "remove_unused_columns": "the stage's algorithm says which columns it reads",
    "model_init_kwargs": _MODEL,
    "trust_remote_code": _MODEL,
    "use_cpu": "a GPU is used where there is one",
    "fsdp": _PROCESSES,
    "fsdp_config": _PROCESSES,
    "parallelism_config": _PROCESSES,
    "local_rank": _PROCESSES,
    "ddp_timeout": _PROCESSES,
    "router_aux_loss_coef": "set STAGE.router_loss",
}
# What a field or its value needs beside TRL.
_LIBRARIES = {"use_liger_kernel": ("liger_kernel", "liger-kernel"), "deepspeed": ("deepspeed", "deepspeed")}


def check_trainer(stage: Stage) -> None:
    """Refuse what a stage's trainer does not know, what fights a key of the recipe, and values that it does not take.

    Raises:
        InputError: all problems of the stage's ``trainer`` at once.
    """
    if not stage.trainer:
        return
    where = f"{stage.name}.trainer"
    if not stage.configured_by:
        mend = "give the class configured_by = 'MODULE:CONFIG' and build with common_arguments(job)"
        raise InputError(problem(where, dict(stage.trainer), "nothing for this algorithm", mend))
    config = import_object(stage.configured_by, where, "class")
    with collecting() as problems:
        types = _types(config)
        for name, value in stage.trainer.items():
            problems.attempt(_check_field, f"{where}.{name}", name, value, stage, types)
        if not problems.lines:
            problems.attempt(_check_together, where, config, stage)


def _types(config: Any) -> dict[str, Any]:
    """The fields that a configuration can be made with, and their types."""
    hints = typing.get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config) if field.init}


def _check_field(where: str, name: str, value: object, stage: Stage, types: Mapping[str, object]) -> None:
    # The algorithm's own answer wins: it knows better what to do instead.
    taken = {**TAKEN, **stage.taken}
    if name in taken:
        raise InputError(problem(where, value, "a field that no key of the recipe decides", _mend(taken[name], stage)))
    if name not in types:
        known = [field for field in types if field not in taken]
        near = nearest(name, known)
        allowed = f"a field of {stage.configured_by.rpartition(':')[2]}"
        raise InputError(problem(where, value, allowed, f"the nearest are {', '.join(near)}" if near else ""))
    wrong = mistyped(value, types[name])
    if wrong:
        raise InputError(problem(where, value, wrong))
    if name == "deepspeed":
        _check_deepspeed(where, value, stage)
    module, package = _LIBRARIES.get(name, ("", ""))
    if name == "optim" and isinstance(value, str) and ("bnb" in value or "8bit" in value):
        module = package = "bitsandbytes"
    if module and value and importlib.util.find_spec(module) is None:
        raise InputError(problem(where, value, f"what the library {module} does", f"pip install {package}"))


def _check_deepspeed(where: str, value: object, stage: Stage) -> None:
    """Refuse ZeRO-3: each forward pass needs all processes then, and no process has weights that can be saved."""
    path = user_path(value) if isinstance(value, str) else None
    settings = settings_of(path, where) if path is not None and path.is_file() else value
    zero = settings.get("zero_optimization") if isinstance(settings, Mapping) else None
    if isinstance(zero, Mapping) and zero.get("stage") == 3:
        mend = f"to split the weights set {stage.name}.launch.sharded"
        raise InputError(problem(f"{where} zero_optimization.stage", 3, "0, 1 or 2", mend))


def _mend(said: str, stage: Stage) -> str:
    return said.replace("STAGE.", f"{stage.name}.")


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """The known names that a name may stand for, at most three: those like it, else those it is a part of.

    >>> nearest("optimizer", ["optim", "packing", "optim_args"])
    ['optim', 'optim_args']
    """
    like = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return like or [field for field in known if name in field or field in name][:3]


def mistyped(value: object, kind: Any) -> str:
    """What a type allows where it does not allow the value, else nothing.

    >>> mistyped("much", float)
    'a valid number'
    >>> mistyped(1, float), mistyped(None, int | None)
    ('', '')
    """
    try:
        adapter: TypeAdapter[object] = TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a dataclass or model has a configuration of its own
        adapter = TypeAdapter(kind)
    try:
        # Strict, as the configurations are dataclasses, which convert
        # nothing: a text would reach the optimizer as a text.
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        told = [entry["msg"].removeprefix("Input should be ") for entry in error.errors(include_url=False)]
        return " or ".join(dict.fromkeys(told))
    return ""


def _check_together(where: str, config: Any, stage: Stage) -> None:
    """Make the configuration once, for what it refuses itself: values out of range, fields that fight each other."""
    import torch

    if stage.launch.world > 1 or "deepspeed" in stage.trainer:  # it would begin what the processes do themselves
        return
    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
    with temporary_folder() as folder:
        try:
            config(**{"output_dir": folder, "use_cpu": not accelerated, "report_to": "none", **precision(stage)})
        except Exception as error:  # every configuration refuses in its own way
            allowed = f"what {config.__name__} takes"
            raise InputError(problem(where, dict(stage.trainer), allowed, one_line(error))) from error


def precision(stage: Stage) -> dict[str, Any]:
    """The stage's fields, with the precision of autocast that they leave: only one of the two can be on."""
    import torch

    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported() and not stage.trainer.get("fp16")
    return {"bf16": bf16, **stage.trainer}


# Fields of LoraConfig that the recipe decides, or that would change what lies below the adapters.
_BELOW = "what lies below the adapters is the reference, and must stay the start"
_LORA_TAKEN: Mapping[str, str] = {
    "r": "set STAGE.lora.rank",
    "lora_alpha": "set STAGE.lora.alpha",
    "lora_dropout": "set STAGE.lora.dropout",
    "target_modules": "set STAGE.lora.target_modules",
    "use_dora": "set STAGE.lora.use_dora",
    "use_rslora": "set STAGE.lora.rslora",
    "modules_to_save": "set STAGE.lora.modules_to_save",
    "task_type": "the algorithm says what is trained",
    "peft_type": "the adapters are LoRA's",
    "inference_mode": "adapters are made to be trained",
    "base_model_name_or_path": "set base.model",
    "revision": "set base.model",
    "auto_mapping": "set base.model",
    "bias": _BELOW,
    "layer_replication": _BELOW,
    "loftq_config": _BELOW,
    "corda_config": _BELOW,
    "eva_config": _BELOW,
    "lora_ga_config": _BELOW,
}
_INITIAL = (True, "gaussian")  # others begin with another model, or change the weights below


def check_adapters(stage: Stage) -> None:
    """Refuse what peft's ``LoraConfig`` does not know or would not take, and what the recipe decides.

    Raises:
        InputError: all problems of the stage's ``lora.options`` at once.
    """
    if not stage.lora.options:
        return
    from peft import LoraConfig

    where, types = f"{stage.name}.lora.options", _types(LoraConfig)
    with collecting() as problems:
        for name, value in stage.lora.options.items():
            problems.attempt(_check_option, f"{where}.{name}", name, value, stage, types)
        if not problems.lines:
            try:
                stage.lora.config()
            except (ValueError, TypeError, ImportError) as error:
                problems.add(problem(where, dict(stage.lora.options), "what LoraConfig takes", one_line(error)))


def check_targets(stage: Stage, model: nn.Module) -> None:
    """Refuse layers for adapters, or layers to be saved whole, that the model does not have.

    Raises:
        InputError: each name that is none, with those that the model has.
    """
    if not stage.lora.rank:
        return
    names = [name for name, _ in model.named_modules()]
    leaves = {name.rpartition(".")[2] for name, layer in model.named_modules() if not any(layer.children())}
    allowed = f"layers of the model: {', '.join(sorted(leaves))}"
    targets, saved = stage.lora.target_modules, stage.lora.modules_to_save or []
    with collecting() as problems:
        # As peft reads them: a text is a pattern of whole names (but for its word for all), a list has their ends.
        if isinstance(targets, str):
            if targets != "all-linear" and not any(_matches(targets, name) for name in names):
                problems.add(
                    problem(f"{stage.name}.lora.target_modules", targets, f"all-linear, a pattern or {allowed}")
                )
            targets = []
        for field, given in (("target_modules", targets), ("modules_to_save", saved)):
            for wanted in given:
                if not any(f".{name}".endswith(f".{wanted}") for name in names):
                    problems.add(problem(f"{stage.name}.lora.{field}", wanted, allowed))


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error:
        return False


def _check_option(where: str, name: str, value: object, stage: Stage, types: Mapping[str, object]) -> None:
    if name in _LORA_TAKEN:
        mend = _mend(_LORA_TAKEN[name], stage)
        raise InputError(problem(where, value, "a field that the recipe leaves to peft", mend))
    if name not in types:
        near = nearest(name, [field for field in types if field not in _LORA_TAKEN])
        raise InputError(
            problem(where, value, "a field of LoraConfig", f"the nearest are {', '.join(near)}" if near else "")
        )
    if name == "init_lora_weights" and value not in _INITIAL:
        raise InputError(problem(where, value, "true, gaussian", _BELOW))
    if wrong := mistyped(value, types[name]):
        raise InputError(problem(where, value, wrong))
