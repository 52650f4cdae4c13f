"""The packaged form of a trained model. MLflow copies this one file into the model: it must import nothing of ours."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

_TOLD = "valuedrift_answering.json"
_ADAPTERS = "adapter_config.json"
# OpenAI's names, which stand beside the messages of a request, and those of transformers.
_ASKED = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens", "temperature": "temperature"}


class AnsweringModel:
    """Answers prompts through the model's own chat template; an answer does not repeat its prompt."""

    def __init__(self, folder: str, own_code: bool = False) -> None:
        import torch
        from transformers import AutoTokenizer, GenerationConfig

        file = Path(folder) / _TOLD  # models that were logged before have none
        told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        with _weights(folder, told.get("weights", "")) as weights:
            if not own_code and _has_own_code(Path(weights)):
                raise ValueError(
                    "this model needs code of its own, which is logged with it: to run it, load the model with "
                    "model_config={'trust_remote_code': True}"
                )
            # Left: an answer has to come right after its prompt.
            self.tokenizer: Any = AutoTokenizer.from_pretrained(
                weights, padding_side="left", trust_remote_code=own_code
            )
            model = _model(weights, own_code)
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self.stop: list[str] = told.get("stop", [])
        self.template_kwargs: dict[str, Any] = told.get("template_kwargs", {})
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        # Where an answer ends was worked out when the model was logged. Nothing else of the model's own settings
        # counts: it answers as it was measured, without a repetition penalty or beams that its files may ask for.
        ends = self.model.generation_config.eos_token_id
        self.ends: list[int] = ends if isinstance(ends, list) else [ends]
        self.model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=self.tokenizer.pad_token_id)

    def get_raw_model(self) -> tuple[Any, Any]:
        """The model (with its adapters, where it has some) and its tokenizer, for generation outside ``predict``."""
        return self.model, self.tokenizer

    def _text(self, conversation: list[dict[str, str]]) -> str:
        if self.tokenizer.chat_template is None:  # a base model completes a question, it does not chat
            # BOS by hand, as the tokenizer is told to add nothing: a chat template writes its own.
            return f"{self.tokenizer.bos_token or ''}{conversation[-1]['content']}\nResponse:"
        text: str = self.tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=False, **self.template_kwargs
        )
        return text

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> list[str] | dict[str, Any]:
        """One answer for each prompt or conversation in ``data``; to a chat request (``messages``) a chat completion.

        ``params``: ``max_new_tokens`` and ``temperature`` (0 = greedy); MLflow fills in the signature's defaults. A
        chat request may name ``max_tokens`` and ``temperature`` itself.
        """
        settings = dict(params or {})
        if not isinstance(data, Mapping) or "messages" not in data:
            return [answer for answer, *_ in self._answered(_conversations(data), settings)]
        settings |= {ours: data[theirs] for theirs, ours in _ASKED.items() if data.get(theirs) is not None}
        [(answer, ended, asked, said)] = self._answered(_conversations(data), settings)
        message = {"role": "assistant", "content": answer}
        return {
            "object": "chat.completion",
            "created": int(time.time()),
            "model": str(data.get("model") or "valuedrift"),
            "choices": [{"index": 0, "message": message, "finish_reason": "stop" if ended else "length"}],
            "usage": {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said},
        }

    def _answered(
        self, conversations: list[list[dict[str, str]]], settings: dict[str, Any]
    ) -> list[tuple[str, bool, int, int]]:
        """Of each conversation the answer, whether it came to its end, and the tokens of what was asked and said."""
        import torch

        temperature = settings.pop("temperature", 0.0)
        settings |= (
            # top_k 0: transformers' 50 would sample from another distribution than the one that was measured.
            {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
        )
        texts = [self._text(conversation) for conversation in conversations]
        batch = self.tokenizer(texts, add_special_tokens=False, return_tensors="pt", padding=True)
        inputs = {name: batch[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        if self.stop:
            settings |= {"stop_strings": self.stop, "tokenizer": self.tokenizer}
        with torch.inference_mode():
            tokens = self.model.generate(**inputs, **settings)
        tokens = tokens[:, inputs["input_ids"].shape[1] :]
        answers = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        asked = inputs["attention_mask"].sum(dim=1).tolist()
        found = []
        for answer, row, of in zip(answers, tokens.tolist(), asked, strict=True):
            end = next((place for place, token in enumerate(row) if token in self.ends), None)
            cut = self._before_stop(answer)
            said = len(row) if end is None else end + 1
            found.append((cut.strip(), end is not None or cut != answer, of, said))
        return found

    def _before_stop(self, answer: str) -> str:
        """An answer up to the first text that ends one."""
        places = [answer.find(text) for text in self.stop]
        return answer[: min([place for place in places if place >= 0], default=len(answer))]


@contextmanager
def _weights(folder: str, elsewhere: str) -> Iterator[str]:
    """The folder with the weights: the model's own, or what it points at, a run's artifacts or a whole model.

    What is fetched from a server is there until the weights are in memory.
    """
    if not elsewhere:
        yield folder
        return
    import mlflow

    if elsewhere.startswith("models:/"):
        place = mlflow.get_logged_model(elsewhere.removeprefix("models:/")).artifact_location
    else:
        place = mlflow.get_run(elsewhere.removeprefix("runs:/").partition("/")[0]).info.artifact_uri
    if urlparse(place).scheme in ("", "file"):
        yield _deepest(mlflow.artifacts.download_artifacts(elsewhere))  # nothing is copied
        return
    with tempfile.TemporaryDirectory(prefix="valuedrift-") as scratch:
        yield _deepest(mlflow.artifacts.download_artifacts(elsewhere, dst_path=scratch))


def _deepest(folder: str) -> str:
    """Where in a folder the weights lie: in a whole model they do in one of its folders."""
    if any((Path(folder) / name).is_file() for name in ("config.json", _ADAPTERS)):
        return folder
    return str(next((file.parent for file in sorted(Path(folder).rglob("config.json"))), folder))


def _model(folder: str, own_code: bool) -> Any:
    """The model in a folder, or the one below the adapters there with these on it."""
    from transformers import AutoModelForCausalLM

    auto_model: Any = AutoModelForCausalLM  # its methods carry no usable types
    adapters = Path(folder) / _ADAPTERS
    if not adapters.is_file():
        return auto_model.from_pretrained(folder, dtype="auto", trust_remote_code=own_code)
    from peft import PeftModel
    from transformers import GenerationConfig

    name = str(json.loads(adapters.read_text(encoding="utf-8"))["base_model_name_or_path"])
    if name.startswith(("models:/", "runs:/")):
        below = _raw(name)
    else:
        below = auto_model.from_pretrained(name, dtype="auto", trust_remote_code=own_code)
    if (Path(folder) / "generation_config.json").is_file():
        below.generation_config = GenerationConfig.from_pretrained(folder)
    return PeftModel.from_pretrained(below, folder)


def _raw(uri: str) -> Any:
    """The transformers model of a packaged one."""
    import mlflow

    raw = mlflow.pyfunc.load_model(uri).get_raw_model()
    model = raw[0] if isinstance(raw, tuple) else raw.model  # a pair of ours, or a pipeline
    return _folded(model) if hasattr(model, "merge_and_unload") else model


def _folded(model: Any) -> Any:
    """A model with its adapters folded in: others are to lie on it.

    An output layer with an adapter that shares its weight with the embeddings is separated from them first.
    """
    from torch import nn

    base = model.get_base_model()
    head = base.get_output_embeddings()
    if hasattr(head, "get_base_layer") and head.weight is base.get_input_embeddings().weight:
        head.get_base_layer().weight = nn.Parameter(head.weight.detach().clone())
        base.config.tie_word_embeddings = False
    return model.merge_and_unload()


def _conversations(data: Any) -> list[list[dict[str, str]]]:
    """Reads a prompt, prompts, a conversation, conversations, or a table with a ``prompt`` or ``messages`` column."""
    if hasattr(data, "to_dict"):  # a DataFrame; a single column of any name holds the prompts
        records = data.to_dict("records")
        data = [next(iter(row.values())) for row in records] if len(data.columns) == 1 else records
    elif hasattr(data, "tolist"):  # what `mlflow models serve` makes of {"inputs": ...}
        data = data.tolist()
    if isinstance(data, Mapping):
        data = data.get("messages", data.get("prompt"))
        data = data.tolist() if hasattr(data, "tolist") else data
    if isinstance(data, str) or (data and isinstance(data[0], Mapping) and "role" in data[0]):
        data = [data]
    rows = [row.get("messages", row.get("prompt")) if isinstance(row, Mapping) else row for row in data or []]
    if not rows or any(row is None for row in rows):
        raise ValueError("expected prompts, messages, or a table with a column named 'prompt' or 'messages'")
    return [[{"role": "user", "content": row}] if isinstance(row, str) else [dict(m) for m in row] for row in rows]


def _has_own_code(folder: Path) -> bool:
    """Whether an architecture that transformers itself does not have lies in a folder."""
    from transformers import CONFIG_MAPPING

    file = folder / "config.json"  # adapters have none
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return "auto_map" in told and told.get("model_type") not in CONFIG_MAPPING


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> AnsweringModel:
    """MLflow's loader hook: ``path`` is the folder with weights and tokenizer, or what says where they are.

    ``model_config`` may have ``trust_remote_code``, for a model with code of its own.
    """
    return AnsweringModel(path, bool((model_config or {}).get("trust_remote_code")))
