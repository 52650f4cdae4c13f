"""Compared answers as token ids, for trainers that would tokenize them otherwise than evaluation does.

TRL's trainers tell a chat template nothing of thinking, and leave out of a row what a prompt ends with and a dialogue
does not show. Its experimental ones work on text: they put a BOS before a prompt whose chat template has none, and a
second EOS after an assistant's turn whose template goes on behind the first one, as many do with a line break.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from valuedrift_mlflow.data.arrow_rows import as_dataset, store
from valuedrift_mlflow.data.messages import Message
from valuedrift_mlflow.inputs.rows import alike
from valuedrift_mlflow.models.speech import Rendering, Speech
from valuedrift_mlflow.stages.lengths import fit
from valuedrift_mlflow.stages.stage import Job

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

_Text = TypeVar("_Text", str, list[Message])  # as a model without a chat template sees it, and as one with it


def tokenized_pairs(job: Job) -> datasets.Dataset:
    """The stage's pairs in the columns that ``DPODataCollatorWithPadding`` collates.

    These are ``chosen_input_ids``, ``chosen_attention_mask``, ``chosen_labels`` (-100 on the prompt) and the same for
    ``rejected``; each at most ``max_length`` long. Answers that are cut lose their EOS; all others end in exactly one.
    """
    return as_dataset(store(_tokenized(job)))


def _tokenized(job: Job) -> Iterator[dict[str, list[int]]]:
    rendering = _rendering(job)
    for row in fit(job):
        tokens: dict[str, list[int]] = {}
        for side in ("chosen", "rejected"):
            prompt, answer = prompt_and_answer(job.tokenizer, row["prompt"], row[side], rendering)
            # Cut at the end: `fit` has made sure that the prompt leaves room.
            ids = (prompt + answer)[: job.stage.max_length]
            tokens[f"{side}_input_ids"] = ids
            tokens[f"{side}_attention_mask"] = [1] * len(ids)
            tokens[f"{side}_labels"] = [-100] * len(prompt) + ids[len(prompt) :]
        yield tokens


def _rendering(job: Job) -> Rendering | None:
    return None if job.tokenizer.chat_template is None else job.speech.rendering(job.tokenizer)


def prompt_and_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: _Text, answer: _Text, rendering: Rendering | None = None
) -> tuple[list[int], list[int]]:
    """Ids of a prompt as evaluation encodes it, and of its answer up to and with the EOS of its last turn.

    Both are messages, by ``rendering`` (that of a measurement without settings where it is not given), or for a model
    without a chat template both are text. Where a template shows a prompt alone otherwise than with its answer, the
    answer starts where the two part.
    """
    if isinstance(prompt, str):
        asked, whole = (list(ids) for ids in tokenizer([prompt, prompt + answer])["input_ids"])
    else:
        rendering = rendering or Speech().rendering(tokenizer)
        asked, whole = rendering.ids(*_texts(rendering, prompt, answer))
    shared = alike(asked, whole)
    end: int = tokenizer.eos_token_id
    said: list[int] = whole[shared:]
    turns: int = 1 if isinstance(answer, str) else len(answer)
    ends: list[int] = [place for place, token in enumerate(said) if token == end] or [len(said)]
    # A side of one turn ends with its first end, one of several with that of its last turn.
    return asked[:shared], [*said[: ends[0 if turns == 1 else -1]], end]


def _texts(rendering: Rendering, prompt: Sequence[Message], answer: Sequence[Message]) -> tuple[str, str]:
    """A prompt, and the whole exchange."""
    exchange = rendering.exchange(prompt, answer)
    return exchange.asked, exchange.asked + exchange.said


def asked_and_said(job: Job) -> datasets.Dataset:
    """The stage's rows as TRL's DPO and KTO collate them: ``prompt_ids``, and for each side of a row ``SIDE_ids``.

    The sides are chosen and rejected, or completion, whose ``label`` stays. Without a chat template they are text,
    which TRL tokenizes as it should.
    """
    rows, rendering = fit(job), _rendering(job)
    return rows if rendering is None else as_dataset(store(_ids(rows, rendering)))


def _ids(rows: datasets.Dataset, rendering: Rendering) -> Iterator[dict[str, list[int] | bool]]:
    for row in rows:
        sides = [side for side in ("chosen", "rejected", "completion") if side in row]
        texts = [_texts(rendering, row["prompt"], row[side]) for side in sides]
        wholes = rendering.ids(*(whole for _, whole in texts))
        asked = rendering.ids(*(prompt for prompt, _ in texts))
        # One prompt for both sides: where one of them brings a thought of its own, up to that.
        shared = min(alike(prompt, whole) for prompt, whole in zip(asked, wholes, strict=True))
        label = {"label": row["label"]} if "label" in row else {}
        ids = {f"{side}_ids": whole[shared:] for side, whole in zip(sides, wholes, strict=True)}
        yield {"prompt_ids": wholes[0][:shared], **ids, **label}
