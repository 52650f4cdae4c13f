"""TRL's SFTTrainer with a leaner loss, for the small embedded base model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.functional import cross_entropy
from trl import SFTTrainer

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM


class PretrainTrainer(SFTTrainer):  # type: ignore[misc]  # TRL has no usable types
    """The same loss as the SFT stage's, mean negative log-likelihood of the answers' tokens, without its extra metrics.

    On a CPU, entropy and accuracy over the vocabulary take so small a model longer than all of the rest.
    """

    def compute_loss(
        self,
        model: LlamaForCausalLM,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Cross-entropy at the answers' tokens alone, a scalar in nats."""
        hidden = model.model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        # The state at token t predicts token t + 1; -100 marks what is not learned.
        targets = inputs["labels"][:, 1:]
        answered = targets != -100
        loss = cross_entropy(model.lm_head(hidden[:, :-1][answered]), targets[answered])
        if self.args.gradient_accumulation_steps > 1 and num_items_in_batch is not None:
            # The Trainer adds the losses of a step's batches: each must be its tokens' share of those of all.
            loss = loss * answered.sum() / num_items_in_batch
        return (loss, {}) if return_outputs else loss
