"""Responses that are sampled once: of an unchanged model, asked the same by the same settings, they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

from valuedrift_mlflow.models.ending import end_tokens
from valuedrift_mlflow.models.engine import OWN
from valuedrift_mlflow.models.generation import Generator, Progress, Sampling, TransformersGenerator, encode
from valuedrift_mlflow.models.response_store import ResponseStore
from valuedrift_mlflow.models.weights import model_digest

_SAMPLER = 1  # raised whenever the same random numbers may draw other tokens


def stored(generator: Generator, store: ResponseStore | None = None) -> Generator:
    """What asks ``generator`` for those responses alone that the store does not have.

    What is no transformers model in memory (a server, a function) is given back as it is: nobody knows whether it
    answers tomorrow as it did today.
    """
    return StoredGenerator(generator, store) if type(generator) is TransformersGenerator else generator


class StoredGenerator:
    """Answers from a store of responses, and keeps there what had to be sampled.

    A response has its place by the weights (and all else of the model that decides, see `model_digest`), the prompt's
    tokens, seed, salt and key of the prompt, number of the sample, settings, libraries and kind of device. At a
    temperature of 0 nothing is drawn, and the numbers do not count.

    Attributes:
        reused: responses that were not sampled, of all calls.
    """

    def __init__(self, inner: TransformersGenerator, store: ResponseStore | None = None) -> None:
        """Keep the responses of ``inner`` in ``store``, by default the one in the user's cache folder."""
        self.inner = inner
        self.store = store or ResponseStore()
        self.reused = 0

    def generate(
        self, prompts: Sequence[str], keys: Sequence[str], sampling: Sampling, progress: Progress
    ) -> list[list[str]]:
        """As the other generator, each response from the store where it is there."""
        # Of every call: the model may have been trained since. Another engine's arithmetic is its own affair.
        own = sampling.engine.backend == OWN.backend
        digest = model_digest(self.inner.model, self.inner.tokenizer) if own else None
        if digest is None:
            return self.inner.generate(prompts, keys, sampling, progress)
        places = self._places(digest, prompts, keys, sampling)
        known = self.store.known([place for row in places for place in row])
        responses = [[known.get(place, "") for place in row] for row in places]
        # From the first that is missing: raising `samples` leaves those before it, and a gap is the mark of damage.
        begins = [next((at for at, place in enumerate(row) if place not in known), len(row)) for row in places]
        self.reused += sum(begins)
        progress(sum(begins))
        for begin in sorted(set(begins) - {sampling.samples}):
            asked = [index for index, own in enumerate(begins) if own == begin]
            rest = replace(sampling, samples=sampling.samples - begin, first=sampling.first + begin)
            said = self.inner.generate([prompts[at] for at in asked], [keys[at] for at in asked], rest, progress)
            for index, texts in zip(asked, said, strict=True):
                responses[index][begin:] = texts
            self.store.keep(
                {
                    place: text
                    for index, texts in zip(asked, said, strict=True)
                    for place, text in zip(places[index][begin:], texts, strict=True)
                }
            )
        return responses

    def _places(
        self, digest: bytes, prompts: Sequence[str], keys: Sequence[str], sampling: Sampling
    ) -> list[list[bytes]]:
        """The key of each response: (prompts, samples)."""
        import torch
        import transformers

        inner, speech = self.inner, sampling.speech
        settings = [
            _SAMPLER,
            [torch.__version__, transformers.__version__, inner.model.device.type],
            [sampling.temperature, sampling.max_new_tokens],
            [list(speech.stop), speech.thinking, speech.max_thinking_tokens],
            end_tokens(inner.model, inner.tokenizer, speech.stop),
        ]
        same = hashlib.blake2b(json.dumps(settings).encode(), digest_size=32, key=digest)
        numbers = range(sampling.first, sampling.first + sampling.samples)
        rows = []
        for key, ids in zip(keys, encode(inner.tokenizer, prompts, speech), strict=True):
            row = []
            for number in numbers:
                draw = [sampling.seed, sampling.salt, key, number] if sampling.temperature > 0 else []
                place = same.copy()
                place.update(json.dumps([ids, draw]).encode())
                row.append(place.digest())
            rows.append(row)
        return rows
