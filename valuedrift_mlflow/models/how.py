"""How a model is brought into memory: its precision, attention, quantization, and whether its own code may run."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow.inputs.errors import InputError, collecting, problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class How:
    """Settings of loading; without any a model is as it is stored.

    Attributes:
        dtype: ``auto`` (as stored), ``float32``, ``bfloat16`` or ``float16``.
        attention: transformers' name of an implementation, None for its own choice.
        quantization: ``4bit`` (NF4 by bitsandbytes, Dettmers et al. 2023) or None.
        own_code: whether code that comes with a model may run.
        pyfunc_code: whether MLflow may load models that are more than weights, which runs code of theirs.
    """

    dtype: str = "auto"
    attention: str | None = None
    quantization: str | None = None
    own_code: bool = False
    pyfunc_code: bool = False

    def arguments(self) -> dict[str, Any]:  # of many types: they are from_pretrained's
        """What ``from_pretrained`` is told."""
        told: dict[str, Any] = {"dtype": self.dtype, "trust_remote_code": self.own_code}
        if self.attention is not None:
            told["attn_implementation"] = self.attention
        if self.quantization is not None:
            told["quantization_config"] = _four_bits(self.dtype)
            told["device_map"] = {"": device()}  # it cannot be moved afterwards
        return told

    def of_made(self, model: PreTrainedModel) -> PreTrainedModel:
        """A model that nothing loads from a folder, in this precision and with this attention."""
        import torch

        if self.attention is not None:
            model.set_attn_implementation(self.attention)
        if self.dtype != "auto":
            model.to(getattr(torch, self.dtype))
        return model


STORED = How()


def _four_bits(dtype: str) -> object:
    import torch
    from transformers import BitsAndBytesConfig

    computed = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    # NF4 with double quantization: Dettmers et al. 2023 (QLoRA), section 3.
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computed,
    )


def device() -> str:
    """Where a model that answers or rates is put: the GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def check_how(how: How, field: str = "base") -> None:
    """Refuse what the libraries and devices here do not have.

    Raises:
        InputError: all problems at once.
    """
    with collecting() as problems:
        if how.attention is not None:
            problems.attempt(_check_attention, how.attention, f"{field}.attn_implementation")
        if how.quantization is not None:
            problems.attempt(_check_quantization, how.quantization, f"{field}.quantization")


def _check_attention(name: str, where: str) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    # Names with a bar ("paged|...") are those of transformers' continuous batching.
    known = ["eager", *(known for known in ALL_ATTENTION_FUNCTIONS.keys() if "|" not in known)]  # noqa: SIM118  # no mapping
    if name not in known and "/" not in name:  # with a slash it is a kernel on the hub
        raise InputError(problem(where, name, ", ".join(known)))
    library = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}.get(name)
    if library is not None and importlib.util.find_spec(library) is None:
        mend = "install it (it needs a GPU), or take sdpa"
        raise InputError(problem(where, name, f"an implementation whose library is here; {library} is not", mend))


def _check_quantization(kind: str, where: str) -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        mend = "pip install 'valuedrift-mlflow[quant]'"
        raise InputError(problem(where, kind, "nothing without the library bitsandbytes", mend))
    if device() == "mps":
        raise InputError(problem(where, kind, "nothing on this GPU, which bitsandbytes does not know"))
