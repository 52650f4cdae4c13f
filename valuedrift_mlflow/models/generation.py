"""Prompts to responses: from a transformers model in memory, or from any function that answers a list of prompts.

Sampling is seeded for every (prompt, sample) by its own key, so that a subset of the prompts, another batch size or a
resumed run give the same responses (up to the last bits of the arithmetic).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.outputs import text_in
from valuedrift_mlflow.inputs.thoughts import before_stop, opened
from valuedrift_mlflow.models.ending import end_tokens
from valuedrift_mlflow.models.engine import OWN, Engine
from valuedrift_mlflow.models.speech import Speech, as_text
from valuedrift_mlflow.models.stopping import Ends

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from valuedrift_mlflow.models.decoding import Asked

Progress = Callable[[int], None]
PLAIN = Speech()  # no thought where the template can do without, and no end but the model's own


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. ``seed`` and ``salt`` tell measurements apart; ``temperature`` 0 is greedy.

    ``max_new_tokens`` are those of an answer; a thought before it has those of ``speech``. ``batch_size`` responses are
    generated at once, by default as many as there is memory for. ``first`` is the number of the first sample: those
    before it are there already.
    """

    samples: int
    temperature: float
    max_new_tokens: int
    batch_size: int | None = None
    seed: int = 0
    salt: str = ""
    speech: Speech = field(default_factory=Speech)
    engine: Engine = OWN
    first: int = 0

    @property
    def longest(self) -> int:
        """Tokens of the longest response, its thought included."""
        return self.max_new_tokens + self.speech.max_thinking_tokens


class Generator(Protocol):
    """Answers prompts."""

    def generate(
        self, prompts: Sequence[str], keys: Sequence[str], sampling: Sampling, progress: Progress
    ) -> list[list[str]]:
        """``sampling.samples`` responses for each prompt, in order. ``keys`` identify the prompts across runs."""
        ...


def uniforms(key: str, sample: int, sampling: Sampling) -> NDArray[np.float64]:
    """The random numbers in [0, 1) that one response uses, one per token: shape (longest,)."""
    # The separators keep keys apart that would read alike, such as sample 1 of "a1" and sample 11 of "a".
    text = f"{sampling.seed}\x1f{sampling.salt}\x1f{key}\x1f{sampling.first + sample}".encode()
    # 16 bytes: Philox takes a key of 128 bits as it is, and each key has a stream of its own.
    entropy = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=entropy)).random(sampling.longest)


def seed_of(*parts: object) -> int:
    """A whole number in [0, 2**31) that is always the same for the same parts."""
    text = "\x1f".join(map(str, parts)).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little") >> 1


def plain_prompt(prompt: str) -> str:
    """The prompt of a base model that has no chat template."""
    # As readers report of "Value Drifts" (arXiv 2510.26707); stages train a base model on the same words.
    return f"{prompt}\nResponse:"


def chat_text(tokenizer: PreTrainedTokenizerBase, prompt: str, speech: Speech = PLAIN) -> str:
    """The prompt as the model sees it: by its chat template, or for a base model followed by a line "Response:"."""
    return chat_texts(tokenizer, [prompt], speech)[0]


def chat_texts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], speech: Speech = PLAIN) -> list[str]:
    """As ``chat_text``, many prompts."""
    if tokenizer.chat_template is None:
        return [plain_prompt(prompt) for prompt in prompts]
    return speech.prompts(tokenizer, ([{"role": "user", "content": prompt}] for prompt in prompts))


def encode(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], speech: Speech = PLAIN) -> list[list[int]]:
    """Token ids of every prompt as the model sees it, with exactly one BOS where the model uses one."""
    return _encoded(tokenizer, chat_texts(tokenizer, prompts, speech))


