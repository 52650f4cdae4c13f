"""The keys and values of rows that come and go: a cache of transformers with a place for each row, filled from behind.

All rows end in the same column, so that a step writes one column, and a row that enters is laid to the left of it.
A mask says where each row begins. Nothing is copied at a step: transformers' own cache is written anew at each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig

_LEFT = "keys", "values"


class SlotLayer(CacheLayerMixin):
    """One layer: keys and values (slots, heads, columns, size of a head), of which ``start`` to ``end`` are in use.

    What it is given first is kept as it is: a cache that only reads prompts has nothing to spare.
    """

    # A mask is then made without a look at its values, for which a GPU would have to be waited for at every step.
    is_compileable = True
    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        """Empty."""
        super().__init__()
        self.start = 0
        self.end = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Keep the first keys and values."""
        self.keys, self.values = key_states, value_states
        self.end = key_states.shape[2]
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write new columns, and give all that are in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        else:
            before, self.end = self.end, self.end + key_states.shape[2]
            self.keys[:, :, before : self.end] = key_states
            self.values[:, :, before : self.end] = value_states
        return self.keys[:, :, self.start : self.end], self.values[:, :, self.start : self.end]

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.end - self.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns in use after a step, and where they begin."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """None, as transformers says it: who writes sees to the columns."""
        return -1

    def moved(self, slots: Tensor | int, width: int, columns: int) -> None:
        """Take new memory of ``columns`` for some slots (or for so many empty ones), their last ``width`` in front."""
        for name in _LEFT:
            old: Tensor = getattr(self, name)
            count = slots if isinstance(slots, int) else len(slots)
            # Zeros: what no row has written is hidden by a mask, and hidden or not, times NaN is NaN.
            new = old.new_zeros(count, old.shape[1], columns, old.shape[3])
            if not isinstance(slots, int):
                new[:, :, :width] = old[slots, :, self.end - width : self.end]
            setattr(self, name, new)
        self.start, self.end = 0, width


class SlotCache(Cache):
    """As this module says it. All layers use the same columns."""

    def __init__(self) -> None:
        """Empty; layers come with the first forward pass."""
        super().__init__(layer_class_to_replicate=SlotLayer)
        self.layers: list[SlotLayer]

    @property
    def end(self) -> int:
        """The column that the next step writes."""
        return self.layers[0].end

    @property
    def columns(self) -> int:
        """Columns that there are."""
        return int(self.layers[0].keys.shape[2])

    @property
    def token_bytes(self) -> float:
        """Memory of one token of one row."""
        sizes = (getattr(layer, name) for layer in self.layers for name in _LEFT)
        return sum(one.numel() / (one.shape[0] * one.shape[2]) * one.element_size() for one in sizes)

    def emptied(self, slots: int, columns: int) -> SlotCache:
        """One of the same layers with empty slots, written from the column on where this one ends."""
        other = SlotCache()
        for layer in self.layers:
            copied = SlotLayer()
            copied.lazy_initialization(layer.keys, layer.values)
            copied.moved(slots, self.end, columns)
            other.layers.append(copied)
        return other

    def look_from(self, start: int) -> None:
        """Leave what is before a column out of what is attended to."""
        for layer in self.layers:
            layer.start = start

    def place(self, slots: Tensor, other: SlotCache, rows: Tensor) -> None:
        """Lay rows of another cache into slots, so that both end alike."""
        for layer, given in zip(self.layers, other.layers, strict=True):
            before = layer.end - given.end
            layer.keys[slots, :, before : layer.end] = given.keys[rows]
            layer.values[slots, :, before : layer.end] = given.values[rows]

    def moved(self, slots: Tensor, width: int, columns: int) -> None:
        """Keep the last ``width`` columns of some slots, at the front of ``columns``; layer by layer."""
        for layer in self.layers:
            layer.moved(slots, width, columns)


def fits(config: PreTrainedConfig) -> bool:
    """Whether keys and values are all that a model's layers keep of a row, each its own.

    A window over the last tokens is kept by the mask; nothing is dropped from this cache.
    """
    # Other layers keep states, or take what others have kept.
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=config).layers)
