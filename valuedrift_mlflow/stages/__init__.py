"""Post-training stages: one file for each algorithm, with its settings, its formula and what builds its trainer."""

from __future__ import annotations

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.parts import Registry
from valuedrift_mlflow.stages import own
from valuedrift_mlflow.stages.anchored_dpo import AnchoredDPO
from valuedrift_mlflow.stages.dpo import DPO
from valuedrift_mlflow.stages.grpo import GRPO
from valuedrift_mlflow.stages.kto import KTO
from valuedrift_mlflow.stages.orpo import ORPO
from valuedrift_mlflow.stages.ppo import PPO
from valuedrift_mlflow.stages.pretrain import Pretrain
from valuedrift_mlflow.stages.reward import Reward
from valuedrift_mlflow.stages.rloo import RLOO
from valuedrift_mlflow.stages.sft import SFT
from valuedrift_mlflow.stages.simpo import SimPO
from valuedrift_mlflow.stages.stage import Stage

ALGORITHMS: dict[str, type[Stage]] = {
    "pretrain": Pretrain,
    "sft": SFT,
    "dpo": DPO,
    "anchored_dpo": AnchoredDPO,
    "simpo": SimPO,
    "orpo": ORPO,
    "kto": KTO,
    "reward": Reward,
    "ppo": PPO,
    "grpo": GRPO,
    "rloo": RLOO,
}
_CLASSES: Registry[type[Stage]] = Registry(
    "valuedrift_mlflow.algorithms",
    "Stage",
    {name: f"{kind.__module__}:{kind.__name__}" for name, kind in ALGORITHMS.items()},
)


def stage_class(algorithm: object, field: str = "algorithm") -> type[Stage]:
    """The class of an algorithm, as a recipe's stage names it.

    Besides those of this package it is ``module:Stage``, or the name that an installed package gives a class.

    Raises:
        InputError: no such algorithm, or what a user brings cannot be imported or is no stage.
    """
    if not isinstance(algorithm, str):
        raise InputError(problem(field, algorithm, ", ".join((*ALGORITHMS, "module:Stage"))))
    given = _CLASSES.get(algorithm, field)
    return ALGORITHMS[algorithm] if algorithm in ALGORITHMS else own.named(given, algorithm, field)
