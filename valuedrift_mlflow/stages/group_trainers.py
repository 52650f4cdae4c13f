"""TRL's trainers of GRPO and RLOO, which go on where they stopped and read a response as it was sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import StoppingCriteriaList
from trl import GRPOTrainer, RLOOTrainer

from valuedrift_mlflow.models.calling import takes_positions
from valuedrift_mlflow.models.speech import Speech
from valuedrift_mlflow.models.stopping import rollout_ends
from valuedrift_mlflow.stages.prompt_order import PromptSampler

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerState
    from trl import GRPOConfig, RLOOConfig

Tokens = list[int]


class LastToken(int):
    """The last token of a response that a text of ``stop`` has ended: equal to every token, those that end one too.

    TRL takes a response whose last token is no end token for one that was cut off: in its statistics of lengths, and
    with ``mask_truncated_completions`` in the loss.
    """

    def __eq__(self, other: object) -> bool:
        """Whether TRL may take it for this one."""
        return isinstance(other, int)

    __hash__ = int.__hash__


class ResumableGroups:
    """A mixin for TRL's two trainers: a resumed training sees the prompts in the order of an uninterrupted one.

    A response also ends with a text of ``stop``, as it does where it is measured; the tokens of that text have been
    drawn and belong to it, and nothing behind them does. And padding takes no positions. TRL pads prompts on the left
    and passes no position ids; a model with learned positions (GPT-2, GPT-Neo) would then read other log-probabilities
    than those it sampled with, by the longest prompt of the batch.
    """

    accelerator: Any
    args: GRPOConfig | RLOOConfig
    model_wrapped: nn.Module
    num_generations: int
    processing_class: PreTrainedTokenizerBase
    speech: Speech = Speech()  # how the policy is made to speak
    state: TrainerState
    train_dataset: Sized

    def _get_train_sampler(self, dataset: Sized | None = None) -> PromptSampler:
        args = self.args
        return PromptSampler(
            self.train_dataset if dataset is None else dataset,
            responses=self.num_generations,
            batch_size=args.generation_batch_size // self.num_generations,
            repeats=args.steps_per_generation,
            updates=args.steps_per_generation // args.gradient_accumulation_steps,
            seed=args.seed,
            step=lambda: self.state.global_step,
        )

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        sampler: Any = super()
        with self._stopping(self.accelerator.unwrap_model(self.model_wrapped)):
            made = sampler._generate_single_turn(*args, **kwargs)
        if isinstance(made, tuple):  # GRPO's has the sampler's log-probabilities beside the tokens
            return self._up_to_their_ends(*made)
        return self._up_to_their_ends(made, None)[0]

    @contextmanager
    def _stopping(self, model: nn.Module) -> Iterator[None]:
        """Let a model that generates stop at texts; TRL has no argument for what its criteria of stopping are."""
        generate: Any = model.generate

        def stopped(*args: Any, input_ids: torch.Tensor, **kwargs: Any) -> Any:
            rows, width = input_ids.shape
            ends = rollout_ends(self.processing_class, self.speech, self._longest, width, rows)
            criteria = StoppingCriteriaList([ends] if ends else [])
            return generate(*args, input_ids=input_ids, stopping_criteria=criteria, **kwargs)

        model.generate = stopped  # type: ignore[assignment]  # for as long as this is open
        try:
            yield
        finally:
            del model.generate

    def _up_to_their_ends(
        self, said: Sequence[Tokens], log_probs: Sequence[list[float]] | None
    ) -> tuple[list[Tokens], list[list[float]] | None]:
        """Responses without what stands behind a text that ends them: padding, or what another sampler went on to say.

        Args:
            said: tokens of each response.
            log_probs: of these tokens, in nats, where the sampler gives them.
        """
        tokenizer, responses = self.processing_class, [list(tokens) for tokens in said]
        numbers = None if log_probs is None else [list(row) for row in log_probs]
        ends = rollout_ends(tokenizer, self.speech, self._longest, 0, len(responses))
        if ends is None:
            return responses, numbers
        texts = tokenizer.batch_decode(responses)
        for row, tokens in enumerate(responses):
            if any(stop in texts[row] for stop in self.speech.stop):
                ends.read(row, tokens)
            kept = ends.kept[row]
            if ends.stopped[row] and kept is not None:
                responses[row] = [*tokens[: kept - 1], LastToken(tokens[kept - 1])]
                if numbers is not None:
                    numbers[row] = numbers[row][:kept]
        return responses, numbers

    @property
    def _longest(self) -> int:
        return int(self.args.max_completion_length or 0)

    def _get_per_token_logps_and_entropies(
        self, model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        with own_positions(self.accelerator.unwrap_model(model), attention_mask):
            per_token: Any = super()  # TRL's method, of either trainer
            return per_token._get_per_token_logps_and_entropies(model, input_ids, attention_mask, *args, **kwargs)


@contextmanager
def own_positions(model: nn.Module, attention: torch.Tensor) -> Iterator[None]:
    """Let a model count positions from its rows' first tokens, in the forward passes within.

    Args:
        model: one that takes no position ids is left alone.
        attention: 1 at tokens, 0 at padding, shape (n, L); the passes take its rows in order, some at a time.
    """
    if not takes_positions(model):
        yield
        return
    # Padding on the left takes no positions; there the sum is 0, and -1 is none.
    positions = (attention.cumsum(dim=1) - 1).clamp(min=0)
    row = 0

    def add(
        _: nn.Module, args: tuple[object, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[object, ...], dict[str, Any]]:
        nonlocal row
        count = len(kwargs["input_ids"])
        kwargs["position_ids"], row = positions[row : row + count], row + count
        return args, kwargs

    # On the outermost: PEFT calls the forward of what it wraps, past its hooks.
    hook = model.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


class ResumableGRPOTrainer(ResumableGroups, GRPOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer, which goes on where it stopped."""


class ResumableRLOOTrainer(ResumableGroups, RLOOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer, which goes on where it stopped."""
