"""The balancing loss of a mixture of experts' router: its weight, and a logged loss without it.

The router's loss (Fedus et al. 2022, eq. 4) keeps experts evenly used. It is no part of what an algorithm's paper calls
its loss: with it DPO would not start at ln 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stages.stage import Job


def router_weight(job: Job) -> float:
    """The weight of the router's loss in a training: the stage's, else what the model's own configuration asks for.

    Raises:
        InputError: the stage gives a weight, and the model is no mixture of experts.
    """
    config: Any = job.model.config.get_text_config()
    given, mixture = job.stage.router_loss, hasattr(config, "output_router_logits")
    if given and not mixture:
        found = f"{given} for a {type(job.model).__name__}"
        raise InputError(problem(f"{job.stage.name}.router_loss", found, "0: the model is no mixture of experts"))
    if given is not None:
        return given
    return float(getattr(config, "router_aux_loss_coef", 0.0)) if mixture and config.output_router_logits else 0.0


@contextmanager
def without_router_loss(model: PreTrainedModel) -> Iterator[None]:
    """While a trainer is made that adds the router's loss where the model's configuration asks for router logits."""
    config: Any = model.config
    asked = getattr(config, "output_router_logits", None)
    if asked:
        config.output_router_logits = False
    try:
        yield
    finally:
        if asked:
            config.output_router_logits = asked


class WithoutRouterLoss(TrainerCallback):
    """Takes the router's part out of every logged loss; the trainer logs the part itself as ``aux_loss``."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Subtract it in the log that the next callbacks see, and in the trainer's own."""
        weight = float(getattr(args, "router_aux_loss_coef", None) or 0.0)
        if not weight:
            return
        # The Trainer has put a copy into its history before it tells its callbacks: both are mended.
        for entry in (logs, state.log_history[-1] if state.log_history else None):
            for mode in ("", "eval_"):
                if entry is not None and {f"{mode}loss", f"{mode}aux_loss"} <= set(entry):
                    entry[f"{mode}loss"] -= weight * entry[f"{mode}aux_loss"]
