"""How far a training has moved a model from its start, without a copy of the start: what it said is kept instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from valuedrift_mlflow.models.reference import padded, response_log_probabilities

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Exchange = tuple[list[int], list[int]]  # token ids of a prompt and of its response
_KEPT = 2**24  # bytes of log-probabilities
_LOGITS = 2**25  # of one forward pass: 128 MB in 32 bits
_ROWS = 32  # at once: bounds what is padded where a small vocabulary would let rows of any length be one batch


@dataclass(frozen=True)
class Start:
    """What a model held likely at every token of fixed responses.

    Attributes:
        exchanges: prompts and responses, the shortest first.
        likeliest: (T, K) the K likeliest tokens at each of the T tokens of all responses.
        log_probabilities: (T, K + 1) theirs, and that of all other tokens together, in nats.
    """

    exchanges: list[Exchange]
    likeliest: torch.Tensor
    log_probabilities: torch.Tensor

    def write(self, file: Path) -> None:
        """Write it with all digits."""
        lengths = np.array([[len(part) for part in exchange] for exchange in self.exchanges], dtype=np.int64)
        ids = np.array([token for exchange in self.exchanges for part in exchange for token in part], dtype=np.int64)
        with file.open("wb") as opened:
            np.savez(
                opened,
                lengths=lengths.reshape(-1, 2),
                ids=ids,
                likeliest=self.likeliest.numpy(),
                log_probabilities=self.log_probabilities.numpy(),
            )

    @classmethod
    def read(cls, file: Path) -> Start:
        """Read what ``write`` has written."""
        import torch

        with np.load(file, allow_pickle=False) as kept:
            parts = np.split(kept["ids"], np.cumsum(kept["lengths"].ravel())[:-1])
            ids = [part.tolist() for part in parts] if len(kept["ids"]) else []
            exchanges = list(zip(ids[::2], ids[1::2], strict=True))
            return cls(exchanges, *(torch.from_numpy(kept[name]) for name in ("likeliest", "log_probabilities")))


def start_of(model: PreTrainedModel, exchanges: Sequence[Exchange], kept: int = _KEPT) -> Start:
    """What a model holds likely now; ``kept`` is about how many bytes of it are kept. Empty responses are left out."""
    import torch

    asked = sorted((pair for pair in exchanges if pair[1]), key=lambda pair: len(pair[0]) + len(pair[1]))
    tokens = sum(len(response) for _, response in asked)
    likeliest, log_probabilities = [torch.zeros(0, 1, dtype=torch.int32)], [torch.zeros(0, 2)]
    for log_p in _log_probabilities(model, asked):
        count = max(1, min(log_p.shape[1], kept // (8 * tokens)))  # 4 bytes for a token and 4 for its number
        top = log_p.topk(count, dim=1).indices
        likeliest.append(top.int().cpu())
        log_probabilities.append(_cells(log_p, top).cpu())
    empty = int(len(likeliest) > 1)  # what stands there for no exchanges at all is of no width
    return Start(asked, torch.cat(likeliest[empty:]), torch.cat(log_probabilities[empty:]))


def reference_kl(policy: PreTrainedModel, start: Start) -> float:
    """KL of the policy from the start on fixed responses, nats per token, at least 0.

    At every token of the responses the KL between the two next-token distributions, sum_c pi(c) (log pi(c) - log
    start(c)) as RLHF's penalty has it, averaged over all tokens. c goes over the tokens that the start held likeliest
    and one more cell for all others: by the data processing inequality the sum is at most that over the whole
    vocabulary, and misses only what moves within the start's tail. A vocabulary that is kept whole has no tail.
    """
    import torch

    total, at = 0.0, 0
    for log_p in _log_probabilities(policy, start.exchanges):
        here = slice(at, at + len(log_p))
        own = _cells(log_p, start.likeliest[here].long().to(log_p.device))
        known = start.log_probabilities[here].to(log_p.device)
        terms = torch.where(own.isneginf(), 0.0, own.exp() * (own - known))  # 0 log 0 is 0
        total, at = total + float(terms.sum()), here.stop
    return max(0.0, total / at) if at else 0.0


def _cells(log_p: torch.Tensor, likeliest: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (T, V) of chosen tokens (T, K), and of all others together: (T, K + 1)."""
    import torch

    # Summed over the others, not 1 minus the chosen ones: of a small rest that would leave rounding alone.
    rest = log_p.scatter(1, likeliest, float("-inf")).logsumexp(dim=1, keepdim=True)
    return torch.cat([log_p.gather(1, likeliest), rest], dim=1)


def _log_probabilities(model: PreTrainedModel, exchanges: Sequence[Exchange]) -> Iterator[torch.Tensor]:
    """Next-token log-probabilities at every token of the responses, in order: (tokens of some exchanges, V) each."""
    import torch

    vocabulary, at = int(model.config.get_text_config().vocab_size), 0
    with torch.no_grad():
        while at < len(exchanges):
            rows = 1
            # Rows of like length stand together, so that little is padded.
            while rows < min(_ROWS, len(exchanges) - at):
                longest = sum(map(len, exchanges[at + rows]))
                if (rows + 1) * longest * vocabulary > _LOGITS:
                    break
                rows += 1
            yield response_log_probabilities(model, *padded(exchanges[at : at + rows], model.device))
            at += rows
