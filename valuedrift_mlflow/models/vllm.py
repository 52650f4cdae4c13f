"""Responses by a vLLM server: adapters under a name of their own, whole weights by TRL's weight sync.

The server is started beside, with the model that is trained or the base below its adapters::

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora                       # adapters
    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config '{"backend": "nccl"}'     # all weights

Adapters are read from a folder, which both sides must see. The weight sync is that of the pinned TRL
(``trl.generation.vllm_client``); it needs a GPU and the extra ``vllm``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.scratch import temporary_folder
from valuedrift_mlflow.models.continuous import cut
from valuedrift_mlflow.models.decoding import Asked
from valuedrift_mlflow.models.files import below
from valuedrift_mlflow.models.replies import Unreachable
from valuedrift_mlflow.models.server import LOCAL_KEY, concurrently

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_IN_FLIGHT = 64  # requests at once, where no number is given
_TIMEOUT = 600.0  # seconds of one response, which may wait behind others
_FIELD = "generation.server"


class _Syncing(Protocol):
    """What is used of TRL's client."""

    def init_communicator(self, device: str) -> None:
        """Open the weight sync."""
        ...

    def weight_update(self) -> AbstractContextManager[None]:
        """Between beginning and end of one update."""
        ...

    def update_named_param(self, name: str, weights: torch.Tensor) -> None:
        """Send one weight."""
        ...


class VllmRows:
    """As ``Decoder``. Each response has a seed of its own, which vLLM honours whatever else is asked meanwhile."""

    def __init__(
        self,
        model: PreTrainedModel,
        asked: Asked,
        progress: Callable[[int], None],
        server: str,
        folder: Path | None = None,
    ) -> None:
        """Nothing is sent yet. ``folder`` is what the model was loaded from, and has not been trained since."""
        from openai import OpenAI

        self.model = model
        self.asked = asked
        self._progress = progress
        self._server = server.rstrip("/").removesuffix("/v1")
        self._folder = folder
        self._client = OpenAI(api_key=LOCAL_KEY, base_url=f"{self._server}/v1", timeout=_TIMEOUT, max_retries=5)

    def run(self) -> list[list[int]]:
        """All responses.

        Raises:
            InputError: the server is not there, does not take the weights, or refuses a request; with its reason.
        """
        said: list[list[int]] = [[] for _ in range(len(self.asked.prompts) * self.asked.samples)]
        with self._served() as name:
            rows = concurrently(lambda row: self._ask(name, row), range(len(said)), self.asked.slots or _IN_FLIGHT)
            for row, tokens in rows:
                if isinstance(tokens, Unreachable):
                    raise tokens
                said[row] = cut(tokens, row, self.asked)
                self._progress(1)
        return said

    def _ask(self, name: str, row: int) -> list[int]:
        asked = self.asked
        further = {
            "stop_token_ids": sorted(asked.ends),
            "return_token_ids": True,
            "skip_special_tokens": False,
            # Else the server samples by the generation config that lies beside its model.
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }
        with self._reasons():
            answer = self._client.completions.create(
                model=name,
                prompt=list(asked.prompts[row // asked.samples]),
                max_tokens=asked.longest,
                temperature=asked.temperature,
                top_p=1.0,
                seed=asked.seeds(row),
                extra_body=further,
            )
        tokens = (answer.choices[0].model_extra or {}).get("token_ids")
        if not isinstance(tokens, list):
            raise InputError(problem(_FIELD, "answers without token_ids", "a vLLM server of at least 0.10.2"))
        return [int(token) for token in tokens]

    @contextmanager
    def _reasons(self) -> Iterator[None]:
        """What the server says, in one line."""
        from openai import APIConnectionError, APIStatusError

        try:
            yield
        except APIStatusError as error:
            said = f"{self._server}: HTTP {error.status_code}: {one_line(error.body or error.message)}"
            raise InputError(problem(_FIELD, said, "a request that this server accepts")) from error
        except APIConnectionError as error:
            said = f"{self._server}: no connection ({error.__cause__ or error})"
            raise InputError(problem(_FIELD, said, "a vLLM server", "start `vllm serve MODEL`")) from error

    @contextmanager
    def _served(self) -> Iterator[str]:
        """The name under which the server answers with this model's weights, for as long as it is asked."""
        from peft import PeftModel

        with self._reasons():
            served = {str((one.model_extra or {}).get("root") or one.id): one.id for one in self._client.models.list()}
        if isinstance(self.model, PeftModel):
            with temporary_folder() as folder:
                self.model.save_pretrained(folder)
                with self._named(Path(folder), served) as name:
                    yield name
        elif self._folder is not None and (self._folder / "adapter_config.json").is_file():
            with self._named(self._folder, served) as name:
                yield name
        elif self._folder is not None and str(self._folder) in served:
            yield served[str(self._folder)]
        else:
            self._synchronise()
            yield next(iter(served.values()))

    @contextmanager
    def _named(self, folder: Path, served: Mapping[str, str]) -> Iterator[str]:
        """Adapters in a folder under a name that is theirs alone, which the server forgets afterwards."""
        base = below(str(folder)) or ""
        if base not in served and base not in served.values():  # it would answer with another model's adapters
            mend = f"start `vllm serve {base} --enable-lora`"
            raise InputError(
                problem(_FIELD, ", ".join(served), f"a server of {base}, the model below the adapters", mend)
            )
        weights = b"".join(file.read_bytes() for file in sorted(folder.glob("adapter_model*")))
        name = f"valuedrift-{hashlib.sha256(weights).hexdigest()[:16]}"
        with self._reasons():
            self._post("load_lora_adapter", {"lora_name": name, "lora_path": str(folder.absolute())})
        try:
            yield name
        finally:
            with self._reasons():
                self._post("unload_lora_adapter", {"lora_name": name})

    def _post(self, path: str, body: Mapping[str, str]) -> None:
        self._client.post(f"/{path}", body=dict(body), cast_to=str)

    def _synchronise(self) -> None:
        """Send all weights to the server."""
        device: torch.device = self.model.device
        try:
            client = _syncing(self._server, str(device))
        except (ImportError, NotImplementedError, RuntimeError, ConnectionError) as error:
            allowed = "adapters, a model that the server was started with, or a GPU here and the extra vllm"
            found = f"all weights of a {type(self.model).__name__}"
            raise InputError(problem("generation.backend=vllm", found, allowed, one_line(error))) from error
        with client.weight_update():
            for name, weights in self.model.named_parameters():
                client.update_named_param(name, weights.data)


@lru_cache(maxsize=1)
def _syncing(server: str, device: str) -> _Syncing:
    """TRL's client of a server, with its weight sync open: once for all measurements of a training."""
    from trl.generation.vllm_client import VLLMClient

    client: _Syncing = VLLMClient(base_url=server)
    client.init_communicator(device)
    return client
