"""Whether a saved checkpoint loads as the model that was measured: asked of every one before it is logged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.models import auto
from valuedrift_mlflow.models.files import below
from valuedrift_mlflow.models.generation import evaluation_mode
from valuedrift_mlflow.models.how import STORED, How
from valuedrift_mlflow.models.loading import load_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TEXT = "Some say that people should keep their word even where it costs them. Others do not agree:"
_ADAPTERS = "adapter_config.json"
LOADED_UP_TO = 4 * 10**9  # bytes of weights; a larger model is not loaded a second time


class Reloads:
    """Compares the checkpoints of one training with the live model.

    All weights in a checkpoint's files must be those in memory, to the last bit. What else decides how it loads (the
    configuration, the model below adapters) is asked by the logits of a short text once in a training, and again where
    it has changed or the files name weights otherwise than the model; never of a model too large to be loaded twice.
    """

    def __init__(self, name: str, how: How = STORED) -> None:
        """``name`` of the stage stands in errors; ``how`` its models are loaded."""
        self.name = name
        self._how = how
        self._known: str | None = None  # besides the weights, what was found to load as it should

    def check(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
        """Compare a live model with its checkpoint in a folder.

        Raises:
            InputError: it would load as another model.
        """
        from peft import PeftModel

        adapted = isinstance(model, PeftModel)
        other = _other_adapters(model, folder) if adapted else _other_weights(model, folder)
        if other:
            raise self._error(folder, f"{other} is another in the file than in memory")
        below = base_of(folder) if adapted else None
        known = below if adapted else _configuration(model, folder)
        if known is not None and known == self._known:
            return
        if _bytes(model) <= LOADED_UP_TO:
            self._compare_logits(model, tokenizer, folder, below)
        self._known = known

    def check_split(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, here: bool
    ) -> None:
        """As ``check``, for a model that is split over processes: by logits alone.

        All processes must call it, for each has a part of the weights; the one that is ``here`` has the folder.
        """
        if _bytes(model) > LOADED_UP_TO:
            return
        live = self._logits(model, self._asked(model, tokenizer))
        if here:
            below = base_of(folder) if (folder / _ADAPTERS).is_file() else None
            self._compare(live, model, tokenizer, folder, below)

    def _compare_logits(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, below: str | None
    ) -> None:
        self._compare(self._logits(model, self._asked(model, tokenizer)), model, tokenizer, folder, below)

    def _compare(
        self,
        live: torch.Tensor,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        folder: Path,
        below: str | None,
    ) -> None:
        import torch

        gpus = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(gpus):  # new adapters are drawn at random before they are read: nobody may notice
            loaded = _reloaded(folder, below, model.dtype, self._how).to(model.device)  # type: ignore[arg-type]  # of transformers' decorated method
        again = self._logits(loaded, self._asked(model, tokenizer))
        if not live.isfinite().all():
            return  # it has diverged, which the loss tells
        difference, largest = float((live - again).abs().max()), float(live.abs().max())
        if not difference <= _tolerance(model) * max(1.0, largest):
            found = f"logits that differ by {difference:.2g}, of at most {largest:.2g}"
            raise self._error(folder, found + (f", on the base {below}" if below else ""))

    @staticmethod
    def _asked(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
        import torch

        return torch.tensor([list(tokenizer(_TEXT)["input_ids"])], device=model.device)

    @staticmethod
    def _logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
        with evaluation_mode(model):
            logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits.float()
        return logits

    def _error(self, folder: Path, found: str) -> InputError:
        allowed = "a checkpoint that loads as the model that was measured"
        return InputError(problem(f"{self.name} checkpoint {folder.name}", found, allowed, "nothing was logged of it"))


def _bytes(model: PreTrainedModel) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def base_of(folder: Path) -> str:
    """What the adapters in a folder lie on."""
    return str(below(str(folder)))


def _tolerance(model: PreTrainedModel) -> float:
    """Of logits, relative to the largest: kernels may add up in another order, never more than a few last bits.

    The bits are those of the shortest numbers that the model multiplies with: adapters on weights in 4 bits are trained
    in 16 bits, whatever the rest is kept in, and read back in 32.
    """
    import torch

    kinds = {weight.dtype for weight in model.parameters() if weight.dtype.is_floating_point}
    return max([1e-4, *(4 * torch.finfo(kind).eps for kind in kinds)]) if model.dtype.is_floating_point else 1e-2


def _reloaded(folder: Path, below: str | None, dtype: torch.dtype, how: How) -> PreTrainedModel:
    if below is None:
        return auto.causal_lm(str(folder), how)
    from peft import PeftModel

    base = load_model(below, how).model
    if not getattr(base, "is_quantized", False):
        base = base.to(dtype)  # type: ignore[arg-type]  # of transformers' decorated method
    # Not merged: in 16 bits a merge rounds.
    adapted: PreTrainedModel = PeftModel.from_pretrained(base, str(folder))
    return adapted


def _other_adapters(model: PreTrainedModel, folder: Path) -> str:
    """The name of a weight of the adapters that is another in the folder; empty where none is."""
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights

    live, saved = get_peft_model_state_dict(model), load_peft_weights(str(folder), device="cpu")
    return next((str(name) for name, weight in live.items() if not _is_equal(weight, saved.get(name))), "")


def _configuration(model: PreTrainedModel, folder: Path) -> str | None:
    """What decides beside the weights of a whole model; None where its files lack one of their names."""
    from safetensors import safe_open

    weights = model.state_dict()
    named: set[int] = set()
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(str(file), framework="pt", device="cpu") as tensors:
            # By place: a weight that two layers share has one name in the file.
            named |= {weights[name].data_ptr() for name in tensors.keys() if name in weights}  # noqa: SIM118
    if any(weight.data_ptr() not in named for weight in weights.values()):
        return None
    told = (folder / name for name in ("config.json", "generation_config.json"))
    return "\n".join(file.read_text(encoding="utf-8") for file in told if file.is_file())


def _other_weights(model: PreTrainedModel, folder: Path) -> str:
    """The same of a whole model. Weights that a file names otherwise than the model (experts, some) are left out."""
    from safetensors import safe_open

    live = model.state_dict()
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(str(file), framework="pt", device="cpu") as tensors:
            for name in (name for name in tensors.keys() if name in live):  # noqa: SIM118  # it is no mapping
                if not _is_equal(live[name], tensors.get_tensor(name)):
                    return str(name)
    return ""


def _is_equal(live: torch.Tensor, saved: torch.Tensor | None) -> bool:
    import torch

    if saved is None:
        return False
    here = live.detach().cpu().to(saved.dtype)
    # A training that has diverged is told by its loss, not here: its NaN are equal to themselves.
    return torch.equal(here, saved) or bool(
        torch.equal(here.isnan(), saved.isnan()) and torch.equal(here.nan_to_num(), saved.nan_to_num())
    )
