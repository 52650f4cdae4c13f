"""Responses by transformers' own ``generate``, batch after batch: for models whose rows cannot come and go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from valuedrift_mlflow.models.calling import is_sharded, learns_prompt
from valuedrift_mlflow.models.decoding import Asked, left_padded
from valuedrift_mlflow.models.drawing import SeededSampling
from valuedrift_mlflow.models.ending import only_these_settings
from valuedrift_mlflow.models.memory import is_short

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROWS = 64  # at once, where no number is given


class WholeBatches:
    """As ``Decoder``: a batch ends with its longest response."""

    def __init__(self, model: PreTrainedModel, asked: Asked, progress: Callable[[int], None]) -> None:
        """Nothing is computed yet. ``progress`` is told how many rows have ended."""
        self.model = model
        self.asked = asked
        self._progress = progress

    def run(self) -> list[list[int]]:
        """All responses.

        Raises:
            RuntimeError: there is no memory for a single row.
        """
        said: dict[int, list[int]] = {}
        for batch in self._batches():
            said.update(zip(batch, self._answers(batch), strict=True))
        return [said[row] for row in sorted(said)]

    def _prompt(self, row: int) -> list[int]:
        return list(self.asked.prompts[row // self.asked.samples])

    def _batches(self) -> Iterator[list[int]]:
        """Rows, the longest prompts first; where virtual tokens would stand before what pads, those of one length."""
        alike, size = learns_prompt(self.model), self.asked.slots or _ROWS
        rows = range(len(self.asked.prompts) * self.asked.samples)
        ordered = sorted(rows, key=lambda row: -len(self._prompt(row)))
        for _, group in groupby(ordered, lambda row: len(self._prompt(row)) if alike else 0):
            members = list(group)
            yield from (members[start : start + size] for start in range(0, len(members), size))

    def _answers(self, batch: list[int]) -> list[list[int]]:
        """The tokens of a batch; where memory runs out, of one half of it and of the other."""
        try:
            said = self._generated(batch)
        except RuntimeError as error:
            if len(batch) == 1 or is_sharded(self.model) or not is_short(error):
                raise
        else:
            self._progress(len(batch))
            return said
        half = len(batch) // 2
        return self._answers(batch[:half]) + self._answers(batch[half:])

    def _generated(self, batch: list[int]) -> list[list[int]]:
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        asked, ends = self.asked, sorted(self.asked.ends)
        ids, mask = left_padded([self._prompt(row) for row in batch], self.model.device, (ends or [0])[0])
        width = ids.shape[1]
        numbers = np.stack([asked.numbers(row) for row in batch])
        draw = [SeededSampling(numbers, asked.temperature, width)] if asked.temperature > 0 else []
        reads = asked.reads(batch, width) if asked.reads else None
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=asked.longest,
            eos_token_id=ends or None,
            pad_token_id=(ends or [0])[0],
        )
        with only_these_settings(self.model, settings):
            output = self.model.generate(  # type: ignore[operator]
                input_ids=ids,
                attention_mask=mask,
                logits_processor=LogitsProcessorList(draw),
                stopping_criteria=StoppingCriteriaList([reads] if reads else []),
            )
        kept = reads.kept if reads else [None] * len(batch)
        # What follows an end are other rows' steps.
        return [_whole(row[:to], asked.ends) for row, to in zip(output[:, width:].tolist(), kept, strict=True)]


def _whole(tokens: list[int], ends: Collection[int]) -> list[int]:
    """Tokens up to and with the first end among them."""
    end = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: end + 1]
