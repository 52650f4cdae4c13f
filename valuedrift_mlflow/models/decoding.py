"""Many responses from one model in memory: a prompt is read once for all its samples, and rows come and go.

A pool has so many slots, each with one row that speaks. A step takes one token further in all of them. A row that has
ended leaves, and the next one enters in its place: nobody waits for the longest response of a batch.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from valuedrift_mlflow.models.calling import is_sharded, takes
from valuedrift_mlflow.models.drawing import drawn
from valuedrift_mlflow.models.memory import is_short, rows_at_once
from valuedrift_mlflow.models.slots import SlotCache

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from valuedrift_mlflow.models.stopping import Ends

_log = logging.getLogger(__name__)
SHARDED_ROWS = 64  # at once, where no number is given and weights are split over processes
_FIRST_ROWS = 32  # by which is found how much memory a row takes
_PROMPT_TOKENS = 8192  # of the prompts that are read together
_STEPS = 8  # between two looks at a GPU's tokens, which it has to be waited for
_SPARE = 48  # columns: after so many steps the keys and values move to new memory
_IDLE = 4  # once nothing waits, the pool shrinks when one slot in so many is idle


@dataclass(frozen=True)
class Asked:
    """What is asked for.

    Attributes:
        prompts: token ids of each.
        samples: responses to each; row ``prompt * samples + sample`` is one.
        numbers: the random numbers of a row, at least ``longest``.
        temperature: 0 is greedy.
        longest: tokens of a response.
        ends: tokens that end one.
        reads: gives what else ends some rows, after padded prompts of a width; None where nothing does.
        slots: rows at once; None for as many as there is memory for.
        seeds: a number for a row, where another engine draws by one.
    """

    prompts: Sequence[Sequence[int]]
    samples: int
    numbers: Callable[[int], NDArray[np.float64]]
    temperature: float
    longest: int
    ends: frozenset[int]
    reads: Callable[[Sequence[int], int], Ends] | None
    slots: int | None
    seeds: Callable[[int], int]


class _Entering(NamedTuple):
    """A row that goes on from a prompt that was read."""

    row: int
    place: int  # of its prompt, among those that were read
    token: int  # its first one
    numbers: NDArray[np.float32]  # (longest,)


@dataclass
class _Read:
    """Prompts that were read: their keys and values, and the rows that go on from them."""

    cache: SlotCache
    mask: Tensor  # (prompts, width)
    rows: deque[_Entering]


class Decoder:
    """Answers what is ``asked``; ``said`` has the tokens of every row, up to and with the one that ended it."""

    def __init__(self, model: PreTrainedModel, asked: Asked, progress: Callable[[int], None]) -> None:
        """Nothing is computed yet. ``progress`` is told how many rows have ended."""
        self.forward = _Forward(model)
        self.asked = asked
        self.said: list[list[int]] = [[] for _ in range(len(asked.prompts) * asked.samples)]
        self._progress = progress
        self._ended = [False] * len(self.said)
        # Processes that have to step together must not each go by the memory that it finds.
        self._together = is_sharded(model)
        self._slots = asked.slots or (SHARDED_ROWS if self._together else None)
        self._reads: Ends | None = None

    def run(self) -> list[list[int]]:
        """All responses. Where memory runs out, what has not ended begins anew in half as many slots.

        Raises:
            RuntimeError: there is no memory for a single row.
        """
        while not all(self._ended):
            try:
                self._speak()
            except RuntimeError as error:
                if self._together or self._slots == 1 or not is_short(error):
                    raise
                self._slots = max(1, (self._slots or _FIRST_ROWS) // 2)
                _log.warning("no memory for as many responses at once: now at most %d", self._slots)
            else:
                break
        return self.said

    def _speak(self) -> None:
        """Until every row has ended."""
        samples, ended = self.asked.samples, self._ended
        self._reads = self.asked.reads(range(len(ended)), 0) if self.asked.reads else None
        left = [at for at in range(len(self.asked.prompts)) if not all(ended[at * samples : (at + 1) * samples])]
        # Longest first: what does not fit fails at once, and whoever enters is no longer than who is there.
        waiting = deque(sorted(left, key=lambda at: -len(self.asked.prompts[at])))
        read = self._read(waiting, self._slots or _FIRST_ROWS)
        slots = self._slots = self._slots or self._found(read)
        pool = _Pool(self.forward, self.asked, read, min(slots, len(waiting) * samples + len(read.rows)))
        while True:
            while pool.idle and (read.rows or waiting):
                if read.rows:
                    pool.take(read)
                else:
                    read = self._read(waiting, slots)
            if not pool.rows:
                return
            if not waiting and not read.rows:
                pool.shrink()
            self._look(pool, pool.steps(self.said, read.mask.shape[1]))

    def _found(self, read: _Read) -> int:
        """As many slots as there is memory for, by what the prompts that were read have taken."""
        tokens = read.mask.shape[1] + self.asked.longest + _SPARE
        vocabulary = self.forward.model.config.get_text_config().vocab_size
        return rows_at_once(self.forward.device, tokens, read.cache.token_bytes, vocabulary)

    def _read(self, waiting: deque[int], rows: int) -> _Read:
        """Read the next prompts, for about so many rows, and draw the first token of each."""
        asked, device = self.asked, self.forward.device
        first = len(asked.prompts[waiting[0]])
        count = max(1, min(-(-rows // asked.samples), _PROMPT_TOKENS // first, len(waiting)))
        indices = [waiting.popleft() for _ in range(count)]
        ids, mask = left_padded([asked.prompts[at] for at in indices], device)
        cache = SlotCache()
        logits = self.forward(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), cache)
        rows_of = [
            (at * asked.samples + sample, place)
            for place, at in enumerate(indices)
            for sample in range(asked.samples)
            if not self._ended[at * asked.samples + sample]
        ]
        numbers = np.array([asked.numbers(row)[: asked.longest] for row, _ in rows_of], dtype=np.float32)
        places = torch.tensor([place for _, place in rows_of], device=device)
        at = torch.from_numpy(numbers[:, 0].copy()).to(device)
        tokens = drawn(logits[places], at, asked.temperature).tolist()
        going: deque[_Entering] = deque()
        for (row, place), token, own in zip(rows_of, tokens, numbers, strict=True):
            self.said[row] = []  # it may have begun before memory ran out
            if not self._hears(row, [token]):
                going.append(_Entering(row, place, token, own))
        return _Read(cache, mask, going)

    def _hears(self, row: int, tokens: Sequence[int]) -> bool:
        """Add tokens to a row, up to its end; whether it has ended."""
        asked, said = self.asked, self.said[row]
        for token in tokens:
            said.append(token)
            over = token in asked.ends or len(said) >= asked.longest
            if over or (self._reads is not None and self._reads.hears(row, said)):
                self._ended[row] = True
                self._progress(1)
                return True
        return False

    def _look(self, pool: _Pool, steps: list[list[int]]) -> None:
        """Hand every row the tokens of some steps, (steps, slots), and let those that have ended leave."""
        columns = list(zip(*steps, strict=True))
        pool.leave([slot for slot, row in pool.rows.items() if self._hears(row, columns[slot])])


class _Pool:
    """Rows that speak together, and what the next step needs of each.

    Attributes:
        rows: the row in each slot that has one.
        idle: slots that have none.
    """

    def __init__(self, forward: _Forward, asked: Asked, read: _Read, slots: int) -> None:
        self.rows: dict[int, int] = {}
        self.idle = list(range(slots))
        self._forward = forward
        self._asked = asked
        self._cache = read.cache.emptied(slots, read.cache.end + _SPARE)
        device = forward.device
        # Of every slot: the columns that are its row's, its last token with its position, and its numbers from there.
        self._mask = torch.zeros(slots, self._cache.columns, dtype=torch.long, device=device)
        self._last = torch.zeros(slots, 1, dtype=torch.long, device=device)
        self._position = torch.zeros(slots, 1, dtype=torch.long, device=device)
        self._count = torch.zeros(slots, 1, dtype=torch.long, device=device)
        self._numbers = torch.zeros(slots, asked.longest + _STEPS, device=device)

    def take(self, read: _Read) -> None:
        """Let rows whose prompts were read enter, as many as there are idle slots."""
        entering = [read.rows.popleft() for _ in range(min(len(self.idle), len(read.rows)))]
        taken, self.idle = self.idle[: len(entering)], self.idle[len(entering) :]
        device = self._last.device
        slots, places = torch.tensor(taken, device=device), torch.tensor([one.place for one in entering], device=device)
        self._cache.place(slots, read.cache, places)
        masks, end = read.mask[places], self._cache.end
        self._mask[slots] = 0
        self._mask[slots, end - masks.shape[1] : end] = masks
        self._last[slots, 0] = torch.tensor([one.token for one in entering], device=device)
        self._position[slots] = masks.sum(dim=1, keepdim=True)
        self._count[slots] = 1
        numbers = torch.from_numpy(np.stack([one.numbers for one in entering])).to(device)
        self._numbers[slots, : numbers.shape[1]] = numbers
        self.rows.update(zip(taken, (one.row for one in entering), strict=True))

    def leave(self, slots: list[int]) -> None:
        """Rows have ended. Their slots are taken along until others enter, with nothing to look back at."""
        for slot in slots:
            del self.rows[slot]
        self.idle += slots
        if self.idle:
            idle = torch.tensor(self.idle, device=self._last.device)
            self._mask[idle] = 0
            # They must not run out of positions meanwhile.
            self._position[idle] = self._count[idle] = 0

    def shrink(self) -> None:
        """Give idle slots up, where there are so many that it pays."""
        if len(self.idle) * _IDLE < len(self.rows) + len(self.idle):
            return
        kept = sorted(self.rows)
        slots = torch.tensor(kept, device=self._last.device)
        self.rows = {new: self.rows[old] for new, old in enumerate(kept)}
        self.idle = []
        for name in ("_last", "_position", "_count", "_numbers"):
            setattr(self, name, getattr(self, name)[slots])
        self._move(slots, self._cache.layers[0].get_seq_length())

    def _move(self, slots: Tensor, width: int) -> None:
        end = self._cache.end
        mask = self._mask.new_zeros(len(slots), width + _SPARE)
        mask[:, :width] = self._mask[slots, end - width : end]
        self._mask = mask
        self._cache.moved(slots, width, width + _SPARE)

    def steps(self, said: Sequence[Sequence[int]], entering: int) -> list[list[int]]:
        """One step, on a GPU some: tokens (steps, slots). Columns for the prompts of who may yet enter stay free."""
        prompts, samples = self._asked.prompts, self._asked.samples
        lengths = [len(said[row]) for row in self.rows.values()]
        count = 1 if self._last.device.type == "cpu" else min(_STEPS, self._asked.longest - max(lengths))
        # A row's last token is not in the cache yet.
        width = max(len(prompts[row // samples]) + len(said[row]) - 1 for row in self.rows.values())
        if self._cache.end + count > self._cache.columns:
            self._move(torch.arange(len(self._last), device=self._last.device), max(width, entering))
        self._cache.look_from(self._cache.end - width)
        tokens = torch.stack([self._step() for _ in range(count)])
        return [[int(token) for token in row] for row in tokens.tolist()]

    def _step(self) -> Tensor:
        """The next token of every slot, (slots,)."""
        start, end = self._cache.layers[0].start, self._cache.end
        self._mask[:, end] = 1
        mask = self._mask[:, start : end + 1]
        logits = self._forward(self._last, mask, self._position, self._cache)
        at = self._numbers.gather(1, self._count).squeeze(1)
        tokens = drawn(logits, at, self._asked.temperature)
        self._last = tokens.unsqueeze(1)
        self._position = self._position + 1
        self._count = self._count + 1
        return tokens


class _Forward:
    """A model's next logits; what its forward pass takes is found out once."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.device: torch.device = model.device
        self._positions = takes(model, "position_ids")
        # Else the logits after every token of a prompt are computed, for each word of the vocabulary.
        self._further = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}

    def __call__(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """Logits after the last token of each row, (rows, vocabulary); the cache takes the tokens up."""
        where = {"position_ids": positions} if self._positions else {}
        output = self.model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **where, **self._further
        )
        logits: Tensor = output.logits[:, -1]
        return logits


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids and mask, (prompts, longest): an answer comes right after its prompt's last token."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=device)
    return ids, mask
