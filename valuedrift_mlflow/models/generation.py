"""Prompts to responses: from a transformers model in memory, or from any function that answers a list of prompts.

Sampling is seeded for every (prompt, sample) by its own key, so that a subset of the prompts, another batch size or a
resumed run give the same responses (up to the last bits of the arithmetic).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.outputs import text_in
from valuedrift_mlflow.inputs.thoughts import before_stop, opened
from valuedrift_mlflow.models.ending import end_tokens, only_these_settings, pad_token
from valuedrift_mlflow.models.speech import Speech, as_text
from valuedrift_mlflow.models.stopping import Ends

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import Cache, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int], None]
_Row = TypeVar("_Row")
_SLICE = 12  # tokens after which ended rows leave; a slice costs some milliseconds to begin
PLAIN = Speech()  # no thought where the template can do without, and no end but the model's own


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. ``seed`` and ``salt`` tell measurements apart; ``temperature`` 0 is greedy.

    ``max_new_tokens`` are those of an answer; a thought before it has those of ``speech``.
    """

    samples: int
    temperature: float
    max_new_tokens: int
    batch_size: int = 64
    seed: int = 0
    salt: str = ""
    speech: Speech = field(default_factory=Speech)

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
    text = f"{sampling.seed}\x1f{sampling.salt}\x1f{key}\x1f{sample}".encode()
    # 16 bytes: Philox takes a key of 128 bits as it is, and each key has a stream of its own.
    entropy = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=entropy)).random(sampling.longest)


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


def learns_prompt(model: nn.Module) -> bool:
    """Whether a model has virtual tokens (or their keys and values) stand before every prompt."""
    from peft import PeftModel

    return isinstance(model, PeftModel) and bool(model.active_peft_config.is_prompt_learning)


def takes_positions(model: nn.Module) -> bool:
    """Whether a model takes position ids; recurrent ones have no positions, and prompt tuning sets its own."""
    from peft import PeftModel

    if isinstance(model, PeftModel):
        return not learns_prompt(model) and takes_positions(model.get_base_model())
    return "position_ids" in signature(type(model).forward).parameters


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


def _batches(rows: list[_Row], length: Callable[[_Row], int], size: int, *, alike: bool) -> Iterator[list[_Row]]:
    """Rows, sorted by their length, in batches of at most ``size``; ``alike`` keeps those of one length together."""
    for _, group in groupby(rows, length if alike else lambda _: 0):
        members = list(group)
        yield from (members[start : start + size] for start in range(0, len(members), size))


