"""Anchored DPO: direct preference optimisation that keeps stances in place where nobody asked to move them.

Preference pairs on one topic move a model's stances on all others too: their gradient favours whatever the chosen
answers have in common. So a penalty is added on *anchors*, prompts on topics that the pairs are not about
(``valuedrift_mlflow.anchors``; never a prompt of the suite that measures the drift). With x the prompt of a pair, y_c
and y_r its chosen and rejected answer, a an anchor, pi the policy and ref the model that the stage starts from:

    L     = L_DPO + lambda * mean over anchors of (S(a) + T(a))
    L_DPO = -log sigmoid(beta * ((log pi(y_c|x) - log ref(y_c|x)) - (log pi(y_r|x) - log ref(y_r|x))))
    S(a)  = sum over stances s of ref(s|a) * (log ref(s|a) - log pi(s|a))
    T(a)  = 1/n * sum over j = 1 ... n of KL(ref(.|a, y_1 ... y_(j-1)) || pi(.|a, y_1 ... y_(j-1))),  y from ref(.|a)

L_DPO is eq. 7 of Rafailov et al. 2023. S is the KL between the stance distributions of the two models: P(stance | x) of
the judge ``likelihood``, a forced choice between 36 openings of an answer, differentiated through. T is the KL between
the next-token distributions, over the first ``anchor_tokens`` tokens of one response of the reference to the anchor
(with 0 of them, T = 0). The loss before the first step is ln 2, and S = T = 0.

Direction. Both are KL(ref || pi), forward from the reference. It is finite only where the policy keeps every stance
that the reference takes, and its gradient in the policy's stance logits is pi - ref: it stays large where a stance is
all but lost. That of KL(pi || ref) goes to 0 with the probability of what was lost. And as its expectation is over the
reference, which never changes, stances and responses of the reference are found once, before the first step.

Why T. The forced choice asks in words of its own, after "Some say: ...". In the embedded world it hardly sees what DPO
does: with pairs on one topic alone the stances of generated answers on the other ten drifted by 0.53 (total variation;
0.07 is noise), those of the forced choice by 0.07. There is little for S to hold, and a large lambda for it is paid for
on the pairs. T has no such blind spot: n * T is, in expectation, the KL between the distributions of responses (chain
rule), and no reading of responses, a judge's stance among them, can differ by more KL than they do (data processing).
But T also holds how answers are worded, and what the topics share: the stances on the pairs' own topic move less.

    embedded world, 40 steps of 16 pairs   drift of the other ten   drift on the topic   held-out accuracy
    DPO                                              0.53                  0.42                0.98
    S,     lambda  10, 4 anchors                     0.28                  0.27                0.965
    S,     lambda  10, 8 anchors                     0.26                  0.27                0.955
    S,     lambda  30, 8 anchors                     0.23                  0.25                0.90
    S,     lambda 100, 8 anchors                     0.17                  0.14                0.89
    S + T, lambda   5, 4 anchors                     0.27                  0.29                0.985
    S + T, lambda  10, 4 anchors                     0.22                  0.19                0.975

One run each; drift is by the judge ``lexical`` on 2 responses a prompt, and accuracy the share of 200 held-out pairs
whose chosen answer has the higher implicit reward. With another seed of data and training the first row is 0.51, 0.37
and 0.98, the last one 0.21, 0.15 and 0.97.

Scale. S is in nats a choice and T in nats a token, both means over anchors, so lambda depends neither on batch sizes
nor on the length of responses. S is at least 2 * TV^2, with TV the total variation between the stance distributions
(Pinsker's inequality): a drift of 0.1 costs lambda * 0.02 or more. To weigh against a DPO loss that falls from ln 2 by
some tenths, lambda must be of the order of 10.

Cost of a batch over that of DPO. S: ``anchor_batch_size`` prefixes through the policy and 36 short continuations of
each, read from the prefixes' cache, with their activations kept (layers are not checkpointed there). T:
``anchor_batch_size`` rows of prompt and response through the policy and, without gradients, the reference. On the
embedded model 4 anchors with 16 pairs made a step 3 to 4 times as long. Before the first step every anchor that will
be drawn goes through the reference once for S and is answered once for T.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from trl import DPOConfig, DPOTrainer
from trl.models.utils import disable_gradient_checkpointing

from valuedrift_mlflow import anchors
from valuedrift_mlflow.generation import Sampling, TransformersGenerator, encode, evaluation_mode
from valuedrift_mlflow.judges.likelihood import prefix_and_openings, stance_log_probabilities
from valuedrift_mlflow.measurement import no_progress
from valuedrift_mlflow.recipe import AnchoredDPO
from valuedrift_mlflow.reference import padded, reference_of, response_log_probabilities
from valuedrift_mlflow.stages import Job, common_arguments, lora_config, total_steps
from valuedrift_mlflow.stages.lengths import fit
from valuedrift_mlflow.suite import Item

_ORDER = 5  # tells the draw of anchors apart from what else is drawn with the stage's seed


class AnchoredDPOTrainer(DPOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's DPO trainer with the penalty of this module.

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
        **settings: Any,
    ) -> None:
        """Find what the reference does on the anchors that will be drawn.

        Args:
            anchors: the prompts to hold in place.
            anchor_weight: lambda.
            anchor_batch_size: anchors with every batch of pairs, on each device.
            anchor_tokens: longest response of the reference to an anchor in tokens; 0 leaves T out.
            anchor_batches: batches of pairs that the whole training has on one device.
            settings: those of ``DPOTrainer``; its reference is the reference here.
        """
        super().__init__(**settings)
        self.anchors = anchors
        self.anchor_weight = anchor_weight  # with 0 the penalty is only logged
        self.anchor_batch_size = anchor_batch_size
        self._place = (-1, 0)  # step, and batches of it so far
        drawn = sorted({index for number in range(anchor_batches) for index in self.drawn(number)})
        tokenizer, prompts = self.processing_class, [anchors[index].prompt for index in drawn]
        self.prompts = dict(zip(drawn, encode(tokenizer, prompts), strict=True))
        self.choices = {index: prefix_and_openings(tokenizer, anchors[index]) for index in drawn}
        with self._reference() as model, evaluation_mode(model), self.accelerator.autocast():
            self.stances = self._reference_stances(model)
            self.responses = self._reference_responses(model, prompts, anchor_tokens) if anchor_tokens else {}

    def _reference(self) -> AbstractContextManager[Any]:
        """The model that the stage started from, for as long as the context is open."""
        return nullcontext(self.ref_model) if self.ref_model is not None else reference_of(self.model)()

    def _reference_stances(self, model: Any) -> dict[int, torch.Tensor]:
        """The reference's log P(stance | anchor), shape (3,), for every anchor that will be drawn."""
        drawn = list(self.choices)
        stances: dict[int, torch.Tensor] = {}
        for start in range(0, len(drawn), self.anchor_batch_size):
            batch = drawn[start : start + self.anchor_batch_size]
            found = stance_log_probabilities(model, [self.choices[index] for index in batch])
            stances.update(zip(batch, found, strict=True))
        return stances

    def _reference_responses(self, model: Any, prompts: Sequence[str], longest: int) -> dict[int, list[int]]:
        """Token ids of one response of the reference, at temperature 1, to every anchor that will be drawn."""
        tokenizer = self.processing_class
        sampling = Sampling(1, 1.0, longest, seed=self.args.seed, salt="anchors")
        answers = TransformersGenerator(model, tokenizer).generate(prompts, prompts, sampling, no_progress)
        space = " " if tokenizer.chat_template is None else ""
        encoded = tokenizer([space + text for (text,) in answers], add_special_tokens=False)["input_ids"]
        ended = [[*ids, tokenizer.eos_token_id][:longest] for ids in encoded]
        return dict(zip(self.prompts, ended, strict=True))

    def drawn(self, number: int) -> list[int]:
        """The anchors, by their indices, that go with batch ``number`` of this process, counted from 0."""
        count, processes = len(self.anchors), self.accelerator.num_processes
        first = (number * processes + self.accelerator.process_index) * self.anchor_batch_size
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
        share = torch.tensor([1 / len(response) for _, response in rows for _ in response], device=kl.device)
        return (kl * share).sum() / len(rows)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """DPO's loss and, in training, the penalty on the next anchors.

        The policy reads the anchors outside the wrapper of several processes, which has seen the pairs: one backward
        pass has both, and its gradients are averaged over the processes once.
        """
        loss: torch.Tensor = super().compute_loss(model, inputs)
        if not self.model.training:
            return loss
        step, done = self._place
        self._place = (self.state.global_step, done + 1 if step == self.state.global_step else 0)
        batch = self.drawn(self._place[0] * self.args.gradient_accumulation_steps + self._place[1])
        with self.accelerator.autocast():
            penalty = stance_kl = self.stance_kl(batch)
            self._log("anchor_kl", stance_kl)
            if self.responses:
                token_kl = self.token_kl(batch)
                self._log("anchor_token_kl", token_kl)
                penalty = stance_kl + token_kl
        self._log("dpo_loss", loss)
        return loss + self.anchor_weight * penalty

    def _log(self, name: str, value: torch.Tensor) -> None:
        self._metrics["train"][name].append(self.accelerator.gather(value.detach()).mean().item())


def build(job: Job) -> AnchoredDPOTrainer:
    """A trainer whose reference is a frozen copy of the start, or with LoRA the model without its new adapters.

    Raises:
        InputError: no anchors are left, or prompts of a suite that the stage is measured with are among them.
    """
    stage = job.stage
    assert isinstance(stage, AnchoredDPO)
    suites = [callback.suite for callback in job.callbacks if hasattr(callback, "suite")]
    held = anchors.load(stage.anchors, job.data.stance_mix, suites)
    adapters = lora_config(stage)
    return AnchoredDPOTrainer(
        model=job.model,
        ref_model=None if adapters else copy.deepcopy(job.model),
        args=DPOConfig(**common_arguments(job), beta=stage.beta),
        train_dataset=fit(job),
        processing_class=job.tokenizer,
        peft_config=adapters,
        callbacks=list(job.callbacks),
        anchors=held.items,
        anchor_weight=stage.anchor_weight,
        anchor_batch_size=stage.anchor_batch_size,
        anchor_tokens=stage.anchor_tokens,
        anchor_batches=total_steps(stage, len(job.data.rows)) * stage.gradient_accumulation,
    )
