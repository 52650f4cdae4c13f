"""What rates responses: a reward model (sequence classification with one label) or any Python function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.data.datasets import Message
from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.modules import NotImported
from valuedrift_mlflow.inputs.parts import is_object, load_object
from valuedrift_mlflow.inputs.reading import user_path
from valuedrift_mlflow.inputs.thoughts import spoken
from valuedrift_mlflow.models import auto
from valuedrift_mlflow.models.generation import plain_prompt
from valuedrift_mlflow.models.how import STORED, How

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_ONE_LABEL = "a sequence-classification model with one label, as the stage `reward` saves it"


class RewardFunction(Protocol):
    """Rates responses."""

    def __call__(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> torch.Tensor:
        """One finite number for each response, higher is better: shape (n,), float. ``prompts`` are messages."""
        ...


def rate(reward: RewardFunction, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> torch.Tensor:
    """The reward's ratings of responses, checked: shape (n,), float32.

    It reads an answer without the thought before it; of a response that ends in its thought, nothing.

    Raises:
        ValueError: another number of ratings than there are responses.
        FloatingPointError: a rating is NaN or infinite; the message has the response.
    """
    said = [spoken(response) for response in responses]
    answers = [text.answer.strip() if text.finished else "" for text in said]
    return _checked(reward(prompts, answers), answers)


def _checked(ratings: object, responses: Sequence[str]) -> torch.Tensor:
    import torch

    checked = torch.as_tensor(ratings, dtype=torch.float32).detach()
    if checked.shape != (len(responses),):
        raise ValueError(f"the reward has shape {tuple(checked.shape)} for {len(responses)} responses")
    wrong = (~checked.isfinite()).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise FloatingPointError(f"the reward of the response {responses[row]!r} is {float(checked[row])}")
    return checked


def check_reward(uri: str, field: str = "reward") -> None:
    """Everything that can be said of a reward without loading a model; a Python function's module is imported.

    Where the job is only looked at, the module is found and not imported.

    Raises:
        InputError: a module or function that is not there, a missing folder, a model of another kind.
    """
    if is_object(uri):
        with suppress(NotImported):
            _function(uri, field)
        return
    models.check_model(uri, field)
    if user_path(uri).is_dir():
        _check_kind(uri, user_path(uri), field)


def load_reward(uri: str, field: str = "reward", how: How = STORED) -> RewardFunction:
    """The reward that a URI names: a folder, a hub id, ``models:/m-...``, ``runs:/RUN_ID/PATH`` or ``module:function``.

    Raises:
        InputError: as in ``check_reward``, or the model cannot be loaded.
    """
    check_reward(uri, field)
    if is_object(uri):
        return FunctionReward(_function(uri, field))
    if uri.startswith(tracking.MLFLOW_PREFIXES):
        folder = tracking.checkpoint_folder(uri)
        if folder is None:
            raise InputError(problem(field, uri, f"{_ONE_LABEL}, logged as a checkpoint"))
        return _classifier(uri, folder, field, how)
    folder = user_path(uri)
    return _classifier(uri, folder if folder.is_dir() else Path(uri), field, how)


def plain_text(prompt: Sequence[Message]) -> str:
    """A prompt's messages as one text: their contents, one below the other."""
    return "\n".join(message["content"] for message in prompt)


class FunctionReward:
    """A Python function from prompts and responses (two lists of texts) to as many numbers."""

    def __init__(self, function: Callable[[list[str], list[str]], Sequence[float]]) -> None:
        """Keep the function. Prompts of several messages reach it as their contents, one below the other."""
        self.function = function

    def __call__(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> torch.Tensor:
        """The function's numbers, shape (n,).

        Raises:
            ValueError: the function gave another number of ratings.
            FloatingPointError: a rating is NaN or infinite.
        """
        ratings = self.function([plain_text(prompt) for prompt in prompts], list(responses))
        return _checked([float(number) for number in ratings], responses)


class ClassifierReward:
    """The single logit of a sequence classifier at the last token of prompt and response."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int = 64) -> None:
        """Keep the model, which rates ``batch_size`` responses at once."""
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size

    def __call__(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> torch.Tensor:
        """The logits, shape (n,), float32 on the CPU."""
        import torch

        texts = [self._text(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        ratings = [self._rate(texts[at : at + self.batch_size]) for at in range(0, len(texts), self.batch_size)]
        return torch.cat(ratings) if ratings else torch.zeros(0)

    def _text(self, prompt: Sequence[Message], response: str) -> str:
        """The text as a reward model is trained on it: by the chat template, or plain and ended by EOS."""
        tokenizer = self.tokenizer
        if tokenizer.chat_template is None:
            return f"{plain_prompt(plain_text(prompt))} {response}{tokenizer.eos_token or ''}"
        chat = [*prompt, {"role": "assistant", "content": response}]
        return str(tokenizer.apply_chat_template(chat, tokenize=False))

    def _rate(self, texts: list[str]) -> torch.Tensor:
        import torch

        batch = self.tokenizer(
            texts, add_special_tokens=self.tokenizer.chat_template is None, padding=True, return_tensors="pt"
        )
        batch = {key: batch[key].to(self.model.device) for key in ("input_ids", "attention_mask")}
        with torch.no_grad():
            logits: torch.Tensor = self.model(**batch).logits
        return logits[:, 0].float().cpu()


def _function(uri: str, field: str) -> Callable[[list[str], list[str]], Sequence[float]]:
    function = load_object(uri, field, "function")
    try:
        inspect.signature(function).bind([], [])
    except TypeError as error:
        allowed = "a function of prompts and responses, two lists of texts"
        raise InputError(problem(field, uri, allowed, one_line(error))) from None
    except ValueError:  # a function of another language tells no signature
        pass
    return cast("Callable[[list[str], list[str]], Sequence[float]]", function)


def _check_kind(uri: str, folder: Path, field: str) -> None:
    """Refuse another kind of model by its config; ``folder`` may stand for a hub id."""
    if (folder / "adapter_config.json").is_file():
        raise InputError(problem(field, uri, _ONE_LABEL, "fold the adapters into the model first"))
    try:
        config = auto.config(str(folder))
    except (OSError, ValueError) as error:
        raise InputError(problem(field, uri, _ONE_LABEL, one_line(error))) from error
    kinds = config.architectures or []
    if not any(name.endswith("ForSequenceClassification") for name in kinds):
        raise InputError(problem(field, f"{uri} ({', '.join(kinds)})", _ONE_LABEL))
    # Of several labels nobody knows which one is good; `_rate` reads the first.
    if config.num_labels != 1:
        raise InputError(problem(field, f"{uri} ({config.num_labels} labels)", _ONE_LABEL))


def _classifier(uri: str, folder: Path, field: str, how: How) -> ClassifierReward:
    _check_kind(uri, folder, field)
    try:
        # Whoever lets the base model's own code run has said nothing of another model's.
        model = auto.classifier(str(folder), models.device(), replace(how, own_code=False))
        tokenizer = auto.tokenizer(str(folder))
    except (OSError, ValueError) as error:
        raise InputError(problem(field, uri, _ONE_LABEL, one_line(error))) from error
    model.config.pad_token_id = tokenizer.pad_token_id  # the classifier finds the last token by it
    return ClassifierReward(model, tokenizer)
