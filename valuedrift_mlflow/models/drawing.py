"""The next token from logits and a random number: the same wherever a model in memory is sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


def drawn(logits: Tensor, at: Tensor, temperature: float) -> Tensor:
    """Next tokens, (rows,), by inverting each row's cumulative distribution at its number; greedy at temperature 0.

    Args:
        logits: (rows, vocabulary).
        at: numbers in [0, 1), float32, (rows,).
        temperature: divides the logits.
    """
    import torch

    if temperature == 0:
        return logits.argmax(dim=-1)
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).cumsum_(dim=-1)
    # Sums in 32 bits end near 1, not at it, so the number is scaled to where they end. right=True: a number of 0
    # must not draw a token of probability 0.
    tokens = torch.searchsorted(cumulative, (at * cumulative[:, -1]).unsqueeze(-1), right=True)
    return tokens.squeeze(-1).clamp_(max=logits.shape[-1] - 1)  # a scaled number may round up to the last sum


class SeededSampling:
    """Draws as a logits processor before greedy decoding: it leaves only the drawn token.

    With ``do_sample`` transformers would draw from the global random state, which is not touched here.
    """

    def __init__(self, numbers: NDArray[np.float64], temperature: float, prompt_width: int) -> None:
        """Keep the random numbers (rows, tokens) and how many tokens the padded prompts have."""
        self.numbers = numbers
        self.temperature = temperature
        self.prompt_width = prompt_width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores that leave one token a row."""
        import torch

        numbers = self.numbers[:, input_ids.shape[1] - self.prompt_width]
        at = torch.tensor(numbers, dtype=torch.float32, device=scores.device)
        tokens = drawn(scores, at, self.temperature)
        return torch.full_like(scores, float("-inf")).scatter(-1, tokens.unsqueeze(-1), 0.0)
