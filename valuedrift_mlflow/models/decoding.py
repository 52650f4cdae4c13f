"""Many responses from one model in memory: a prompt is read once for all its samples, and rows leave and join.

Rows that begin together speak together, a token each at every step. Who has ended leaves at once. When few are left,
they are put aside and the next rows begin; those that were put aside go on together once there are enough of them. So
no step is taken for a row that has ended, hardly one for few rows, and nobody is padded to another's length: rows that
speak together have said about as much. (To let new rows in at once would have them look back as far as the oldest.)
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from valuedrift_mlflow.models.calling import is_sharded, takes
from valuedrift_mlflow.models.drawing import drawn
from valuedrift_mlflow.models.memory import is_short, rows_at_once
from valuedrift_mlflow.models.slots import Part, SlotCache, gathered

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from valuedrift_mlflow.models.stopping import Ends

_log = logging.getLogger(__name__)
SHARDED_ROWS = 64  # at once, where no number is given and weights are split over processes
_FIRST_ROWS = 32  # by which is found how much memory a row takes
_PROMPT_TOKENS = 16384  # of the prompts that are read together
# Steps between two looks at the tokens, for which a GPU has to be waited for.
_STEPS = {"cpu": 1}
_STEPS_ELSEWHERE = 8
_SPARE = 48  # columns: after so many steps keys and values move to new memory
_FEW = 4  # rows are put aside when one in so many is left


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
        """All responses. Where memory runs out, what has not ended begins anew, half as many rows at once.

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
        return self.said

    def _speak(self) -> None:
        """Until every row has ended."""
        samples, ended = self.asked.samples, self._ended
        self._reads = self.asked.reads(range(len(ended)), 0) if self.asked.reads else None
        rows = [row for row in range(len(ended)) if not ended[row]]
        # Longest prompts first: what does not fit fails at once, and prompts of like length are padded little.
        waiting = deque(sorted(rows, key=lambda row: -len(self.asked.prompts[row // samples])))
        aside: list[_Pool] = []
        while waiting or aside:
            slots = self._slots or _FIRST_ROWS
            if waiting and (not aside or sum(len(pool.rows) for pool in aside) < slots // 2):
                pool = self._begun(waiting, slots)
            else:
                pool, aside = joined(aside), []
            # The last ones have nobody to wait for.
            enough = (self._slots or slots) // _FEW if waiting or aside else 0
            while len(pool.rows) > enough:
                columns = list(zip(*pool.steps(), strict=True))
                pool.leave([at for at, row in enumerate(pool.rows) if self._hears(row, columns[at])])
            if pool.rows:
                aside.append(pool)

    def _begun(self, waiting: deque[int], slots: int) -> _Pool:
        """Read the prompts of the next rows, and draw the first token of each."""
        asked, samples, device = self.asked, self.asked.samples, self.forward.device
        rows: list[int] = []
        places: dict[int, int] = {}  # of the prompts
        while waiting and len(rows) < slots:
            prompt = waiting[0] // samples
            if prompt not in places:
                longest = len(asked.prompts[next(iter(places), prompt)])
                if places and (len(places) + 1) * longest > _PROMPT_TOKENS:
                    break
                places[prompt] = len(places)
            rows.append(waiting.popleft())
        ids, mask = left_padded([asked.prompts[prompt] for prompt in places], device)
        cache = SlotCache()
        logits = self.forward(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), cache)
        self._slots = self._slots or self._found(cache, ids.shape[1])
        drawing = np.array([asked.numbers(row)[: asked.longest] for row in rows], dtype=np.float32)
        numbers = torch.from_numpy(drawing).to(device)
        at = torch.tensor([places[row // samples] for row in rows], device=device)
        tokens = drawn(logits[at], numbers[:, 0], asked.temperature)
        position = mask.sum(dim=1)[at].unsqueeze(1)
        pool = _Pool(self.forward, asked, rows, gathered([Part(cache, at, ids.shape[1])], _SPARE), numbers, position)
        pool.take(tokens)
        for row in rows:
            self.said[row] = []  # it may have begun before memory ran out
        heard = zip(rows, tokens.tolist(), strict=True)
        pool.leave([place for place, (row, token) in enumerate(heard) if self._hears(row, [token])])
        return pool

    def _found(self, cache: SlotCache, width: int) -> int:
        """As many rows as there is memory for, by what the prompts that were read have taken."""
        vocabulary = self.forward.model.config.get_text_config().vocab_size
        return rows_at_once(self.forward.device, width + self.asked.longest + _SPARE, cache.token_bytes, vocabulary)

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


class _Pool:
    """Rows that speak together, and what the next step needs of each.

    Attributes:
        rows: in the order of their places in the cache.
    """

    def __init__(
        self, forward: _Forward, asked: Asked, rows: list[int], cache: SlotCache, numbers: Tensor, position: Tensor
    ) -> None:
        """``numbers`` (rows, longest) are the rows' own, ``position`` (rows, 1) is where their next token stands."""
        self.rows = list(rows)
        self.cache = cache
        self.forward = forward
        self.asked = asked
        self.numbers = numbers
        self.position = position
        self.count = torch.zeros_like(position)  # tokens that each has said
        self.last = torch.zeros_like(position)

    def take(self, tokens: Tensor) -> None:
        """Tokens were drawn, (rows,): the next ones to be read."""
        self.last = tokens.unsqueeze(1)
        self.count = self.count + 1

    def leave(self, places: Sequence[int]) -> None:
        """Rows in some places have ended; the last ones take these."""
        if not places:
            return
        gone, left = set(places), len(self.rows) - len(places)
        holes = [place for place in places if place < left]
        last = [place for place in range(left, len(self.rows)) if place not in gone]
        for hole, place in zip(holes, last, strict=True):
            self.rows[hole] = self.rows[place]
        del self.rows[left:]
        device = self.last.device
        to, of = (
            torch.tensor(holes, device=device, dtype=torch.long),
            torch.tensor(last, device=device, dtype=torch.long),
        )
        for name in ("numbers", "position", "count", "last"):
            kept: Tensor = getattr(self, name)
            kept[to] = kept[of]
            setattr(self, name, kept[:left])
        if self.rows:
            self.cache.leave(to, of, left)
            self.cache.look_from(self.cache.end - self._width())

    def _width(self) -> int:
        """Tokens in the cache of the row that has most."""
        return int(self.position.max())

    def steps(self) -> list[list[int]]:
        """The next tokens of all rows, (steps, rows): one step, on a GPU some."""
        steps = _STEPS.get(self.last.device.type, _STEPS_ELSEWHERE)
        left = min(steps, self.asked.longest - int(self.count.max()))
        if self.cache.end + left > self.cache.columns:
            every = torch.arange(len(self.rows), device=self.last.device)
            self.cache = gathered([Part(self.cache, every, self.cache.end - self.cache.start)], _SPARE)
        tokens = torch.stack([self._step() for _ in range(left)])
        return [[int(token) for token in row] for row in tokens.tolist()]

    def _step(self) -> Tensor:
        """The next token of every row, (rows,)."""
        end = self.cache.end
        columns = torch.arange(self.cache.start, end + 1, device=self.last.device)
        mask = (columns >= end - self.position).long()
        logits = self.forward(self.last, mask, self.position, self.cache)
        self.position = self.position + 1
        tokens = drawn(logits, self.numbers.gather(1, self.count).squeeze(1), self.asked.temperature)
        self.take(tokens)
        return tokens


def joined(pools: Sequence[_Pool]) -> _Pool:
    """One pool of several, which are used up."""
    if len(pools) == 1:
        return pools[0]
    first = pools[0]
    parts = [
        Part(pool.cache, torch.arange(len(pool.rows), device=first.last.device), pool.cache.end - pool.cache.start)
        for pool in pools
    ]
    rows = [row for pool in pools for row in pool.rows]
    numbers, position, count, last = (
        torch.cat([getattr(pool, name) for pool in pools]) for name in ("numbers", "position", "count", "last")
    )
    pool = _Pool(first.forward, first.asked, rows, gathered(parts, _SPARE), numbers, position)
    pool.count, pool.last = count, last
    return pool


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
