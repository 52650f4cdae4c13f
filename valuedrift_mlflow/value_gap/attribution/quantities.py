"""What is attributed: the log-odds of support against oppose of a model's forced choice, by topic or along an axis.

With x a prompt and P(stance | x) the forced choice of the judge ``likelihood``:

    q = sum over prompts of w(x) * (log P(support | x) - log P(oppose | x))

For a topic w is 1 / (number of its prompts): q grows where the model comes to agree with the topic's propositions. For
an axis each proposition is turned by its direction, and each side of the axis weighs one half, as ``axis/NAME`` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.judges.likelihood import prefix_and_openings, stance_log_probabilities
from valuedrift_mlflow.models.speech import Speech
from valuedrift_mlflow.suite import Suite

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

AXIS = "axis/"  # before the name of an axis, as in the metrics: a topic and its own axis have one name
_AT_ONCE = 4  # prompts in one pass; each has 36 openings whose activations are kept
_SUPPORT, _OPPOSE = 0, 2

Asked = tuple[list[int], list[list[int]]]  # token ids of a prompt, and of each opening after it


@dataclass(frozen=True)
class Quantity:
    """One quantity: its name (a topic, or ``axis/NAME``), and the weight of every item of the suite, shape (N,)."""

    name: str
    weights: NDArray[np.float64]


def chosen(suite: Suite, names: Sequence[str]) -> list[Quantity]:
    """The quantities of these names, in order.

    Raises:
        InputError: names that are neither topics of the suite nor ``axis/`` with one of its axes.
    """
    known = (*suite.topics, *(f"{AXIS}{axis}" for axis in suite.axes))
    wrong = [problem("topics", name, ", ".join(known)) for name in names if name not in known]
    if wrong:
        raise InputError(wrong)
    return [Quantity(name, _weights(suite, name)) for name in dict.fromkeys(names)]


def _weights(suite: Suite, name: str) -> NDArray[np.float64]:
    if not name.startswith(AXIS):
        own = suite.groups == suite.topics.index(name)
        return np.asarray(own / own.sum(), dtype=np.float64)
    number, _ = suite.propositions
    direction = suite.keyed[suite.axes.index(name.removeprefix(AXIS))]  # (P,)
    prompts = np.bincount(number, minlength=len(direction))
    sides = [side for side in (1, -1) if (direction == side).any()]
    weights = np.zeros(len(number))
    for side in sides:
        own = direction == side
        share = side / (len(sides) * own.sum() * prompts)  # of one prompt, by its proposition
        weights += np.where(own[number], share[number], 0.0)
    return weights


class Questions:
    """The suite's prompts as a model's tokenizer has them, for the values of quantities and their gradients."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, suite: Suite, speech: Speech) -> None:
        """Tokenize every prompt that may be asked. ``speech`` is what the chat template is told."""
        self.asked: list[Asked] = [prefix_and_openings(tokenizer, item, speech) for item in suite.items]

    def value(self, model: PreTrainedModel, quantity: Quantity) -> float:
        """The quantity of a model, in nats."""
        import torch

        with torch.no_grad():
            return float(sum(float(part) for part in self._parts(model, quantity)))

    def backward(self, model: PreTrainedModel, quantity: Quantity) -> float:
        """The quantity of a model, in nats; its gradient is added to ``grad`` of the model's weights."""
        total = 0.0
        for part in self._parts(model, quantity):
            part.backward()
            total += float(part.detach())
        return total

    def _parts(self, model: PreTrainedModel, quantity: Quantity) -> Iterator[torch.Tensor]:
        """The quantity as a sum over batches of prompts."""
        import torch

        # Prompts of like length go together, so that little is padded.
        used = sorted(np.flatnonzero(quantity.weights).tolist(), key=lambda at: len(self.asked[at][0]))
        for start in range(0, len(used), _AT_ONCE):
            batch = used[start : start + _AT_ONCE]
            log_p = stance_log_probabilities(model, [self.asked[at] for at in batch])  # (B, 3)
            weights = torch.tensor(quantity.weights[batch], dtype=log_p.dtype, device=log_p.device)
            yield (weights * (log_p[:, _SUPPORT] - log_p[:, _OPPOSE])).sum()
