"""Rows that fit into a stage's ``max_length``: old turns go first, and no row is left without an answer."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from valuedrift_mlflow.data.arrow_rows import BATCH, as_dataset, store
from valuedrift_mlflow.data.formats import MAX_DROPPED
from valuedrift_mlflow.data.messages import Message
from valuedrift_mlflow.data.turns import single
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.rows import Record
from valuedrift_mlflow.models.generation import plain_prompt
from valuedrift_mlflow.models.speech import Rendering
from valuedrift_mlflow.stages.stage import Job

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)
_ROOM = 0.25  # share of max_length that a prompt must leave to its answer before its oldest turns go


def fit(job: Job) -> datasets.Dataset:
    """The stage's rows with prompts shortened to leave room for their answers.

    Trainers cut a row at its end, and a prompt that fills ``max_length`` would leave an empty answer and a loss of
    NaN. So the oldest turns of a long dialogue are left out (never a system prompt, never the last message), and a
    row whose last message alone is too long is dropped and counted. A stage that samples its responses needs room for
    ``response_length`` tokens; its rows also keep their messages in a column ``asked``.

    Raises:
        InputError: more than 1 % of the rows would be dropped.
    """
    import datasets

    datasets.disable_progress_bars()
    shortened: list[int] = []
    asked: list[int] = []
    rows = store(_fitting(job, shortened, asked))
    refuse_if_many(job, sum(asked) - len(rows), sum(asked))
    if sum(shortened):
        logger.info("%s: %d long dialogues shortened", job.stage.name, sum(shortened))
    return as_dataset(rows)


def sources(job: Job, fitted: int) -> Sequence[int]:
    """Of each row that ``fit`` gives, of which there are ``fitted``, the row of the stage's data that it came from."""
    rows = job.data.rows
    # Without a chat template a dialogue of several answers is several rows.
    whole = job.tokenizer.chat_template is not None or job.data.kind != "sft"
    if whole and fitted == len(rows):
        return range(fitted)
    alone = (replace(job, data=replace(job.data, rows=[row])) for row in rows)
    return [number for number, one in enumerate(alone) for _ in _fitting(one, [], [])]


def _fitting(job: Job, shortened: list[int], asked: list[int]) -> Iterator[Record]:
    """The rows that fit. ``shortened`` gets the number of shortened ones of every batch, ``asked`` that of all."""
    stage = job.stage
    if stage.sampled_length:
        longest = comfortable = stage.max_length - stage.sampled_length
    else:
        # One token is the least that an answer needs.
        longest, comfortable = stage.max_length - 1, int(stage.max_length * (1 - _ROOM))
    dataset = job.data.dataset()
    # Without a chat template a model is asked one thing at a time: every answer is a row.
    alone = job.tokenizer.chat_template is None and job.data.kind == "sft"
    for batch in _batches((one for row in dataset for one in single(row)) if alone else dataset):
        shortened.append(0)
        asked.append(len(batch))
        for row, length in zip(batch, _prompt_lengths(job, [row["prompt"] for row in batch]), strict=True):
            prompt = list(row["prompt"])
            while length > comfortable and (shorter := _without_oldest_turn(prompt)) is not None:
                prompt = shorter
                length = _prompt_lengths(job, [prompt])[0]
            shortened[-1] += len(prompt) < len(row["prompt"])
            if length <= longest:
                fitted = {**row, "prompt": prompt, **({"asked": prompt} if stage.sampled_length else {})}
                yield _plain(fitted) if job.tokenizer.chat_template is None else fitted


def _batches(dataset: Iterable[Record]) -> Iterator[list[Record]]:
    rows = iter(dataset)
    while batch := list(islice(rows, BATCH)):
        yield batch


def refuse_if_many(job: Job, dropped: int, total: int) -> None:
    """Say how many rows of a stage are too long.

    Raises:
        InputError: more than 1 % of them are.
    """
    if dropped > MAX_DROPPED * total:
        raise InputError(
            problem(
                f"{job.stage.name}.max_length",
                job.stage.max_length,
                f"a length at which at most {MAX_DROPPED:.0%} of the prompts leave no room for an answer",
                f"{dropped} of {total} rows do not fit: raise it or shorten the data",
            )
        )
    if dropped:
        logger.info("%s: %d of %d rows dropped, too long", job.stage.name, dropped, total)


def _plain(row: Record) -> Record:
    """A row for a base model without a chat template: the prompt as evaluation asks it, the answer after it."""
    text = plain_prompt("\n".join(str(message["content"]) for message in row["prompt"]))
    # The space is what a model says first after "Response:"; evaluation strips it.
    answers: dict[str, str] = {
        side: " " + "\n\n".join(message["content"] for message in row[side])
        for side in ("completion", "chosen", "rejected")
        if side in row
    }
    return {**row, "prompt": text, **answers}


def _without_oldest_turn(prompt: list[Message]) -> list[Message] | None:
    """The prompt without its oldest user message and the answer to it; None where only the last one is left."""
    head = 1 if prompt[0]["role"] == "system" else 0
    users = [index for index in range(head, len(prompt)) if prompt[index]["role"] == "user"]
    return prompt[:head] + prompt[users[1] :] if len(users) > 1 else None


def _prompt_lengths(job: Job, prompts: Sequence[Sequence[Message]]) -> list[int]:
    """Tokens of every prompt as the model sees it."""
    tokenizer = job.tokenizer
    if tokenizer.chat_template is None:
        texts = [plain_prompt("\n".join(str(message["content"]) for message in prompt)) for prompt in prompts]
    else:
        rendering = job.speech.rendering(tokenizer)
        texts = [_rendered(job, prompt, rendering) for prompt in prompts]
    # A chat template writes its own BOS; the tokenizer would add, and count, a second one.
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=tokenizer.chat_template is None)["input_ids"]]


def _rendered(job: Job, prompt: Sequence[Message], rendering: Rendering) -> str:
    """A prompt by the chat template.

    Raises:
        InputError: the template refuses its roles, and nobody could ask it while the data were read.
    """
    from jinja2 import TemplateError

    try:
        return rendering.prompt(prompt)
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in prompt)
        found = f"a prompt of the roles {roles}, beginning {prompt[0]['content'][:60]!r}: {error}"
        raise InputError(problem(f"{job.stage.name} data", found, "what the model's chat template takes")) from None
