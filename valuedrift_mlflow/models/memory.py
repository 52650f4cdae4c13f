"""How many rows a device has memory for, and what it says where it has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SHARE = 0.5  # of what is free; the rest is for what a forward pass needs meanwhile
_LOGITS = 4  # copies of a row's logits while a token is drawn, 32 bits each
# Rows beyond these make no row cheaper: `benchmarks/sampling.py --rows`.
_MOST = {"cpu": 256}
_MOST_ELSEWHERE = 1024


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    import torch

    if device.type == "cuda":
        # What torch holds and does not use is free too.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    import psutil

    return int(psutil.virtual_memory().available)


def rows_at_once(device: torch.device, tokens: int, token_bytes: float, vocabulary: int) -> int:
    """Rows of ``tokens`` tokens, of ``token_bytes`` keys and values each, that are answered together."""
    each = tokens * token_bytes + vocabulary * 4 * _LOGITS
    return max(1, min(int(free_bytes(device) * _SHARE / each), _MOST.get(device.type, _MOST_ELSEWHERE)))


def is_short(error: RuntimeError) -> bool:
    """Whether an error says that there is no memory left."""
    import torch

    # The CPU has no error of its own for it.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
