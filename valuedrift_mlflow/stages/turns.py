"""Rows of SFT as token ids: each is asked as it is measured, and the assistant's turns alone are trained."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow.data.arrow_rows import as_dataset, store
from valuedrift_mlflow.data.messages import Message
from valuedrift_mlflow.inputs.rows import alike
from valuedrift_mlflow.models.speech import Rendering
from valuedrift_mlflow.stages.lengths import fit
from valuedrift_mlflow.stages.stage import Job

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)
_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_UNTRAINED = -100  # what cross-entropy leaves out


def dialogues(job: Job, *, answers_alone: bool) -> datasets.Dataset:
    """The stage's rows for TRL's SFTTrainer: ``input_ids`` and ``labels`` (-100 where nothing is trained).

    TRL would render them by what the chat template says where it is told nothing, and train what users say between
    answers. Without a chat template they are prompt and completion, plain text.

    Args:
        job: of the stage.
        answers_alone: train what the assistant says; else every token.
    """
    rows = fit(job)
    if job.tokenizer.chat_template is None:
        return rows
    rendering, cut = job.speech.rendering(job.tokenizer), list[int]()
    if answers_alone:
        marked = bool(_MARK.search(str(job.tokenizer.chat_template))) and any(len(r["completion"]) > 1 for r in rows)
        made = store(_labelled(job, rows, rendering, cut, marked=marked))
    else:
        made = store(_whole(rows, rendering))
    if sum(cut):
        lost, most = sum(cut), job.stage.max_length
        logger.warning("%s: %d answers begin behind max_length (%d) and are not trained", job.stage.name, lost, most)
    return as_dataset(made)


def packed(job: Job) -> int | None:
    """How many rows are left where the stage's trainer packs them (``trainer.packing``), by TRL's own packing.

    None for a model without a chat template, whose rows TRL tokenizes itself.
    """
    from trl import pack_dataset

    rows, told = dialogues(job, answers_alone=False), job.stage.trainer
    if "input_ids" not in rows.column_names:
        return None
    if told.get("shuffle_dataset"):  # what is packed together depends on the order
        rows = rows.shuffle(seed=job.seed)
    return len(pack_dataset(rows, job.stage.max_length, str(told.get("packing_strategy", "bfd"))))


def _whole(rows: datasets.Dataset, rendering: Rendering) -> Iterator[dict[str, list[int]]]:
    for row in rows:
        [ids] = rendering.ids(rendering.row(row["prompt"], row["completion"]))
        yield {"input_ids": ids, "labels": list(ids)}


def _labelled(
    job: Job, rows: datasets.Dataset, rendering: Rendering, cut: list[int], *, marked: bool
) -> Iterator[dict[str, list[int]]]:
    """``cut`` gets of every row the answers that begin behind ``max_length``."""
    for row in rows:
        ids, spans = spoken(rendering, row["prompt"], row["completion"], marked=marked)
        labels = [_UNTRAINED] * len(ids)
        for begin, end in spans:
            labels[begin:end] = ids[begin:end]
        cut.append(sum(begin >= job.stage.max_length for begin, _ in spans))
        yield {"input_ids": ids, "labels": labels}


def spoken(
    rendering: Rendering, prompt: Sequence[Message], completion: Sequence[Message], *, marked: bool
) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of a dialogue, and where each of the completion's answers begins and ends in them.

    A template with generation marks (``marked``) says itself what is generated. Else an answer begins where the
    dialogue before it ends as evaluation asks it, and ends where the dialogue up to it ends. Where the template shows
    an earlier answer otherwise than a last one (without its thought), it ends with the first token that ends a turn.
    """
    messages = [*prompt, *completion]
    text = rendering.row(prompt, completion)
    if marked and text == rendering.dialogue(messages):  # else there is more in it than the marks know of
        return _marked(rendering, messages, prompt)
    [whole] = rendering.ids(text)
    answers = [at for at in range(len(prompt), len(messages)) if messages[at]["role"] == "assistant"]
    spans = []
    for at in answers:
        [asked] = rendering.ids(rendering.prompt(messages[:at]))
        begin = alike(asked, whole)
        if at == answers[-1]:
            end = len(whole)
        else:
            [said] = rendering.ids(rendering.dialogue(messages[: at + 1]))
            following = (place + 1 for place in range(begin, len(whole)) if whole[place] in rendering.ends)
            end = len(said) if whole[: len(said)] == said else next(following, len(whole))
        spans.append((begin, end))
    return whole, spans


def _marked(
    rendering: Rendering, messages: list[Message], prompt: Sequence[Message]
) -> tuple[list[int], list[tuple[int, int]]]:
    """What generation marks say, behind the prompt."""
    template: Any = rendering.tokenizer.apply_chat_template  # a template's own arguments have no types
    told = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    made = template(messages, **told, **rendering.arguments)
    ids, mask = list(made["input_ids"]), list(made["assistant_masks"])
    [asked] = rendering.ids(rendering.prompt(prompt))
    first = alike(asked, ids)
    mask[:first] = [0] * first
    edges = [at for at in range(len(mask) + 1) if (mask[at : at + 1] or [0])[0] != (mask[at - 1] if at else 0)]
    return ids, list(zip(edges[::2], edges[1::2], strict=True))
