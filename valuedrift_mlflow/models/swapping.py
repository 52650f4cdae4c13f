"""Models one after another in the same memory: of the checkpoints or adapters of one training only weights differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs.reading import json_object, user_path
from valuedrift_mlflow.models import auto
from valuedrift_mlflow.models.files import below
from valuedrift_mlflow.models.generation import Generator
from valuedrift_mlflow.models.how import STORED, How
from valuedrift_mlflow.models.loading import (
    Loaded,
    from_folder,
    load_generator,
    load_tokenizer,
    whole_folder,
    with_adapters,
)
from valuedrift_mlflow.models.uris import EMBEDDED
from valuedrift_mlflow.tracking import MLFLOW_PREFIXES

if TYPE_CHECKING:
    import torch
    from safetensors import safe_open
    from transformers import PreTrainedModel

_ADAPTERS, _CONFIG, _GENERATION, _TOKENIZER = (
    "adapter_config.json",
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
)
_CHANGES_NOTHING = ("_name_or_path", "transformers_version")  # of a configuration


@dataclass(frozen=True)
class _Facts:
    """What two folders of weights must have in common for one to be read into the other's model."""

    config: str
    generation: str
    weights: Mapping[str, tuple[str, tuple[int, ...]]]  # name in the files: type and shape


@dataclass
class _Held:
    """A whole model in memory, of which every weight is what the files of a folder say."""

    loaded: Loaded
    folder: Path
    facts: _Facts
    ties: frozenset[frozenset[str]] = field(default_factory=frozenset)  # names of what is one weight in memory
    changed: bool = False  # whether adapters have been folded in since


class Swapping:
    """Loads models for one use after another.

    The next one is read into the memory of the one before where both have the same architecture, and adapters are
    folded into their base, which is read again and not loaded again. So whoever was given a model before is given the
    next one's answers from then on: each is to be asked before the next is loaded. What is no transformers model in a
    folder, or in another format than safetensors, quantized, or with code of its own is loaded anew, as ever.
    """

    def __init__(self, how: How = STORED) -> None:
        """``how`` models are loaded."""
        self.how = how
        self._held: _Held | None = None

    def load(self, uri: str) -> Generator:
        """As ``load_generator``.

        Raises:
            InputError: the URI names no model.
        """
        try:
            swapped = None if self.how.quantization else self._swapped(uri)
        except Exception:  # of many kinds and libraries: loading from the beginning says what is wrong, if anything is
            swapped = None
        if swapped is None:
            self._held = None  # first: there need not be room for two
            return load_generator(uri, self.how)
        return swapped.generator()

    def _swapped(self, uri: str) -> Loaded | None:
        """The model in the memory of the one before, or loaded so that the next one can follow; None where neither."""
        folder = _folder(uri)
        if folder is None:
            return None
        base = below(str(folder))
        if base is None:
            held = self._whole(uri, folder)
            return None if held is None else self._told(uri, held, folder)
        lower = _folder(base)
        held = None if lower is None or (lower / _ADAPTERS).is_file() else self._whole(base, lower)
        if held is None:
            return None
        held.changed = True
        merged = with_adapters(held.loaded.model, folder).merge_and_unload()
        merged.requires_grad_(True)
        auto.check_finite(merged)
        # Layers that were replaced, or parted from what they shared their weights with, cannot be read into again.
        if merged is not held.loaded.model or _ties(merged) != held.ties:
            self._held = None
        return self._told(uri, held, folder)

    def _told(self, uri: str, held: _Held, folder: Path) -> Loaded:
        own = (folder / _TOKENIZER).is_file()
        tokenizer = load_tokenizer(str(folder), self.how.own_code) if own else held.loaded.tokenizer
        return Loaded(uri, held.loaded.model.eval(), tokenizer, folder)

    def _whole(self, uri: str, folder: Path) -> _Held | None:
        """The whole model of a folder, unchanged; None where it is not all in files that can be read again."""
        facts = _facts(folder)
        if facts is None:
            return None
        if self._held is not None and self._held.facts == facts:
            if self._held.changed or self._held.folder != folder:
                _read(self._held.loaded.model, folder)
                auto.check_finite(self._held.loaded.model)
            self._held.folder, self._held.changed = folder, False
            return self._held
        self._held = None
        loaded = from_folder(uri, folder, self.how)
        if not _is_as_stored(loaded.model, folder):
            return None
        self._held = _Held(loaded, folder, facts, _ties(loaded.model))
        return self._held


