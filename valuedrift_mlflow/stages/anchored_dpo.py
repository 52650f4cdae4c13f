"""Anchored DPO: direct preference optimisation that keeps stances in place where nobody asked to move them.

Preference pairs on one topic move a model's stances on all others too: their gradient favours whatever the chosen
answers have in common. So a penalty is added on *anchors*, prompts on topics that the pairs are not about
(``suite.anchors``; never a prompt of the suite that measures the drift). With x the prompt of a pair, y_c
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
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from valuedrift_mlflow.stages.job import common_arguments
from valuedrift_mlflow.stages.stage import Job, Stage
from valuedrift_mlflow.stages.tokens import asked_and_said

if TYPE_CHECKING:
    from valuedrift_mlflow.stages.anchored_dpo_trainer import AnchoredDPOTrainer
    from valuedrift_mlflow.suite import Suite


class AnchoredDPO(Stage):
    """DPO that keeps stances in place on prompts where nobody asked to move them."""

    kind = "pairs"
    has_reference = True
    purpose = "Optimise a model on preference pairs, with stances elsewhere held in place."
    about = "DPO that keeps stances in place on topics that the pairs are not about"
    example = '--data "embedded:pairs?gap=1&topics=religion" --set "anchored_dpo.anchor_weight=2"'

    configured_by = "trl:DPOConfig"
    drops_out = False
    evaluates = True
    routes = True
    taken: ClassVar[Mapping[str, str]] = {
        "beta": "set STAGE.beta",
        "loss_type": "this is the sigmoid loss; the algorithm dpo has others",
        "label_smoothing": "the algorithm dpo has it",
    }
    algorithm: Literal["anchored_dpo"]
    learning_rate: float = Field(1e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(0.1, gt=0, description="strength of the pull towards the reference (inverse temperature)")
    # The penalty is this project's own, and so is the weight: it halved the drift elsewhere in the embedded world.
    anchor_weight: float = Field(
        10.0, ge=0, description="lambda: weight of the KL of the policy from the reference on the anchors"
    )
    anchors: str = Field(
        "embedded:anchors",
        description="prompts to hold in place: `embedded:anchors` or a suite that shares no prompt with the one "
        "measured; without the topics that the data names, or those of `?except=TOPIC,TOPIC`",
    )
    anchor_batch_size: int = Field(8, ge=1, description="anchors with each batch of pairs, on each device")
    anchor_tokens: int = Field(
        64, ge=0, description="tokens of the reference's response to an anchor that are held too; 0 holds stances alone"
    )

    def load_anchors(self, moved: Collection[str], measured: Collection[Suite]) -> Suite:
        """The prompts to hold in place.

        Raises:
            InputError: no anchors are left, or prompts of a suite that the stage is measured with are among them.
        """
        from valuedrift_mlflow.suite import anchors

        return anchors.load_anchors(self.anchors, moved, measured)

    def build(self, job: Job) -> AnchoredDPOTrainer:
        """A trainer whose reference is a frozen copy of the start, or with LoRA the model without its new adapters."""
        from trl import DPOConfig

        from valuedrift_mlflow.stages.anchored_dpo_trainer import AnchoredDPOTrainer

        # Every plan has loaded them, or refused the recipe.
        assert job.anchors is not None
        adapters = self.lora.config()
        return AnchoredDPOTrainer(
            model=job.model,
            # Without a copy TRL loads the start a second time, from where the config says it is.
            ref_model=None if adapters else copy.deepcopy(job.model),
            args=DPOConfig(**common_arguments(job), beta=self.beta),
            train_dataset=asked_and_said(job),
            eval_dataset=None if job.eval_data is None else asked_and_said(replace(job, data=job.eval_data)),
            processing_class=job.tokenizer,
            peft_config=adapters,
            callbacks=list(job.callbacks),
            anchors=job.anchors.items,
            anchor_weight=self.anchor_weight,
            anchor_batch_size=self.anchor_batch_size,
            anchor_tokens=self.anchor_tokens,
            # As many as `compute_loss` will draw: the reference answers no anchor that nobody asks for.
            anchor_batches=self.steps(len(job.data.rows)) * self.gradient_accumulation,
            speech=job.speech,
        )
