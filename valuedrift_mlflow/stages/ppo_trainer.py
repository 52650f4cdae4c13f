"""Proximal policy optimisation of a language model with a value head, on transformers' Trainer.

One rollout: the policy answers ``per_device_train_batch_size * gradient_accumulation_steps`` prompts on each process,
a reward function rates the answers, and every token gets a reward, -beta * KL from the reference, with the rating at
the last one. Generalised advantage estimates follow. Then come ``ppo_epochs`` optimizer steps on that rollout, each on
all of its tokens, which minimise (Schulman et al. 2017, eqs. 7 and 9; Ouyang et al. 2022, appendix C.4)

    mean over tokens of  -min(rho_t A_t, clip(rho_t, 1 - eps, 1 + eps) A_t)  +  value_weight * L_value(t)

The pieces are in ``ppo_math``. The policy is pi(a|s) = softmax(logits / temperature): what is sampled, what the ratio
rho and the KL are made of, are one distribution. The reference is the model at the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import GenerationConfig, StoppingCriteriaList, Trainer, TrainingArguments
from trl.trainer.utils import disable_dropout_in_model, entropy_from_logits, selective_log_softmax

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.rows import Record
from valuedrift_mlflow.inputs.thoughts import before_stop
from valuedrift_mlflow.models.calling import takes_positions
from valuedrift_mlflow.models.ending import end_tokens, only_these_settings, pad_token
from valuedrift_mlflow.models.generation import evaluation_mode
from valuedrift_mlflow.models.reference import reference_of
from valuedrift_mlflow.models.speech import Speech, as_text
from valuedrift_mlflow.models.stopping import rollout_ends
from valuedrift_mlflow.stages.ppo_math import (
    advantages_and_returns,
    clipped_policy_loss,
    clipped_value_loss,
    kl_estimate,
    masked_moments,
    token_rewards,
    whiten,
)
from valuedrift_mlflow.stages.prompt_order import PromptSampler
from valuedrift_mlflow.stages.rewards import RewardFunction, rate

if TYPE_CHECKING:
    import datasets
    from peft import PeftConfig
    from torch.utils.data import DataLoader
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

    from valuedrift_mlflow.data.messages import Message
    from valuedrift_mlflow.stages.ppo_keys import Objective

VALUE_HEAD = "value_head.safetensors"
# What every update logs, in this order: means over the rollout's responses or tokens.
METRICS = ("reward", "kl", "policy_loss", "value_loss", "clip_fraction", "entropy", "response_length")


class TokenEstimates(NamedTuple):
    """What the model says of each response token, all of shape (n, R).

    Attributes:
        log_probs: log pi(a_t|s_t) in nats.
        values: V(s_t), before the token is drawn.
        entropy: of pi(.|s_t) in nats, without gradient.
    """

    log_probs: torch.Tensor
    values: torch.Tensor
    entropy: torch.Tensor


class PolicyWithValue(nn.Module):
    """A causal language model and a linear value head on its last hidden states, which starts at zero output.

    One module, so that one optimizer, one ``prepare()`` and one backward pass serve both. The head reads the hidden
    states and leaves them alone: its loss sends no gradient into the policy. With it, returns that grow (a large
    ``beta`` suffices) take over the clipped gradient and carry the policy away from the reference, which makes them
    grow further: in the embedded world 160 steps with ``beta`` 1 ended at a KL of 2.4 nats a token, without it at 0.07.
    """

    def __init__(self, policy: PreTrainedModel) -> None:
        """Keep the policy, with or without adapters, and add the head."""
        super().__init__()
        self.policy = policy
        width = policy.config.get_text_config().hidden_size
        self.value_head = nn.Linear(width, 1, device=policy.device, dtype=torch.float32)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    @property
    def config(self) -> PreTrainedConfig:
        """The policy's."""
        return self.policy.config

    @property
    def generation_config(self) -> GenerationConfig | None:
        """The policy's."""
        return self.policy.generation_config

    def activation_checkpointing_enable(self, **settings: Any) -> None:
        """Recompute the policy's activations in the backward pass."""
        self.policy.activation_checkpointing_enable(**settings)

    def forward(
        self, sequences: torch.Tensor, attention: torch.Tensor, width: int, temperature: float
    ) -> TokenEstimates:
        """Estimates for the last ``width`` tokens of every sequence.

        Args:
            sequences: token ids, prompts padded on the left and responses on the right, shape (n, P + R).
            attention: 1 at tokens, 0 at padding, shape (n, P + R).
            width: R.
            temperature: of the policy.
        """
        logits, hidden = _response_outputs(self.policy, sequences, attention, width, temperature)
        with torch.no_grad():
            entropy = entropy_from_logits(logits.detach())
        values = self.value_head(hidden.detach().to(self.value_head.weight.dtype)).squeeze(-1).float()
        return TokenEstimates(selective_log_softmax(logits, sequences[:, -width:]), values, entropy)


