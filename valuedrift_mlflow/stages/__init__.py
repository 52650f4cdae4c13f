"""Post-training stages: one file for each algorithm, with its settings, its formula and what builds its trainer."""

from __future__ import annotations

from valuedrift_mlflow.inputs.errors import InputError, problem
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


def stage_class(algorithm: object, field: str = "algorithm") -> type[Stage]:
    """The class of an algorithm, as a recipe's stage names it.

    Raises:
        InputError: no such algorithm.
    """
    if isinstance(algorithm, str) and algorithm in ALGORITHMS:
        return ALGORITHMS[algorithm]
    raise InputError(problem(field, algorithm, ", ".join(ALGORITHMS)))