def _folder(uri: str) -> Path | None:
    """The folder on this machine with the files of a model or of adapters, with those of its tokenizer."""
    if uri == EMBEDDED[0]:
        return whole_folder(uri)
    path = user_path(uri, "model")
    if uri.startswith(MLFLOW_PREFIXES):
        checkpoint = tracking.checkpoint_folder(uri)
        weights = None if checkpoint else tracking.packaged_weights(uri)
        together = weights.folder if weights is not None and weights.tokenizer == weights.folder else None
        found = checkpoint or together
        if found is None:
            return None
        path = found
    known = path.is_dir() and any((path / name).is_file() for name in (_CONFIG, _ADAPTERS))
    return path if known and ((path / _TOKENIZER).is_file() or (path / _ADAPTERS).is_file()) else None


def _facts(folder: Path) -> _Facts | None:
    config, generation = (_text(folder / name) for name in (_CONFIG, _GENERATION))
    if "auto_map" in config:
        return None
    with _tensors(folder) as files:
        weights = {
            name: (str(part.get_dtype()), tuple(part.get_shape()))
            for file in files
            for name in file.keys()  # noqa: SIM118  # it is no mapping
            for part in (file.get_slice(name),)
        }
    return _Facts(config, generation, weights) if weights else None


def _text(file: Path) -> str:
    """A configuration without what changes nothing."""
    told = json_object(file)
    if told is None:  # not there; what is damaged is told where it is loaded
        return ""
    return json.dumps({key: value for key, value in told.items() if key not in _CHANGES_NOTHING}, sort_keys=True)


@contextmanager
def _tensors(folder: Path) -> Iterator[list[safe_open]]:
    from safetensors import safe_open

    with ExitStack() as stack:
        yield [
            stack.enter_context(safe_open(str(file), framework="pt", device="cpu"))
            for file in sorted(folder.glob("model*.safetensors"))
        ]


def _stored(model: PreTrainedModel, folder: Path) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Each weight of a model with what the files of a folder have for it.

    Raises:
        KeyError: a file names a weight that the model does not have.
    """
    weights = model.state_dict()
    with _tensors(folder) as files:
        for file in files:
            for name in file.keys():  # noqa: SIM118  # it is no mapping
                yield weights[name], file.get_tensor(name)


def _read(model: PreTrainedModel, folder: Path) -> None:
    """Read the files of a folder into a model."""
    import torch

    with torch.no_grad():
        for weight, stored in _stored(model, folder):
            weight.copy_(stored)


def _is_as_stored(model: PreTrainedModel, folder: Path) -> bool:
    """Whether the files of a folder have every weight of a model, as it is and under its name.

    Some are turned round or joined when they are loaded; those could not be read into the model again.
    """
    covered = set()
    try:
        for weight, stored in _stored(model, folder):
            if weight.shape != stored.shape or not weight.equal(stored.to(weight.device, weight.dtype)):
                return False
            covered.add(weight.data_ptr())
    except KeyError:
        return False
    return all(weight.data_ptr() in covered for weight in model.state_dict().values())


def _ties(model: PreTrainedModel) -> frozenset[frozenset[str]]:
    places: dict[int, set[str]] = {}
    for name, weight in model.state_dict().items():
        places.setdefault(weight.data_ptr(), set()).add(name)
    return frozenset(map(frozenset, places.values()))
