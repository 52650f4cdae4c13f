"""What GRPO and RLOO share: groups of responses sampled for each prompt, rated by the stage's reward."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, ClassVar, Literal, Self, TypeVar

from pydantic import Field, model_validator

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.thoughts import before_stop
from valuedrift_mlflow.stages.job import Arguments, common_arguments
from valuedrift_mlflow.stages.lengths import fit
from valuedrift_mlflow.stages.stage import Job, Online
from valuedrift_mlflow.stages.start import start_folder

if TYPE_CHECKING:
    from transformers import TrainerState
    from trl import GRPOConfig, RLOOConfig

    from valuedrift_mlflow.data.messages import Message
    from valuedrift_mlflow.stages.group_trainers import ResumableGroups

Built = TypeVar("Built", bound="ResumableGroups")


class Groups(Online):
    """Stages that compare the responses to a prompt with each other."""

    drops_out = False
    routes = True
    taken: ClassVar[Mapping[str, str]] = {
        "num_generations": "set STAGE.generations",
        "max_completion_length": "set STAGE.response_length",
        "temperature": "set STAGE.rollout_temperature",
        "beta": "set STAGE.beta",
        "use_vllm": "set STAGE.backend: vllm",
        "vllm_mode": "set STAGE.vllm_mode",
        "vllm_server_base_url": "set STAGE.vllm_server",
    }

    backend: Literal["transformers", "vllm"] = Field(
        "transformers", description="what samples the responses: the model itself, or vLLM with its weights"
    )
    vllm_mode: Literal["colocate", "server"] = Field(
        "colocate", description="vLLM on the same GPUs, or as a server that `trl vllm-serve` has started"
    )
    vllm_server: str | None = Field(None, description="address of that server, such as `http://gpu1:8000`")
    # Without a default: each algorithm's authors have another.
    generations: int = Field(ge=2, description="responses sampled for each prompt; `batch_size` is a multiple of it")

    @model_validator(mode="after")
    def _batches_hold_whole_groups(self) -> Self:
        if self.batch_size % self.generations:
            allowed = f"a multiple of generations ({self.generations})"
            mend = "a batch counts responses, not prompts"
            raise InputError(problem(f"{self.name}.batch_size", self.batch_size, allowed, mend))
        return self

    @model_validator(mode="after")
    def _server_is_named(self) -> Self:
        serving = self.backend == "vllm" and self.vllm_mode == "server"
        where = f"{self.name}.vllm_server"
        if self.backend != "vllm" and self.vllm_mode != "colocate":
            raise InputError(problem(f"{self.name}.vllm_mode", self.vllm_mode, "nothing without backend: vllm"))
        if self.vllm_server is not None and not serving:
            allowed = "nothing without backend: vllm and vllm_mode: server"
            raise InputError(problem(where, self.vllm_server, allowed))
        if serving and not re.match(r"https?://", self.vllm_server or ""):
            raise InputError(problem(where, self.vllm_server, "the address of a server, such as http://gpu1:8000"))
        return self

    def check_here(self) -> None:
        """Refuse vLLM where it is not installed, or has no GPU."""
        if self.backend != "vllm":
            return
        where = f"{self.name}.backend"
        if importlib.util.find_spec("vllm") is None:
            mend = "pip install 'trl[vllm]' on a machine with GPUs"
            raise InputError(problem(where, "vllm", "transformers: the library vllm is not installed", mend))
        import torch

        if not torch.cuda.is_available():
            raise InputError(problem(where, "vllm", "transformers: there is no GPU here"))

    def steps_an_epoch(self, rows: int, batch: int) -> int:
        """Optimizer steps of one pass: a batch counts responses, and prompts that fill none are left out."""
        return rows // (batch // self.generations)

    def arguments(self, job: Job) -> Arguments:
        """What TRL's two trainers are told alike; one step is one update on freshly sampled responses."""
        common = common_arguments(job)
        del common["max_length"]  # the prompts are fitted already, and the responses have a length of their own
        return {
            **common,
            "num_generations": self.generations,
            "max_completion_length": self.response_length,
            "temperature": self.rollout_temperature,
            # TRL renders the prompts itself: it must tell the template what measurements tell it.
            "chat_template_kwargs": job.speech.arguments(job.tokenizer),
            **self._sampling(job),
            # With dropout the first KL would not be 0, nor the first ratio 1.
            "disable_dropout": self.trainer.get("disable_dropout", True),
        }

    def _sampling(self, job: Job) -> Arguments:
        """What samples, as TRL calls it, and what vLLM is told of the texts that end a response."""
        if self.backend != "vllm":
            return {}
        told: Arguments = {"use_vllm": True, "vllm_mode": self.vllm_mode}
        if self.vllm_server is not None:
            told["vllm_server_base_url"] = self.vllm_server
        if not job.speech.stop:
            return told
        given = self.trainer.get("generation_kwargs")
        own = dict(given) if isinstance(given, dict) else {}
        listed = own.get("stop") or []
        stops = [listed] if isinstance(listed, str) else list(listed) if isinstance(listed, list) else []
        return {**told, "generation_kwargs": {**own, "stop": list(dict.fromkeys([*stops, *job.speech.stop]))}}

    def assembled(self, job: Job, kind: Callable[..., Built], arguments: GRPOConfig | RLOOConfig) -> Built:
        """One of the two trainers on the prompts of the stage, rated by its reward.

        Both load the reference from the folder or hub id that the model's config names. With LoRA it is the model
        without its new adapters, and with a ``beta`` of 0 there is none.
        """
        with nullcontext() if self.lora.rank or not arguments.beta else start_folder(job):
            trainer = kind(
                model=job.model,
                reward_funcs=reward_function(job),
                args=arguments,
                train_dataset=fit(job),
                processing_class=job.tokenizer,
                peft_config=self.lora.config(),
                callbacks=list(job.callbacks),
            )
        trainer.speech = job.speech
        return trainer


def reward_function(job: Job) -> Callable[..., list[float]]:
    """The stage's reward as TRL calls it."""
    from valuedrift_mlflow.stages.rewards import rate

    rated_by, opening, stop = job.reward, job.speech.opening(job.tokenizer), job.speech.stop
    assert rated_by is not None

    # TRL hands over columns of the rows by their names: `asked` is the one that `lengths.fit` has added.
    def reward(
        completions: list[str | list[Message]], asked: list[list[Message]], trainer_state: TrainerState, **_: object
    ) -> list[float]:
        said = (opening + (text if isinstance(text, str) else text[-1]["content"]) for text in completions)
        try:
            # With the mark that the template has opened: without it a thought would read like an answer.
            return [float(value) for value in rate(rated_by, asked, [before_stop(text, stop) for text in said])]
        except FloatingPointError as error:  # TRL itself would leave such responses out and go on
            raise FloatingPointError(f"{error} at step {trainer_state.global_step + 1}") from error

    return reward
