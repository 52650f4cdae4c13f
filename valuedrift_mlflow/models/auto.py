"""What transformers' Auto classes load, with types: most of their own methods carry none."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow.inputs.reading import json_object, user_path
from valuedrift_mlflow.models.how import STORED, How

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")  # of a layer, in the name of a weight


def other_kind(config: Mapping[str, object]) -> str:
    """What a model is by its ``config.json`` where it is no causal language model; empty where it is one.

    Transformers loads many others as if they were one: an encoder attends to what it should foretell, and a
    classifier gets an output layer of random weights.

    >>> other_kind({"architectures": ["BertForMaskedLM"]})
    'a BertForMaskedLM'
    >>> other_kind({"architectures": ["Qwen3ForCausalLM"]}), other_kind({"architectures": ["GPT2LMHeadModel"]})
    ('', '')
    """
    listed = config.get("architectures")
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    if config.get("is_encoder_decoder"):
        return f"an encoder-decoder model{f' ({names[0]})' if names else ''}"
    if config.get("vision_config") or config.get("audio_config"):
        return f"a model of several kinds of input{f' ({names[0]})' if names else ''}"
    # Classes of a model's own code may have any name; what they stand for is said beside them.
    mapped = config.get("auto_map")
    causal = isinstance(mapped, dict) and "AutoModelForCausalLM" in mapped
    causal = causal or any(re.search(r"CausalLM|LMHeadModel|LMHead$", name) for name in names)
    return "" if causal or not names else f"a {names[0]}"


def source(name: str) -> str:
    """What the Auto classes load for a name: the folder that it names, else a hub id."""
    folder = user_path(name)
    return str(folder) if folder.is_dir() else name


def named(source: str) -> tuple[str, dict[str, str]]:
    """The name that the Auto classes load, and the revision of ``id@revision`` as they are told it.

    >>> named("org/model@v1.0"), named("org/model")
    (('org/model', {'revision': 'v1.0'}), ('org/model', {}))
    """
    name, at, revision = source.rpartition("@")
    return (name, {"revision": revision}) if at and not user_path(source, "model").is_dir() else (source, {})


def commit_of(source: str) -> str | None:
    """The commit of a hub's model that lies in the cache here; None where none does.

    It is what the folder of the snapshot is called: transformers 5 no longer notes it in the configuration.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    name, revision = named(source)
    for file in ("config.json", "adapter_config.json"):
        try:
            found = try_to_load_from_cache(name, file, revision=revision.get("revision"))
        except HFValidationError:  # no hub has a model of such a name: it is one in memory
            return None
        if isinstance(found, str):
            return Path(found).parent.name
    return None


def _check_code(source: str, read: PreTrainedConfig, how: How) -> None:
    """Refuse what a model's files ask for beside its own code, and what is code all the same.

    Raises:
        ValueError: attention by a kernel of the hub, or adapters whose library is a module of any name.
    """
    parts = [read, *(getattr(read, name, None) for name in read.sub_configs)]
    kernels = [str(getattr(part, "_attn_implementation", "")) for part in parts]
    if how.attention is None and any("/" in kernel for kernel in kernels):
        raise ValueError(f"its config.json asks for the kernel {next(k for k in kernels if '/' in k)}, which is code")
    from transformers.utils.peft_utils import find_adapter_config_file

    name, revision = named(source)
    file: str | None = find_adapter_config_file(name, local_files_only=True, revision=revision.get("revision"))
    refused = imported_by(json_object(Path(file)) or {}) if file else ""
    if refused:
        raise ValueError(refused)


def imported_by(adapters: Mapping[str, object]) -> str:
    """What ``adapter_config.json`` has peft import by any name; empty where it has it import nothing.

    >>> imported_by({"peft_type": "LORA", "megatron_config": {"a": 1}, "megatron_core": "mine"})
    "its megatron_core 'mine' would be imported, whatever it is"
    """
    if not adapters.get("megatron_config"):
        return ""
    return f"its megatron_core {adapters.get('megatron_core')!r} would be imported, whatever it is"


def causal_lm(source: str, how: How = STORED, **further: Any) -> PreTrainedModel:
    """The language model in a folder or of a hub id; ``further`` is told to ``from_pretrained`` too.

    Raises:
        ValueError: it is another kind of model, its files do not fit its configuration or are damaged, all of which
        transformers passes over, or it has code of its own.
    """
    from transformers import AutoModelForCausalLM

    # Asked of the configuration first: it is small, and weights of another kind would load with a mere warning.
    read = config(source, how.own_code)
    if other := other_kind(read.to_dict()):
        raise ValueError(other)
    _check_code(source, read, how)
    name, revision = named(source)
    auto_model: Any = AutoModelForCausalLM  # its methods carry no usable types
    told = {**how.arguments(), **further, **revision}
    return not_repacked(_whole(*auto_model.from_pretrained(name, output_loading_info=True, **told)))


