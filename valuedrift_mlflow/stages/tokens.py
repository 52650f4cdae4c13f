"""Preference pairs as token ids, for trainers that would tokenize them otherwise than evaluation does.

TRL's experimental preference trainers work on text. They put a BOS before a prompt whose chat template has none, and a
second EOS after an assistant's turn whose template goes on behind the first one, as many do with a line break.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from valuedrift_mlflow.data.arrow_rows import as_dataset, store
from valuedrift_mlflow.data.messages import Message
from valuedrift_mlflow.data.turns import alike
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
    for row in fit(job):
        tokens: dict[str, list[int]] = {}
        for side in ("chosen", "rejected"):
            prompt, answer = prompt_and_answer(job.tokenizer, row["prompt"], row[side])
            # Cut at the end: `fit` has made sure that the prompt leaves room.
            ids = (prompt + answer)[: job.stage.max_length]
            tokens[f"{side}_input_ids"] = ids
            tokens[f"{side}_attention_mask"] = [1] * len(ids)
            tokens[f"{side}_labels"] = [-100] * len(prompt) + ids[len(prompt) :]
        yield tokens


def prompt_and_answer(tokenizer: PreTrainedTokenizerBase, prompt: _Text, answer: _Text) -> tuple[list[int], list[int]]:
    """Ids of a prompt as evaluation encodes it, and of its answer up to and with the EOS of its last turn.

    Both are messages, or for a model without a chat template both are text. Where a template shows a prompt alone
    otherwise than with its answer, the answer starts where the two part.
    """
    if isinstance(prompt, str):
        asked, whole = (list(ids) for ids in tokenizer([prompt, prompt + answer])["input_ids"])
    else:
        # With return_dict=False: transformers 5 gives a mapping of ids and mask without it.
        template = tokenizer.apply_chat_template
        asked = list(template(prompt, tokenize=True, add_generation_prompt=True, return_dict=False))
        whole = list(template(prompt + answer, tokenize=True, return_dict=False))
    shared = alike(asked, whole)
    end: int = tokenizer.eos_token_id
    said: list[int] = whole[shared:]
    turns: int = 1 if isinstance(answer, str) else len(answer)
    ends: list[int] = [place for place, token in enumerate(said) if token == end] or [len(said)]
    # A side of one turn ends with its first end, one of several with that of its last turn.
    return asked[:shared], [*said[: ends[0 if turns == 1 else -1]], end]