class TransformersGenerator:
    """Generates with a causal language model in memory: a loaded one, or the live one in the middle of training."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Keep the model and its tokenizer; neither is changed."""
        self.model = model
        self.tokenizer = tokenizer
        self._ends: list[int] = []

    def generate(
        self, prompts: Sequence[str], keys: Sequence[str], sampling: Sampling, progress: Progress
    ) -> list[list[str]]:
        """``sampling.samples`` responses for each prompt, batched, prompts of like length together."""
        speech = sampling.speech
        texts = chat_texts(self.tokenizer, prompts, speech)
        encoded = _encoded(self.tokenizer, texts)
        # A template that begins the thought leaves its mark out of the response, which would read like an answer.
        opens = [opened(text) for text in texts]
        self._ends = end_tokens(self.model, self.tokenizer, speech.stop)
        rows = [(index, sample) for index in range(len(prompts)) for sample in range(sampling.samples)]
        rows.sort(key=lambda row: -len(encoded[row[0]]))  # longest first: a batch that does not fit fails at once
        responses: list[list[str]] = [[""] * sampling.samples for _ in prompts]
        with evaluation_mode(self.model):
            alike = learns_prompt(self.model)  # virtual tokens stand before the padding, which would part them
            for batch in _batches(rows, lambda row: len(encoded[row[0]]), sampling.batch_size, alike=alike):
                numbers = np.stack([uniforms(keys[index], sample, sampling) for index, sample in batch])
                begins = [opens[index] for index, _ in batch]
                said = self._generate([encoded[index] for index, _ in batch], begins, numbers, sampling)
                for (index, sample), text in zip(batch, said, strict=True):
                    responses[index][sample] = text
                progress(len(batch))
        return responses

    def _generate(
        self, batch: list[list[int]], begins: list[str], numbers: NDArray[np.float64], sampling: Sampling
    ) -> list[str]:
        """One response to each row of tokens, with the mark of a thought that its prompt ``begins``."""
        import torch

        tokenizer, speech = self.tokenizer, sampling.speech
        pad = pad_token(tokenizer, self._ends)
        width = max(map(len, batch))
        # Padded on the left: the next token must come right after the prompt's last one.
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in batch], device=self.model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch], device=self.model.device)
        # With do_sample transformers would draw from the global random state; see _SeededSampling.
        draw = _SeededSampling(numbers, sampling.temperature, width) if sampling.temperature > 0 else None
        thinks = any(begins) or speech.may_think(tokenizer)
        ends = Ends(tokenizer, speech, sampling.max_new_tokens, width, [bool(mark) for mark in begins])
        # Whoever neither thinks nor has texts to stop at is not read while it speaks: that costs time.
        read = ends if thinks or speech.stop else None
        longest = sampling.longest if thinks else sampling.max_new_tokens
        tokens = self._tokens(ids, mask, longest, pad, draw, read)
        said = as_text(tokenizer, [row[:kept] for row, kept in zip(tokens, ends.kept, strict=True)])
        whole = (mark + text for mark, text in zip(begins, said, strict=True))
        return [before_stop(text, speech.stop).strip() for text in whole]

    def _tokens(
        self, ids: Tensor, mask: Tensor, longest: int, pad: int, draw: _SeededSampling | None, read: Ends | None
    ) -> list[list[int]]:
        """The tokens after each row of ``ids``, (rows, width): at most ``longest``, padded after the end.

        Generated in slices, after each of which the rows that have ended leave the batch: most responses are far
        shorter than the longest, and what transformers appends to an ended row costs as much as a token.
        """
        import torch
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        rows, width = list(range(len(ids))), ids.shape[1]
        said: list[list[int]] = [[] for _ in rows]
        cache: Cache | None = None
        ends = torch.tensor(self._ends, device=ids.device)
        step = _SLICE if _may_be_sliced(self.model) else longest
        while rows:
            done = ids.shape[1] - width
            if draw:
                draw.rows = rows
            if read:
                read.rows = rows
            settings = GenerationConfig(
                do_sample=False,
                max_new_tokens=min(step, longest - done),
                eos_token_id=self._ends or None,
                pad_token_id=pad,
                # Else the cache would not be given back.
                return_dict_in_generate=True,
            )
            with only_these_settings(self.model, settings):
                output = self.model.generate(  # type: ignore[operator]
                    input_ids=ids,
                    attention_mask=mask,
                    # With a cache transformers reads only what it lacks: the last token of each row.
                    past_key_values=cache,
                    logits_processor=LogitsProcessorList([draw] if draw else []),
                    stopping_criteria=StoppingCriteriaList([read] if read else []),
                )
            ids, cache = output.sequences, output.past_key_values
            new = ids[:, width + done :]
            for row, tokens in zip(rows, new.tolist(), strict=True):
                said[row] += tokens
            ended = torch.isin(new, ends).any(dim=1)
            if read:
                ended |= torch.tensor([read.kept[row] is not None for row in rows], device=ids.device)
            left = (~ended).nonzero().squeeze(1)
            if ids.shape[1] - width >= longest or not len(left):
                break
            if len(left) < len(rows):
                rows, ids, mask = [rows[at] for at in left.tolist()], ids[left], mask[left]
                cache.batch_select_indices(left)
            # generate() lengthens a mask of its own, and does not give it back.
            mask = torch.cat([mask, mask.new_ones(len(rows), ids.shape[1] - mask.shape[1])], dim=1)
        return said


def _may_be_sliced(model: PreTrainedModel) -> bool:
    """Whether generation can go on from its cache with fewer rows: not where layers keep a state that is no cache."""
    from peft import PeftModel

    if isinstance(model, PeftModel):  # learned prompts stand in the cache before anything is asked
        return not learns_prompt(model) and _may_be_sliced(model.get_base_model())
    kind: Any = type(model)
    return bool(kind._supports_default_dynamic_cache() and not kind._is_stateful)


class _SeededSampling:
    """Draws each row's next token by inverting the cumulative distribution at the row's own random number.

    As a logits processor before greedy decoding it leaves only the drawn token; the global random state is not touched.
    """

    def __init__(self, numbers: NDArray[np.float64], temperature: float, prompt_width: int) -> None:
        self.numbers = numbers
        self.temperature = temperature
        self.prompt_width = prompt_width
        self.rows = list(range(len(numbers)))  # those that have not ended

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        probabilities = torch.softmax(scores.float() / self.temperature, dim=-1)
        cumulative = probabilities.cumsum(dim=-1)
        at = torch.tensor(
            self.numbers[self.rows, input_ids.shape[1] - self.prompt_width], dtype=torch.float32, device=scores.device
        )
        # Sums in 32 bits end near 1, not at it, so the number is scaled to where they end. right=True: a number of 0
        # must not draw a token of probability 0.
        drawn = torch.searchsorted(cumulative, (at * cumulative[:, -1]).unsqueeze(-1), right=True)
        drawn = drawn.clamp(max=scores.shape[-1] - 1)  # a scaled number may round up to the last sum
        return torch.full_like(scores, float("-inf")).scatter(-1, drawn, 0.0)


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