def not_repacked(loaded: PreTrainedModel) -> PreTrainedModel:
    """A model whose weights in 4 bits stay as they are stored.

    On processors with AVX512-BF16 bitsandbytes 0.50 packs them otherwise, in place, the first time that the model is
    asked. That fails where a layer's width is no multiple of 64, and what is trained or merged afterwards would be
    another model.
    """
    for module in loaded.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    return loaded


def _whole(loaded: PreTrainedModel, info: Mapping[str, Collection[str]]) -> PreTrainedModel:
    """A model that was loaded, if its files had all of its weights.

    Transformers draws at random what it does not find and goes on with a mere warning: files that were saved under
    other names (of a compiled or a wrapped model), or cut short, would be measured as another model.

    Raises:
        ValueError: with the names of weights that are missing or belong to further layers.
    """
    if getattr(loaded, "_hf_peft_config_loaded", False):  # adapters bring what their base has not
        return loaded
    weights = dict(loaded.named_parameters())  # tied ones once, buffers not at all
    missing = sorted(weights.keys() & set(info["missing_keys"]))
    if missing:
        raise ValueError(f"its files lack {len(missing)} of {len(weights)} weights, such as {missing[0]}")
    further = _further_layers(weights, info["unexpected_keys"])
    # Layers that foretell several tokens at once, which transformers does not run, are left out on purpose.
    if further and not getattr(loaded.config, "num_nextn_predict_layers", 0):
        raise ValueError(
            f"its files have {len(further)} weights of layers that its config.json does not, such as {further[0]}"
        )
    return loaded


def check_finite(loaded: PreTrainedModel) -> None:
    """Refuse a model whose training has diverged, or whose files are damaged.

    Raises:
        ValueError: with the name of a weight that is NaN or infinite somewhere.
    """
    if getattr(loaded, "is_quantized", False):  # its weights stand for others
        return
    weights = dict(loaded.named_parameters())
    broken = [name for name, weight in weights.items() if not _finite(weight)]
    if broken:
        raise ValueError(f"{len(broken)} of its {len(weights)} weights are not finite, such as {broken[0]}")


def _further_layers(weights: Collection[str], unexpected: Collection[str]) -> list[str]:
    """Names in a model's files that are those of its weights but for the number of the layer.

    >>> _further_layers(["h.0.w", "norm.w"], ["h.1.w", "v_head.w"])
    ['h.1.w']
    """
    kinds = {_NUMBER.sub("#", name) for name in weights}
    return sorted(name for name in unexpected if _NUMBER.search(name) and _NUMBER.sub("#", name) in kinds)


def _finite(weight: Tensor) -> bool:
    """Whether no entry of a weight is NaN or infinite; one that is not in memory is not looked at."""
    import torch

    if weight.is_meta or weight.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return True
    # A sum is not finite where an entry is not, and makes no second tensor of the weight's size.
    return bool(weight.detach().sum(dtype=torch.float64 if weight.device.type == "cpu" else torch.float32).isfinite())


def classifier(source: str, device: str, how: How = STORED) -> PreTrainedModel:
    """The sequence classifier in a folder or of a hub id, ready to be asked; it is not quantized.

    Raises:
        ValueError: its files lack weights, such as those of the layer that classifies.
    """
    from transformers import AutoModelForSequenceClassification

    auto_model: Any = AutoModelForSequenceClassification
    _check_code(source, config(source, how.own_code), how)
    name, revision = named(source)
    told = {**replace(how, quantization=None).arguments(), **revision}
    loaded: Any = _whole(*auto_model.from_pretrained(name, output_loading_info=True, **told))
    ready: PreTrainedModel = loaded.to(device).eval()
    return ready


def encoder(source: str, device: str) -> PreTrainedModel:
    """The model in a folder or of a hub id without a head, in float32, ready to be asked."""
    from transformers import AutoModel

    _check_code(source, config(source), STORED)
    name, revision = named(source)
    model = AutoModel.from_pretrained(name, trust_remote_code=False, **revision)
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


def tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or of a hub id, for models that read and do not write: it pads on the right.

    Padding on the left, which many language models' tokenizers ask for, would shift the positions of every token by
    how long the others of a batch are: a decoder with learned positions would rate a text by its neighbours.
    """
    from transformers import AutoTokenizer

    name, revision = named(source)
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        name, padding_side="right", trust_remote_code=False, **revision
    )
    if loaded.pad_token is None:  # language models often have none, and without one no batch can be padded
        loaded.pad_token = loaded.eos_token
    return loaded


def config(source: str, own_code: bool = False) -> PreTrainedConfig:
    """The configuration of the model in a folder or of a hub id; no weights are read."""
    from transformers import AutoConfig

    name, revision = named(source)
    loaded: PreTrainedConfig = AutoConfig.from_pretrained(name, trust_remote_code=own_code, **revision)
    return loaded
