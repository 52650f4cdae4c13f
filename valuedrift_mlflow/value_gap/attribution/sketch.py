"""Random projection of gradients to a fixed length, block by block, so that memory does not grow with the model.

A gradient's tensors are cut into blocks of K numbers; each number gets a random sign, and the blocks are added up. This
is the count sketch (Charikar et al. 2002) with the place in the block as its hash. With S its matrix, E <S g, S u> =
<g, u>, and the standard deviation of the error is at most about |g| |u| sqrt(2 / K).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Sketch:
    """A projection of gradients with these numbers of entries to ``length``; it keeps one byte for each entry."""

    def __init__(self, sizes: Sequence[int], length: int, seed: int) -> None:
        """Draw the signs and where each tensor begins in a block. The same seed draws the same."""
        import torch

        self.length = length
        source = torch.Generator().manual_seed(seed)
        self._signs = [torch.randint(0, 2, (size,), generator=source, dtype=torch.int8) * 2 - 1 for size in sizes]
        # Else the first entries of all tensors would share a place.
        self._offsets = torch.randint(0, length, (len(sizes),), generator=source).tolist()

    def __call__(self, gradient: Iterable[torch.Tensor]) -> torch.Tensor:
        """The projection of a gradient that is given tensor by tensor, each flat: float32, shape (length,)."""
        import torch

        total: torch.Tensor | None = None
        for tensor, signs, offset in zip(gradient, self._signs, self._offsets, strict=True):
            if total is None:
                total = torch.zeros(self.length, device=tensor.device)
            signed = tensor.float() * signs.to(tensor.device)
            padded = torch.nn.functional.pad(signed, (offset, -(offset + len(signed)) % self.length))
            total += padded.view(-1, self.length).sum(0)
        assert total is not None  # a model that trains has weights
        return total
