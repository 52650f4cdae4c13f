"""Responses by transformers' own continuous batching, with its paged cache: for GPUs with flash attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.models.calling import may_come_and_go
from valuedrift_mlflow.models.decoding import Asked
from valuedrift_mlflow.models.ending import only_these_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PAGE = 64  # tokens; without a GPU transformers does not find out how many pages there may be
_ROWS = 64  # at once there, where no number is given


class ContinuousBatches:
    """As ``Decoder``. Random numbers are one stream for all responses: a part of the prompts draws others."""

    def __init__(self, model: PreTrainedModel, asked: Asked, progress: Callable[[int], None]) -> None:
        """Nothing is computed yet. ``progress`` is told how many rows have ended.

        Raises:
            InputError: the model's layers are not those of a paged cache.
        """
        if not may_come_and_go(model):
            mend = "take generation.backend=transformers"
            allowed = "a model of transformers whose layers keep keys and values alone"
            raise InputError(problem("generation.backend", f"continuous, for a {type(model).__name__}", allowed, mend))
        self.model = model
        self.asked = asked
        self._progress = progress

    def run(self) -> list[list[int]]:
        """All responses; the global random state is as it was afterwards.

        Raises:
            InputError: transformers cannot batch this model, with its reason.
        """
        import torch

        with torch.random.fork_rng(enabled=True):
            return self._run()

    def _run(self) -> list[list[int]]:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        asked, ends = self.asked, sorted(self.asked.ends)
        drawing = {"do_sample": True, "temperature": asked.temperature, "top_k": 0, "top_p": 1.0}
        settings = GenerationConfig(
            max_new_tokens=asked.longest,
            eos_token_id=ends or None,
            pad_token_id=(ends or [0])[0],
            **(drawing if asked.temperature > 0 else {"do_sample": False}),
        )
        rows = [list(prompt) for prompt in asked.prompts for _ in range(asked.samples)]
        pages: dict[str, Any] = self._pages()
        batching = ContinuousBatchingConfig(seed=asked.seeds(0), max_requests_per_batch=asked.slots, **pages)
        engine: Any = self.model  # its method comes from a mixin without types
        with only_these_settings(self.model, settings):
            try:
                given = engine.generate_batch(rows, generation_config=settings, continuous_batching_config=batching)
            except (NotImplementedError, ValueError, ImportError) as error:
                allowed = "a model that transformers' continuous batching can run"
                raise InputError(problem("generation.backend", "continuous", allowed, one_line(error))) from error
        failed = next((one.error for one in given.values() if one.error is not None), None)
        if failed is not None or len(given) < len(rows):
            raise RuntimeError(f"transformers' continuous batching lost responses: {failed or len(rows) - len(given)}")
        # Requests come back as they end; their ids count up in the order they were given.
        ordered = sorted(given.values(), key=lambda one: int(str(one.request_id).rpartition("_")[2]))
        self._progress(len(rows))
        return [cut(list(one.generated_tokens), row, asked) for row, one in enumerate(ordered)]

    def _pages(self) -> dict[str, int]:
        """How large the cache is, where transformers does not find it out."""
        if self.model.device.type == "cuda":
            return {}
        tokens = max(map(len, self.asked.prompts)) + self.asked.longest
        each, rows = math.ceil(tokens / _PAGE) + 1, self.asked.slots or _ROWS
        return {"page_size": _PAGE, "num_blocks": each * rows, "max_batch_tokens": max(256, tokens)}


def cut(tokens: list[int], row: int, asked: Asked) -> list[int]:
    """A finished response up to what ends it beside an end token: its texts to stop at, or the budget of a thought."""
    if asked.reads is None:
        return tokens
    reads = asked.reads([row], 0)
    reads.read(0, tokens)
    return tokens[: reads.kept[0]]
