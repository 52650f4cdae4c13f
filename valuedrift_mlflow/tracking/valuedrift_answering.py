"""The packaged form of a trained model. MLflow copies this one file into the model: it must import nothing of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class AnsweringModel:
    """Answers prompts through the model's own chat template; an answer does not repeat its prompt."""

    def __init__(self, folder: str, own_code: bool = False) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        if not own_code and _has_own_code(Path(folder)):
            raise ValueError(
                "this model needs code of its own, which is logged with it: to run it, load the model with "
                "model_config={'trust_remote_code': True}"
            )
        # Left: an answer has to come right after its prompt.
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=own_code)
        auto_model: Any = AutoModelForCausalLM  # its methods carry no usable types
        model = auto_model.from_pretrained(folder, dtype="auto", trust_remote_code=own_code)
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        file = Path(folder) / "valuedrift_answering.json"  # models that were logged before have none
        told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        self.stop: list[str] = told.get("stop", [])
        self.template_kwargs: dict[str, Any] = told.get("template_kwargs", {})
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        # Where an answer ends was worked out when the model was logged. Nothing else of the model's own settings
        # counts: it answers as it was measured, without a repetition penalty or beams that its files may ask for.
        ends = self.model.generation_config.eos_token_id
        self.model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=self.tokenizer.pad_token_id)

    def get_raw_model(self) -> tuple[Any, Any]:
        """The model and its tokenizer, for batched generation outside ``predict``."""
        return self.model, self.tokenizer

    def _text(self, conversation: list[dict[str, str]]) -> str:
        if self.tokenizer.chat_template is None:  # a base model completes a question, it does not chat
            # BOS by hand, as the tokenizer is told to add nothing: a chat template writes its own.
            return f"{self.tokenizer.bos_token or ''}{conversation[-1]['content']}\nResponse:"
        text: str = self.tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=False, **self.template_kwargs
        )
        return text

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> list[str]:
        """One answer for each prompt or conversation in ``data``.

        ``params``: ``max_new_tokens`` and ``temperature`` (0 = greedy); MLflow fills in the signature's defaults.
        """
        import torch

        settings = dict(params or {})
        temperature = settings.pop("temperature", 0.0)
        settings |= (
            # top_k 0: transformers' 50 would sample from another distribution than the one that was measured.
            {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
        )
        texts = [self._text(conversation) for conversation in _conversations(data)]
        batch = self.tokenizer(texts, add_special_tokens=False, return_tensors="pt", padding=True)
        inputs = {name: batch[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        if self.stop:
            settings |= {"stop_strings": self.stop, "tokenizer": self.tokenizer}
        with torch.inference_mode():
            tokens = self.model.generate(**inputs, **settings)
        answers = self.tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [self._before_stop(answer).strip() for answer in answers]

    def _before_stop(self, answer: str) -> str:
        """An answer up to the first text that ends one."""
        places = [answer.find(text) for text in self.stop]
        return answer[: min([place for place in places if place >= 0], default=len(answer))]


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

    told: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return "auto_map" in told and told.get("model_type") not in CONFIG_MAPPING


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> AnsweringModel:
    """MLflow's loader hook: ``path`` is the folder with weights and tokenizer inside the model.

    ``model_config`` may have ``trust_remote_code``, for a model with code of its own.
    """
    return AnsweringModel(path, bool((model_config or {}).get("trust_remote_code")))
