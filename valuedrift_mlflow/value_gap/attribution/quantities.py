"""What is attributed, by topic or along an axis: the forced choice of a model, or the answers that it gave.

``choice``, with x a prompt and P(stance | x) the forced choice of the judge ``likelihood``, in nats:

    q = sum over prompts of w(x) * (log P(support | x) - log P(oppose | x))

``answers``, with y the answers that were sampled at a checkpoint and s(y) in [-1, 1] their leaning, P(support) -
P(oppose) by the judge of the run: q is the measured leaning, sum over prompts of w(x) * mean s(y). Its gradient is that
of the expectation over answers (Williams 1992), with m the mean leaning of all answers:

    grad q = sum over prompts of w(x) * mean over answers of (s(y) - m) * grad log p(y | x)

For a topic w is 1 / (number of its prompts): q grows where the model comes to agree with the topic's propositions. For
an axis each proposition is turned by its direction, and each side of the axis weighs one half, as ``axis/NAME`` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.evaluation.measurement import Measurement
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.judges.likelihood import prefix_and_openings, stance_log_probabilities
from valuedrift_mlflow.models.generation import encode
from valuedrift_mlflow.models.reference import padded, response_log_probabilities
from valuedrift_mlflow.models.speech import Speech
from valuedrift_mlflow.suite import Suite

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

AXIS = "axis/"  # before the name of an axis, as in the metrics: a topic and its own axis have one name
_AT_ONCE = 4  # prompts in one pass; each has 36 openings whose activations are kept
_ANSWERS = 16  # answers in one pass
_SUPPORT, _OPPOSE = 0, 2

Asked = tuple[list[int], list[list[int]]]  # token ids of a prompt, and of each opening after it
Exchange = tuple[list[int], list[int]]  # token ids of a prompt and of its answer


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

    def value(self, model: PreTrainedModel, quantity: Quantity, step: int = 0) -> float:
        """The quantity of a model, in nats."""
        import torch

        with torch.no_grad():
            return float(sum(float(part) for part in self._parts(model, quantity)))

    def backward(self, model: PreTrainedModel, quantity: Quantity, step: int = 0) -> float:
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


class Measure(Protocol):
    """A way of having a quantity of a model and its gradient."""

    def value(self, model: PreTrainedModel, quantity: Quantity, step: int = 0) -> float:
        """The quantity of the model of a step."""
        ...

    def backward(self, model: PreTrainedModel, quantity: Quantity, step: int = 0) -> float:
        """The same; its gradient is added to ``grad`` of the model's weights."""
        ...


class Answers:
    """The answers that a run has judged at its steps, for the leaning of quantities and its gradient."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        measurements: Sequence[Measurement],
        speech: Speech,
        temperature: float,
        longest: int,
    ) -> None:
        """Tokenize the answers of all steps.

        Args:
            tokenizer: of the model.
            measurements: of the steps at which the quantity will be asked for.
            speech: what the chat template is told.
            temperature: at which the answers were sampled; 0 is taken as 1.
            longest: tokens of the longest answer: one that has as many was cut, and no end stands behind it.
        """
        self._temperature = temperature or 1.0
        place = {item.item_id: at for at, item in enumerate(measurements[0].suite.items)}
        space = " " if tokenizer.chat_template is None else ""
        self._said: dict[int, list[tuple[int, float, Exchange]]] = {}
        for one in measurements:
            # A verdict without probabilities has no leaning.
            scored = [
                (judged, judged.verdict.probabilities) for judged in one.responses if judged.verdict.probabilities
            ]
            asked = encode(tokenizer, [judged.item.prompt for judged, _ in scored], speech)
            said = tokenizer([space + judged.response for judged, _ in scored], add_special_tokens=False)["input_ids"]
            self._said[one.step] = [
                (place[judged.item.item_id], float(p[0] - p[2]), (prompt, [*ids, tokenizer.eos_token_id][:longest]))
                for (judged, p), prompt, ids in zip(scored, asked, said, strict=True)
            ]

    def value(self, model: PreTrainedModel, quantity: Quantity, step: int = 0) -> float:
        """The measured leaning at a step, in [-1, 1]."""
        return sum(share * leaning for _, share, leaning in self._shares(quantity, step))

    def backward(self, model: PreTrainedModel, quantity: Quantity, step: int = 0) -> float:
        """The same; the gradient of its expectation is added to ``grad`` of the model's weights."""
        import torch

        shares = self._shares(quantity, step)
        middle = float(np.mean([leaning for *_, leaning in shares])) if shares else 0.0
        shares.sort(key=lambda one: len(one[0][0]) + len(one[0][1]))
        for start in range(0, len(shares), _ANSWERS):
            batch = shares[start : start + _ANSWERS]
            ids, attention, targets = padded([exchange for exchange, *_ in batch], model.device)
            log_p = response_log_probabilities(model, ids, attention, targets)  # (tokens of all answers, V)
            if self._temperature != 1:
                log_p = (log_p / self._temperature).log_softmax(-1)
            taken = log_p.gather(1, ids[:, 1:][targets].unsqueeze(1)).squeeze(1)
            weights = torch.tensor([share * (leaning - middle) for _, share, leaning in batch], device=taken.device)
            (weights.to(taken.dtype)[targets.nonzero()[:, 0]] * taken).sum().backward()
        return sum(share * leaning for _, share, leaning in shares)

    def _shares(self, quantity: Quantity, step: int) -> list[tuple[Exchange, float, float]]:
        """The answers that a quantity is about, each with its weight and its leaning."""
        own = [one for one in self._said[step] if quantity.weights[one[0]]]
        count = Counter(item for item, *_ in own)
        return [(exchange, quantity.weights[item] / count[item], leaning) for item, leaning, exchange in own]
