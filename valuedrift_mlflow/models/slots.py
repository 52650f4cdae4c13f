"""The keys and values of rows that speak together: a cache of transformers in which rows leave and others join.

All rows end in the same column, so that a step writes one column, and rows of other lengths are laid beside them from
behind; a mask says where each begins. Where a row leaves, the last one takes its place. So nothing is copied at a
step, while transformers' own cache is written anew at each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig

_KEPT = "keys", "values"


class SlotLayer(CacheLayerMixin):
    """One layer: keys and values (rows, heads, columns, size of a head), some of which are in use.

    What it is given first is kept as it is: a cache that only reads prompts has nothing to spare.
    """

    # A mask is then made without a look at its values, for which a GPU would have to be waited for at every step.
    is_compileable = True
    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        """Empty."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows = 0
        self.start = 0
        self.end = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Keep the first keys and values."""
        self.keys, self.values = key_states, value_states
        self.rows, self.end = key_states.shape[0], key_states.shape[2]
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write new columns, and give all that are in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        else:
            before, self.end = self.end, self.end + key_states.shape[2]
            self.keys[: self.rows, :, before : self.end] = key_states
            self.values[: self.rows, :, before : self.end] = value_states
        return self.keys[: self.rows, :, self.start : self.end], self.values[: self.rows, :, self.start : self.end]

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.end - self.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns in use after a step, and where they begin."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """None, as transformers says it: who writes sees to the columns."""
        return -1


class Part(NamedTuple):
    """Rows of a cache, and how many of its last columns are theirs."""

    cache: SlotCache
    rows: Tensor
    width: int


class SlotCache(Cache):
    """As this module says it. All layers use the same rows and columns."""

    def __init__(self) -> None:
        """Empty; layers come with the first forward pass."""
        super().__init__(layer_class_to_replicate=SlotLayer)
        self.layers: list[SlotLayer]  # type: ignore[assignment]  # of all kinds of layers it has this one

    @property
    def end(self) -> int:
        """The column that the next step writes."""
        return self.layers[0].end

    @property
    def start(self) -> int:
        """The first column that is attended to."""
        return self.layers[0].start

    @property
    def columns(self) -> int:
        """Columns that there are."""
        return int(self.layers[0].keys.shape[2])

    @property
    def token_bytes(self) -> float:
        """Memory of one token of one row."""
        sizes = (getattr(layer, name) for layer in self.layers for name in _KEPT)
        return float(sum(one.numel() / (one.shape[0] * one.shape[2]) * one.element_size() for one in sizes))

    def look_from(self, start: int) -> None:
        """Leave what is before a column out of what is attended to."""
        for layer in self.layers:
            layer.start = start

    def leave(self, places: Tensor, last: Tensor, left: int) -> None:
        """Put the ``last`` rows in the ``places`` of those that leave, so that ``left`` rows are the first ones."""
        for layer in self.layers:
            for kept in (layer.keys, layer.values):
                kept[places, :, layer.start : layer.end] = kept[last, :, layer.start : layer.end]
            layer.rows = left


def gathered(parts: Sequence[Part], spare: int) -> SlotCache:
    """Rows of several caches in new memory, one after the other, with ``spare`` columns to come.

    The caches are used up, layer by layer, so that little is held twice.
    """
    width, count = max(part.width for part in parts), sum(len(part.rows) for part in parts)
    joined = SlotCache()
    for number in range(len(parts[0].cache.layers)):
        layer = SlotLayer()
        for name in _KEPT:
            first: Tensor = getattr(parts[0].cache.layers[number], name)
            # Zeros: what no row has written is hidden by a mask, and hidden or not, times NaN is NaN.
            new = first.new_zeros(count, first.shape[1], width + spare, first.shape[3])
            at = 0
            for cache, rows, own in parts:
                old: Tensor = getattr(cache.layers[number], name)
                end = cache.layers[number].end
                new[at : at + len(rows), :, width - own : width] = old[rows, :, end - own : end]
                at += len(rows)
            setattr(layer, name, new)
        layer.rows, layer.end, layer.is_initialized = count, width, True
        joined.layers.append(layer)
        for cache in {id(part.cache): part.cache for part in parts}.values():
            del cache.layers[number].keys, cache.layers[number].values
    return joined


def fits(config: PreTrainedConfig) -> bool:
    """Whether keys and values are all that a model's layers keep of a row, each its own.

    A window over the last tokens is kept by the mask; nothing is dropped from this cache.
    """
    # Other layers keep states, or take what others have kept.
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=config).layers)