def _encoded(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    # A chat template writes its own BOS; the tokenizer would add a second one.
    ids = tokenizer(texts, add_special_tokens=tokenizer.chat_template is None)["input_ids"]
    return [list(row) for row in ids]


def _gives_router_logits(config: PreTrainedConfig) -> bool:
    return bool(getattr(config, "output_router_logits", False))


@contextmanager
def evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """Dropout off, cache on, no gradients; everything as it was afterwards, in the middle of a training step too.

    A mixture of experts gives no router logits meanwhile: they are for its training loss, and none fits a cache.
    """
    import torch

    use_cache = model.config.use_cache
    routers = [config for config in (model.config, model.config.get_text_config()) if _gives_router_logits(config)]
    training = [(module, module.training) for module in model.modules()]
    # Checkpointed layers keep no cache, and generation would slow down. The flags alone are turned: to disable and
    # enable it again would lose which layers, and how (re-entrant or not, offloaded).
    checkpointing = [(module, True) for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    for module, _ in checkpointing:
        module.gradient_checkpointing = False  # type: ignore[assignment]
    for config in routers:
        config.output_router_logits = False
    model.eval()
    model.config.use_cache = True
    try:
        with torch.no_grad():
            yield
    finally:
        model.config.use_cache = use_cache
        for config in routers:
            config.output_router_logits = True
        for module, flag in checkpointing:
            module.gradient_checkpointing = flag  # type: ignore[assignment]
        for module, flag in training:  # one by one: what was frozen in evaluation mode stays there
            module.training = flag


class Way(Protocol):
    """Answers what is asked of a model."""

    def run(self) -> list[list[int]]:
        """The tokens of every row, up to and with what ended it."""
        ...


class TransformersGenerator:
    """Generates with a causal language model in memory: a loaded one, or the live one in the middle of training."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path | None = None) -> None:
        """Keep the model and its tokenizer; neither is changed.

        ``folder`` is where the model was loaded from, of one that is not trained meanwhile.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.folder = folder

    def generate(
        self, prompts: Sequence[str], keys: Sequence[str], sampling: Sampling, progress: Progress
    ) -> list[list[str]]:
        """``sampling.samples`` responses for each prompt, many at once.

        Raises:
            ValueError: the model is split over processes that ask for different responses.
        """
        from valuedrift_mlflow.models.calling import check_in_step
        from valuedrift_mlflow.models.decoding import Asked

        if not prompts:
            return []
        tokenizer, speech, samples = self.tokenizer, sampling.speech, sampling.samples
        texts = chat_texts(tokenizer, prompts, speech)
        # A template that begins the thought leaves its mark out of the response, which would read like an answer.
        begins = [opened(text) for text in texts for _ in range(samples)]
        thinks = any(begins) or speech.may_think(tokenizer)

        # Whoever neither thinks nor has texts to stop at is not read while it speaks: that costs time.
        def reads(rows: Sequence[int], width: int) -> Ends:
            return Ends(tokenizer, speech, sampling.max_new_tokens, width, [bool(begins[row]) for row in rows])

        asked = Asked(
            _encoded(tokenizer, texts),
            samples,
            lambda row: uniforms(keys[row // samples], row % samples, sampling),
            sampling.temperature,
            sampling.longest if thinks else sampling.max_new_tokens,
            frozenset(end_tokens(self.model, tokenizer, speech.stop)),
            reads if thinks or speech.stop else None,
            sampling.batch_size,
            lambda row: seed_of(sampling.seed, sampling.salt, keys[row // samples], sampling.first + row % samples),
        )
        check_in_step(self.model, [asked.prompts, samples, sampling])
        with evaluation_mode(self.model):
            said = as_text(tokenizer, self._way(asked, sampling.engine, progress).run())
        whole = [before_stop(mark + text, speech.stop).strip() for mark, text in zip(begins, said, strict=True)]
        return [whole[start : start + samples] for start in range(0, len(whole), samples)]

    def _way(self, asked: Asked, engine: Engine, progress: Progress) -> Way:
        """What answers; libraries are loaded for the way that is taken alone."""
        if engine.backend == "continuous":
            from valuedrift_mlflow.models.continuous import ContinuousBatches

            return ContinuousBatches(self.model, asked, progress)
        if engine.backend == "vllm":
            from valuedrift_mlflow.models.vllm import VllmRows

            return VllmRows(self.model, asked, progress, str(engine.server), self.folder)
        from valuedrift_mlflow.models.calling import may_come_and_go
        from valuedrift_mlflow.models.decoding import Decoder
        from valuedrift_mlflow.models.whole import WholeBatches

        return (Decoder if may_come_and_go(self.model) else WholeBatches)(self.model, asked, progress)


class FunctionGenerator:
    """Wraps a function from a list of prompts to a list of responses: an MLflow pyfunc, an API client, anything."""

    def __init__(self, answer: Callable[[list[str]], Sequence[object]]) -> None:
        """Keep the function. It is called once for each sample, with all prompts; sampling is its own affair.

        Its answers may have any shape that `text_in` reads.
        """
        self.answer = answer

    def generate(
        self, prompts: Sequence[str], keys: Sequence[str], sampling: Sampling, progress: Progress
    ) -> list[list[str]]:
        """``sampling.samples`` responses for each prompt.

        Raises:
            ValueError: the function returned another number of responses than it was given prompts.
        """
        columns: list[list[str]] = []
        for _ in range(sampling.samples):
            answers = [text_in(output) for output in self.answer(list(prompts))]
            if len(answers) != len(prompts):
                raise ValueError(f"the model returned {len(answers)} responses to {len(prompts)} prompts")
            columns.append(answers)
            progress(len(prompts))
        return [list(row) for row in zip(*columns, strict=True)]
