"""The trainer of anchored DPO; the objective and why it is so stand in ``anchored_dpo``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from trl.models.utils import disable_gradient_checkpointing

from valuedrift_mlflow.inputs.rows import Record
from valuedrift_mlflow.judges.likelihood import prefix_and_openings, stance_log_probabilities
from valuedrift_mlflow.models.calling import is_sharded
from valuedrift_mlflow.models.generation import PLAIN, Sampling, TransformersGenerator, encode, evaluation_mode
from valuedrift_mlflow.models.reference import Reference, padded, reference_of, response_log_probabilities
from valuedrift_mlflow.models.speech import Speech
from valuedrift_mlflow.stages.token_trainers import TokenDPOTrainer
from valuedrift_mlflow.suite import Item

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

_ORDER = 5  # tells the draw of anchors apart from what else is drawn with the stage's seed


class AnchoredDPOTrainer(TokenDPOTrainer):
    """TRL's DPO trainer with the penalty of ``anchored_dpo``.

    It also logs the mean of each term on its own: ``dpo_loss``, ``anchor_kl`` (S) and ``anchor_token_kl`` (T).

    Anchors are drawn without replacement, round after round; which ones a batch gets depends on the seed and on the
    number of the batch alone, so that a resumed training draws what it would have drawn.
    """

    def __init__(
        self,
        *,
        anchors: Sequence[Item],
        anchor_weight: float,
        anchor_batch_size: int,
        anchor_tokens: int,
        anchor_batches: int,
        speech: Speech = PLAIN,
        **settings: object,
    ) -> None:
        """Find what the reference does on the anchors that will be drawn.

        Args:
            anchors: the prompts to hold in place.
            anchor_weight: lambda.
            anchor_batch_size: anchors with every batch of pairs, on each device.
            anchor_tokens: longest response of the reference to an anchor in tokens; 0 leaves T out.
            anchor_batches: batches of pairs that the whole training has on one device.
            speech: what the chat template is told; anchors are asked as measured prompts are, without a thought.
            settings: those of ``DPOTrainer``; its reference is the reference here.
        """
        super().__init__(**settings)
        self.anchors = anchors
        self.speech = replace(speech, thinking=False)
        self.anchor_weight = anchor_weight  # with 0 the penalty is only logged
        self.anchor_batch_size = anchor_batch_size
        self._place = (-1, 0)  # step, and batches of it so far
        # Where the weights are split, every process takes part in each forward pass: all of them ask all anchors.
        asking = range(self.accelerator.num_processes) if is_sharded(self.model) else [self.accelerator.process_index]
        drawn = sorted(
            {index for number in range(anchor_batches) for process in asking for index in self.drawn(number, process)}
        )
        tokenizer, prompts = self.processing_class, [anchors[index].prompt for index in drawn]
        self.prompts = dict(zip(drawn, encode(tokenizer, prompts, self.speech), strict=True))
        self.choices = {index: prefix_and_openings(tokenizer, anchors[index], self.speech) for index in drawn}
        # Made here, before the first step: what is asked for later would be the reference of what was trained by then.
        frozen = self.ref_model
        self._reference: Reference = (lambda: nullcontext(frozen)) if frozen is not None else reference_of(self.model)
        # In the precision in which the policy will read the same anchors: S and T must begin at 0.
        with self._reference() as model, evaluation_mode(model), self.accelerator.autocast():
            self.stances = self._reference_stances(model)
            self.responses = self._reference_responses(model, prompts, anchor_tokens) if anchor_tokens else {}

    def _reference_stances(self, model: PreTrainedModel) -> dict[int, torch.Tensor]:
        """The reference's log P(stance | anchor), shape (3,), for every anchor that will be drawn."""
        drawn = list(self.choices)
        stances: dict[int, torch.Tensor] = {}
        for start in range(0, len(drawn), self.anchor_batch_size):
            batch = drawn[start : start + self.anchor_batch_size]
            found = stance_log_probabilities(model, [self.choices[index] for index in batch])
            stances.update(zip(batch, found, strict=True))
        return stances

    def _reference_responses(
        self, model: PreTrainedModel, prompts: Sequence[str], longest: int
    ) -> dict[int, list[int]]:
        """Token ids of one response of the reference, at temperature 1, to every anchor that will be drawn."""
        tokenizer = self.processing_class
        # At temperature 1: T's expectation is over what the reference says, not over a sharpened version of it.
        sampling = Sampling(1, 1.0, longest, seed=self.args.seed, salt="anchors", speech=self.speech)
        answers = TransformersGenerator(model, tokenizer).generate(prompts, prompts, sampling, lambda _: None)
        # Generation strips the space with which a base model goes on after "Response:".
        space = " " if tokenizer.chat_template is None else ""
        encoded = tokenizer([space + text for (text,) in answers], add_special_tokens=False)["input_ids"]
        # A response of the longest length was cut, so that no end stands behind it.
        ended = [[*ids, tokenizer.eos_token_id][:longest] for ids in encoded]
        return dict(zip(self.prompts, ended, strict=True))

    def drawn(self, number: int, process: int | None = None) -> list[int]:
        """The anchors, by their indices, that go with batch ``number`` of a process (this one), counted from 0."""
        count, processes = len(self.anchors), self.accelerator.num_processes
        process = self.accelerator.process_index if process is None else process
        # Processes take turns: no two of them hold the same anchors in one round.
        first = (number * processes + process) * self.anchor_batch_size
        places = range(first, first + self.anchor_batch_size)
        return [int(self._order(place // count)[place % count]) for place in places]

    def _order(self, round_: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.args.seed, _ORDER, round_]).permutation(len(self.anchors))

    def stance_kl(self, batch: Sequence[int]) -> torch.Tensor:
        """Mean of S over anchors, in nats, at least 0."""
        log_ref = torch.stack([self.stances[index] for index in batch])  # (A, 3)
        # The openings are read from the prefixes' cache, which checkpointed layers do not keep.
        with disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            log_pi = stance_log_probabilities(self.model, [self.choices[index] for index in batch])
        return (log_ref.exp() * (log_ref - log_pi)).sum(-1).mean()

    def token_kl(self, batch: Sequence[int]) -> torch.Tensor:
        """Mean of T over anchors, in nats a token, at least 0."""
        rows = [(self.prompts[index], self.responses[index]) for index in batch]
        tokens_of = padded(rows, self.accelerator.device)
        with torch.no_grad(), self._reference() as reference:
            log_ref = response_log_probabilities(reference, *tokens_of)
        log_pi = response_log_probabilities(self.model, *tokens_of)
        kl = (log_ref.exp() * (log_ref - log_pi)).sum(-1)  # (tokens of all responses,)
        # The mean within each response first: else long responses would count for more anchors than one.
        share = torch.tensor([1 / len(response) for _, response in rows for _ in response], device=kl.device)
        return (kl * share).sum() / len(rows)

    def compute_loss(
        self, model: nn.Module, inputs: Record, return_outputs: bool = False, num_items_in_batch: object = None
    ) -> torch.Tensor:
        """DPO's loss and, in training, the penalty on the next anchors.

        The policy reads the anchors outside the wrapper of several processes, which has seen the pairs: one backward
        pass has both, and its gradients are averaged over the processes once.
        """
        loss: torch.Tensor = super().compute_loss(model, inputs)
        # Held-out pairs: the anchors that were prepared are those of the batches that are trained on.
        if not self.model.training:
            return loss
        # Counted from the trainer's own step: a training that is resumed begins in the middle.
        step, done = self._place
        self._place = (self.state.global_step, done + 1 if step == self.state.global_step else 0)
        batch = self.drawn(self._place[0] * self.args.gradient_accumulation_steps + self._place[1])
        with self.accelerator.autocast():
            penalty = stance_kl = self.stance_kl(batch)
            self._log("anchor_kl", stance_kl)
            # Without tokens to hold (anchor_tokens 0) the reference has answered nothing.
            if self.responses:
                token_kl = self.token_kl(batch)
                self._log("anchor_token_kl", token_kl)
                penalty = stance_kl + token_kl
        self._log("dpo_loss", loss)
        return loss + self.anchor_weight * penalty

    def _log(self, name: str, value: torch.Tensor) -> None:
        # TRL's own store: it logs the mean of each list beside the loss, and begins it anew.
        self._metrics["train"][name].append(self.accelerator.gather(value.detach()).mean().item())
