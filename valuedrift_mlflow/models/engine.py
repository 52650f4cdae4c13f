"""What generates the responses of a model in memory, and of a checkpoint: this package, or an engine that exists."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from valuedrift_mlflow.inputs.errors import InputError, problem

Backend = Literal["transformers", "continuous", "vllm"]


@dataclass(frozen=True)
class Engine:
    """What generates.

    Attributes:
        backend: ``transformers`` is this package's own way, ``continuous`` transformers' continuous batching, ``vllm``
            a vLLM server that the model's weights are sent to.
        server: address of that server, such as ``http://127.0.0.1:8000``.
    """

    backend: Backend = "transformers"
    server: str | None = None

    def check(self) -> None:
        """Refuse a server without vLLM, and vLLM without one.

        Raises:
            InputError: naming the field.
        """
        where = "generation.server"
        if self.backend == "vllm" and not re.match(r"https?://\S+$", self.server or ""):
            mend = "start `vllm serve MODEL` and give its address"
            raise InputError(problem(where, self.server, "an address such as http://127.0.0.1:8000", mend))
        if self.backend != "vllm" and self.server is not None:
            raise InputError(problem(where, self.server, "nothing with another backend than vllm"))


OWN = Engine()