def _response_outputs(
    policy: PreTrainedModel, sequences: torch.Tensor, attention: torch.Tensor, width: int, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tempered logits (n, R, vocabulary) and last hidden states (n, R, hidden) from which response tokens are drawn."""
    # Padding on the left takes no positions; there the sum is 0, and -1 is none.
    positions = {"position_ids": (attention.cumsum(dim=1) - 1).clamp(min=0)} if takes_positions(policy) else {}
    output = policy(
        input_ids=sequences,
        attention_mask=attention,
        **positions,
        logits_to_keep=width + 1,  # a token is drawn from the logits one place before it
        output_hidden_states=True,
        use_cache=False,
    )
    return output.logits[:, -width - 1 : -1].float() / temperature, output.hidden_states[-1][:, -width - 1 : -1]


@dataclass(frozen=True)
class Rollout:
    """Responses of one process, what the policy and the reference said of them, and what the reward was.

    Attributes:
        sequences: token ids, prompts padded on the left and responses on the right, shape (n, P + R).
        attention: 1 at tokens, 0 at padding, shape (n, P + R).
        mask: True at response tokens, end token included, shape (n, R).
        log_probs: of the response tokens under the policy that drew them, in nats, shape (n, R).
        values: of that policy's value head, shape (n, R).
        advantages: shape (n, R).
        returns: what the value head learns, shape (n, R).
        kl: estimate of the KL from the reference at each token in nats, shape (n, R).
        scores: the reward function's ratings, shape (n,).
        tokens: response tokens a process in the mean over all processes, scalar.
    """

    sequences: torch.Tensor
    attention: torch.Tensor
    mask: torch.Tensor
    log_probs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    kl: torch.Tensor
    scores: torch.Tensor
    tokens: torch.Tensor

    def rows(self, start: int, stop: int) -> Rollout:
        """Some of the responses; ``tokens`` stays that of the whole."""
        return Rollout(**{name: t if name == "tokens" else t[start:stop] for name, t in vars(self).items()})


class PPOTrainer(Trainer):
    """Trains a causal language model by PPO against a reward function; see the module for the objective.

    Callbacks get the policy itself as ``model``, so that those written for any language model can generate with it,
    save it and merge its adapters. A checkpoint is the policy as ``save_pretrained`` writes it (the adapter alone for
    LoRA) with ``value_head.safetensors`` beside it; those of the Trainer also hold optimizer, scheduler, random states
    and, in the middle of a rollout, the rollout, so that a resumed training ends with the weights of an uninterrupted
    one.

    Attributes:
        model: a PolicyWithValue, wrapped where the Trainer shards it.
        reference: opens the reference: a frozen copy of the start, or the policy with its adapters switched off.
    """

    args: TrainingArguments
    model: Any
    train_dataset: datasets.Dataset
    processing_class: PreTrainedTokenizerBase

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        settings: Objective,
        reward: RewardFunction,
        train_dataset: datasets.Dataset,
        processing_class: PreTrainedTokenizerBase,
        peft_config: PeftConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
        speech: Speech | None = None,
    ) -> None:
        """Settings.

        Args:
            model: what the training starts from. Its dropout is switched off: with it the ratio would not start at 1.
            args: of every Trainer; ``max_steps`` counts optimizer steps, and unused columns are kept.
            settings: of PPO.
            reward: rates responses.
            train_dataset: columns ``prompt`` (messages, for the reward) and ``prompt_ids`` (tokens, for the policy).
            processing_class: the tokenizer.
            peft_config: adapters to train instead of the whole model.
            callbacks: of the training.
            speech: how the policy is made to speak: what ends a response beside its end tokens, and whether the chat
                template opens a thought.

        Raises:
            InputError: there are fewer prompts than one rollout takes.
        """
        policy: Any = model
        if peft_config is not None:
            from peft import get_peft_model

            policy = get_peft_model(model, peft_config)
        disable_dropout_in_model(policy)
        super().__init__(
            model=policy,
            args=args,
            data_collator=_as_they_are,
            train_dataset=train_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
        )
        self.model = self.model_wrapped = PolicyWithValue(policy)  # only now: callbacks have seen the policy
        self.model_accepts_loss_kwargs = False  # the Trainer would count labels, of which a rollout has none
        self.settings = settings
        self.reward = reward
        self.speech = speech or Speech()
        self.opening = self.speech.opening(processing_class)
        self.reference = reference_of(policy)
        self.rollout_size = self._train_batch_size * args.gradient_accumulation_steps
        self.loss_is_scaled_for_ga = True  # the loss of a part is already its share of the whole rollout's
        self._rollout: Rollout | None = None
        self._part = 0  # which part of the rollout the next backward pass is for
        self._metrics: list[torch.Tensor] = []
        everywhere = self.rollout_size * self.accelerator.num_processes
        if len(train_dataset) < everywhere:
            raise InputError(
                problem(
                    "data",
                    f"{len(train_dataset)} prompts",
                    f"at least {everywhere}, the prompts of one rollout (batch size x accumulation x processes)",
                    "give more prompts or lower the batch size",
                )
            )

    def get_train_dataloader(self) -> DataLoader[Record]:
        """Batches of a whole rollout's prompts, each given as often as the rollout is used."""
        return self._get_dataloader(
            dataset=self.train_dataset,
            description="Training",
            batch_size=self.rollout_size,
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )

    def _get_train_sampler(self, train_dataset: object = None) -> PromptSampler:
        args, prompts, uses = self.args, self.train_dataset, self.settings.ppo_epochs
        return PromptSampler(
            prompts,
            responses=1,
            batch_size=self.rollout_size * self.accelerator.num_processes,
            repeats=uses * args.gradient_accumulation_steps,
            updates=uses,
            seed=args.seed,
            step=lambda: self.state.global_step,
        )

    def _prepare_for_training(self, *arguments: object, **named: object) -> object:
        prepared = super()._prepare_for_training(*arguments, **named)  # type: ignore[no-untyped-call]
        self.callback_handler.model = self.model.policy
        return prepared

    def _prepare_inputs(self, inputs: Any) -> Any:
        """Prompts to a part of the rollout; a new rollout is made where the last one is used up."""
        if self._rollout is None or (self._part == 0 and self.state.global_step % self.settings.ppo_epochs == 0):
            self._rollout = self.collect(inputs)
        start = self._part * self._train_batch_size
        self._part = (self._part + 1) % self.args.gradient_accumulation_steps
        return self._rollout.rows(start, start + self._train_batch_size)

    def collect(self, rows: Sequence[Record]) -> Rollout:
        """Answer prompts, rate the answers and work out advantages and returns.

        Args:
            rows: of the training data.

        Raises:
            FloatingPointError: a rating is NaN or infinite; the message has the step.
        """
        with torch.no_grad(), self.accelerator.autocast():
            sequences, attention, mask, ended = self._answer([row["prompt_ids"] for row in rows])
            log_probs, values, reference_log_probs = self._estimates(sequences, attention, mask.shape[1])
        settings = self.settings
        scores = self._rate([row["prompt"] for row in rows], sequences, mask)
        kl = kl_estimate(log_probs, reference_log_probs, mask)
        rewards = token_rewards(scores - settings.missing_eos_penalty * ~ended, kl, mask, settings.beta)
        if settings.whiten_rewards:
            rewards = whiten(rewards, mask, self._moments(rewards, mask), shift=False)
        advantages, returns = advantages_and_returns(rewards, values, mask, settings.gamma, settings.gae_lambda)
        if settings.whiten_advantages:
            advantages = whiten(advantages, mask, self._moments(advantages, mask))
        tokens = self.accelerator.reduce(mask.sum().float(), "mean")
        return Rollout(sequences, attention, mask, log_probs, values, advantages, returns, kl, scores, tokens)

    def _answer(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, ...]:
        """One response to each prompt: sequences, attention, mask (n, R), and which responses have ended (n,).

        A response ends with an end token or with the last token of a text of ``stop``; the policy has drawn that too,
        so that it is a part of the response, and nothing behind it is. The draws depend on the seed, the step and the
        process alone, and the global random state is left as it was.
        """
        policy, device = self.model.policy, self.args.device
        longest = max(map(len, prompts))
        ends = end_tokens(policy, self.processing_class)
        pad = pad_token(self.processing_class, ends)
        ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in prompts], device=device)
        known = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=device)
        sampling = GenerationConfig(
            do_sample=True,
            temperature=self.settings.rollout_temperature,
            top_k=0,  # transformers' 50 would sample another distribution than the ratio and the KL are made of
            max_new_tokens=self.settings.response_length,
            eos_token_id=ends or None,
            pad_token_id=pad,
        )
        seed = np.random.SeedSequence([self.args.seed, self.state.global_step, self.accelerator.process_index])
        gpus = [device] if device.type == "cuda" else []
        with evaluation_mode(policy), only_these_settings(policy, sampling), torch.random.fork_rng(gpus):
            torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))
            stops = rollout_ends(
                self.processing_class, self.speech, self.settings.response_length, longest, len(prompts)
            )
            reading = StoppingCriteriaList([stops] if stops else [])
            sequences = policy.generate(input_ids=ids, attention_mask=known, stopping_criteria=reading)
        end = torch.isin(sequences[:, longest:], torch.tensor(ends, dtype=torch.long, device=device))
        if stops:
            for row, kept in enumerate(stops.kept):
                if stops.stopped[row] and kept is not None:
                    end[row, kept - 1] = True
        mask = end.cumsum(dim=1) - end.long() == 0  # up to the first end, and that too
        return sequences, torch.cat([known, mask.long()], dim=1), mask, end.any(dim=1)

    def _rate(self, prompts: Sequence[Sequence[Message]], sequences: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The reward function's ratings of the responses as text, shape (n,)."""
        responses = [ids[kept].tolist() for ids, kept in zip(sequences[:, -mask.shape[1] :], mask, strict=True)]
        said = (self.opening + text for text in as_text(self.processing_class, responses))
        texts = [before_stop(text, self.speech.stop) for text in said]
        try:
            return rate(self.reward, prompts, texts).to(mask.device)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error} at step {self.state.global_step + 1}") from error

    def _estimates(self, sequences: torch.Tensor, attention: torch.Tensor, width: int) -> tuple[torch.Tensor, ...]:
        """Log-probabilities and values of the policy and log-probabilities of the reference, each (n, R).

        In parts as large as those of the backward passes: sums in another order would put the first ratio off 1.
        """
        temperature = self.settings.rollout_temperature
        parts = list(zip(sequences.split(self._train_batch_size), attention.split(self._train_batch_size), strict=True))
        policy = [self.model(*part, width, temperature) for part in parts]
        with self.reference() as model:
            reference = [
                selective_log_softmax(_response_outputs(model, *part, width, temperature)[0], part[0][:, -width:])
                for part in parts
            ]
        return (
            torch.cat([part.log_probs for part in policy]),
            torch.cat([part.values for part in policy]),
            torch.cat(reference),
        )

    def _moments(self, values: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance over the tokens of all processes."""
        gathered = [  # padding turns truth values into integers, in the processes that are padded alone
            self.accelerator.gather(self.accelerator.pad_across_processes(tensor, dim=1))
            for tensor in (values, mask.long())
        ]
        return masked_moments(gathered[0], gathered[1].bool())

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, TokenEstimates]:
        """The objective's share of a part of a rollout; the parts of a rollout add up to its mean over tokens."""
        rollout: Rollout = inputs
        mask, settings = rollout.mask, self.settings
        fresh: TokenEstimates = model(rollout.sequences, rollout.attention, mask.shape[1], settings.rollout_temperature)
        policy_losses, clipped = clipped_policy_loss(
            fresh.log_probs, rollout.log_probs, rollout.advantages, mask, settings.clip_range
        )
        value_losses = clipped_value_loss(
            fresh.values, rollout.values, rollout.returns, mask, settings.value_clip_range
        )
        policy_loss, value_loss, kl, clip_fraction, entropy = (
            per_token.masked_fill(~mask, 0).sum() / rollout.tokens
            for per_token in (policy_losses, value_losses, rollout.kl, clipped.float(), fresh.entropy)
        )
        reward, length = rollout.scores.sum() / self.rollout_size, mask.sum() / self.rollout_size
        logged = (reward, kl, policy_loss, value_loss, clip_fraction, entropy, length)
        self._metrics.append(torch.stack([number.detach().float() for number in logged]))
        loss = policy_loss + settings.value_weight * value_loss
        return (loss, fresh) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with PPO's own numbers beside the loss: means over the steps since the last time."""
        if "loss" in logs and self._metrics:
            sums = torch.stack(self._metrics).sum(dim=0)
            steps = len(self._metrics) / self.args.gradient_accumulation_steps
            means = self.accelerator.reduce(sums / steps, "mean").tolist()
            logs |= dict(zip(METRICS, means, strict=True))
            self._metrics = []
        super().log(logs, start_time)

    @contextmanager
    def _policy_alone(self) -> Iterator[PolicyWithValue]:
        """Let the Trainer save and load the policy as it does any language model."""
        whole, self.model = self.model, self.model.policy
        try:
            yield whole
        finally:
            self.model = whole

    def _save(self, output_dir: str | None = None, state_dict: Record | None = None) -> None:
        with self._policy_alone() as whole:
            super()._save(output_dir, state_dict)
        if self.args.should_save:
            save_value_head(whole, Path(output_dir or str(self.args.output_dir)))

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        super()._save_checkpoint(model, trial)
        if (
            self._rollout is not None
            and self.state.global_step % self.settings.ppo_epochs
            and not self.args.save_only_model
        ):
            folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
            torch.save(vars(self._rollout), folder / self._rollout_file())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        from safetensors.torch import load_file

        with self._policy_alone() as whole:
            super()._load_from_checkpoint(resume_from_checkpoint)
        folder = Path(resume_from_checkpoint)
        whole.value_head.load_state_dict(load_file(folder / VALUE_HEAD))
        kept = folder / self._rollout_file()
        if kept.is_file():
            tensors = torch.load(kept, map_location="cpu", weights_only=True)
            self._rollout = Rollout(**{name: tensor.to(self.args.device) for name, tensor in tensors.items()})

    def _rollout_file(self) -> str:
        return f"rollout_{self.accelerator.process_index}.pt"


def save_value_head(model: PolicyWithValue, folder: Path) -> None:
    """Write ``value_head.safetensors``: weight (1, hidden) and bias (1,)."""
    from safetensors.torch import save_file

    save_file(
        {name: tensor.contiguous() for name, tensor in model.value_head.state_dict().items()}, folder / VALUE_HEAD
    )


def _as_they_are(rows: list[Record]) -> Any:
    """Rows of the data, not collated: prompts are padded where they are answered."""
    return rows
