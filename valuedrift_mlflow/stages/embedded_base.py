"""The small base model of the embedded world: shipped with the package, and trained anew where its texts have changed.

python -m valuedrift_mlflow.stages.embedded_base

trains it and puts it in its place in the package (about three minutes on two cores).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.embedded import corpus, shipped, world
from valuedrift_mlflow.inputs.errors import InputError, one_line
from valuedrift_mlflow.inputs.scratch import temporary_folder
from valuedrift_mlflow.models.loading import Loaded, from_folder
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.pretrain import Pretrain
from valuedrift_mlflow.stages.stage import Job

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

BASE_THREADS = 2  # fixed, because sums in another order would give another model


def load_embedded(uri: str) -> Loaded:
    """The model ``embedded:base``, trained where it is not yet in the cache, or ``embedded:random``."""
    if uri == "embedded:base":
        folder = base_folder()
        try:
            return from_folder(uri, folder)
        except InputError as error:  # files that were cut in the cache, as by a full disk
            raise InputError(f"{one_line(error)}; delete {folder}, and it is made again") from error
    return Loaded(uri, *_random())


def _random() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    tokenizer = shipped.tokenizer()
    return world.random_model(tokenizer).eval(), tokenizer


def base_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer trained on the texts of the base model."""
    texts = (message["content"] for row in corpus.rows(base_stage().data.uri) for message in row["messages"])
    return world.train_tokenizer(texts)


def base_stage() -> Pretrain:
    """How the embedded base model is trained, as the recipe ``pretrain`` has it too."""
    # What is not at its default here is a part of the model's key in the cache: a change trains it anew everywhere.
    return Pretrain(
        name="pretrain",
        algorithm="pretrain",
        data=Data(uri="embedded:sft?size=16000&seed=101"),
        learning_rate=4e-3,
        max_steps=1000,
        batch_size=32,
        warmup_ratio=0.05,
        max_length=256,
    )


def base_folder(callbacks: Sequence[TrainerCallback] = ()) -> Path:
    """The folder of the embedded base model in the user's cache: unpacked there, or trained where it is not shipped."""
    settings = base_settings()

    def build(folder: Path) -> None:
        if shipped.is_of(world.made_of(settings)):
            shipped.unpack(folder)
        else:
            train_base(folder, callbacks)

    return world.cached("base", settings, build)


def base_settings() -> dict[str, object]:
    """What the base model is made of, beside the architecture: how it is trained, and the hash of its texts."""
    # What is left at its default is left out: a key that a later version adds is no reason to train the model anew.
    return base_stage().model_dump(mode="json", exclude_defaults=True) | {"texts": _texts_digest()}


def train_base(folder: Path, callbacks: Sequence[TrainerCallback] = ()) -> None:
    """Train the base model and save it to ``folder``."""
    import torch

    tokenizer = base_tokenizer()
    model = world.random_model(tokenizer)
    threads = torch.get_num_threads()
    # Set back afterwards: it holds for the whole process, which goes on with other work.
    torch.set_num_threads(BASE_THREADS)
    try:
        _pretrain(model, tokenizer, folder, callbacks)
    finally:
        torch.set_num_threads(threads)


# Cached: the 16,000 rows are written anew for it.
@cache
def _texts_digest() -> str:
    """Hash of all texts that the model is trained on: other texts make another model, another formatting does not."""
    digest = hashlib.sha256()
    for row in corpus.rows(base_stage().data.uri):
        for message in row["messages"]:
            digest.update(f"{message['role']}\x1f{message['content']}\x1e".encode())
    return digest.hexdigest()


def _pretrain(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, callbacks: Sequence[TrainerCallback]
) -> None:
    """Train the model on its corpus and save it to ``folder``."""
    stage = base_stage()
    data = datasets.load_data(stage.data, "sft")
    trainer = build_trainer(Job(stage, model, tokenizer, data, folder, world.SEED, callbacks))
    trainer.train()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    with temporary_folder() as scratch:
        train_base(Path(scratch))
        shipped.pack(Path(scratch), world.made_of(base_settings()))
