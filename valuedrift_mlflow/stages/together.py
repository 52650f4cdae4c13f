"""What the processes of one training decide together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def anywhere(mine: bool, device: torch.device) -> bool:
    """Whether it is so in any process of this training; all of them must ask, at the same place."""
    import torch
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return mine
    told = torch.tensor(int(mine), device=device)
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return bool(told.item())
