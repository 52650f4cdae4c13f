"""The embedded base model: its tokenizer, its architecture, and the place where the trained one is kept."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow.inputs.scratch import temporary_folder
from valuedrift_mlflow.inputs.sealed import damage, seal

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)
_WHOLE = "whole.json"  # the file that says a model in the cache is whole
_UNKEPT: dict[Path, tempfile.TemporaryDirectory[str]] = {}
SEED = 0
VOCABULARY = 3072
POSITIONS = 2048
ARCHITECTURE: dict[str, Any] = {
    "hidden_size": 160,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"
# An assistant turn ends exactly at EOS: text after it would make some trainers append a second one.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|assistant|>{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ '<|' + message['role'] + '|>' }}{{ message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ROLES = ("<|user|>", "<|assistant|>", "<|system|>")


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer (any text can be encoded) with the chat template of the embedded world."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, EOS, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # bytes that the texts do not have get a token too
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=POSITIONS
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def random_model(tokenizer: PreTrainedTokenizerFast, seed: int = SEED) -> LlamaForCausalLM:
    """A Llama of about 1.7 million parameters with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    # The caller's random numbers stay where they were.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                max_position_embeddings=POSITIONS,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                # Tied, adapters on the layers between would hardly move so small a model.
                tie_word_embeddings=False,
                **ARCHITECTURE,
            )
        )


def cache_folder() -> Path:
    """The user's cache directory for trained embedded models."""
    from platformdirs import user_cache_path

    return user_cache_path("valuedrift-mlflow")


def made_of(settings: dict[str, object]) -> str:
    """Hash of what a model of the embedded world is made of: architecture, template, settings."""
    own = [SEED, VOCABULARY, POSITIONS, ARCHITECTURE, BOS, EOS, PAD, CHAT_TEMPLATE, ROLES]
    return hashlib.sha256(json.dumps([own, settings], sort_keys=True, default=str).encode()).hexdigest()


def fingerprint(settings: dict[str, object]) -> str:
    """Hash of `made_of` and of the versions of the libraries that made it."""
    # Their versions too: another one computes other last bits, and a training makes another model of them.
    libraries = {name: version(name) for name in ("torch", "transformers", "trl", "tokenizers", "numpy")}
    described = json.dumps([made_of(settings), libraries], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def cached(name: str, settings: dict[str, object], build: Callable[[Path], None]) -> Path:
    """The folder of a model, built where it is missing or damaged; a build that is cut off leaves nothing behind.

    Where the cache cannot be written to, the folder is there until the process ends.
    """
    target = cache_folder() / f"{name}-{fingerprint(settings)}"
    found = damage(target, _WHOLE) if target.is_dir() else "missing"
    if not found:
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, as os.replace does not cross file systems.
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    except OSError as error:
        logger.warning("the model %s is not kept in %s: %s", name, target.parent, error.strerror)
        return _unkept(target, build)
    if target.is_dir():
        logger.warning("%s is damaged (%s): it is made again", target, found)
        with suppress(OSError):  # another process may be mending it
            os.replace(target, Path(tempfile.mkdtemp(prefix=f".{name}-damaged-", dir=target.parent)) / "damaged")
    try:
        build(scratch)
        seal(scratch, _WHOLE)
        try:
            os.replace(scratch, target)
        except OSError:
            if not target.is_dir():  # another process that built the same model may have come first
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for rest in target.parent.glob(f".{name}-damaged-*"):
            shutil.rmtree(rest, ignore_errors=True)
    return target


def _unkept(target: Path, build: Callable[[Path], None]) -> Path:
    """A model in a temporary folder, built once in a process."""
    if target not in _UNKEPT:
        scratch = temporary_folder()
        build(Path(scratch.name))
        _UNKEPT[target] = scratch
    return Path(_UNKEPT[target].name)
