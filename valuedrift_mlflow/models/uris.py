"""Model URIs: which there are, how they are shown, and everything that can be said of one without loading."""

from __future__ import annotations

import json
import re
from pathlib import Path

from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.models import own
from valuedrift_mlflow.models.auto import other_kind
from valuedrift_mlflow.tracking import MLFLOW_PREFIXES

EMBEDDED = ("embedded:base", "embedded:random")
SERVER_PREFIX = "openai:/"
_ADAPTERS = "adapter_config.json"
_VIRTUAL = ("PROMPT", "P_TUNING", "PREFIX", "CPT", "CARTRIDGE")  # in peft's names of what learns a prompt
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def short_name(uri: str) -> str:
    """A model's name as run names and the legends of charts have room for it.

    >>> short_name("models:/assistant/2"), short_name("models:/m-0123456789abcdef0123456789abcdef")
    ('assistant/2', 'm-01234567')
    >>> short_name("runs:/0123456789abcdef0123456789abcdef/checkpoints/step-000020")
    'runs:/01234567/step-000020'
    """
    if uri.startswith("runs:/"):
        run_id, _, path = uri.removeprefix("runs:/").partition("/")
        return f"runs:/{run_id[:8]}/{path.rpartition('/')[2]}".rstrip("/")
    if uri.startswith("models:/m-"):
        return uri.removeprefix("models:/")[:10]
    if uri.startswith(("embedded:", *MLFLOW_PREFIXES)):
        return uri.removeprefix("models:/")
    return Path(uri.partition("?")[0]).name or uri


def check_model(uri: str, field: str = "model") -> None:
    """Everything that can be said of a model URI without loading the model.

    Raises:
        InputError: an unknown embedded model, a missing folder, a registered model or run that is not in the tracking
        store, a server without an address or key, a class of a user that cannot be imported.
    """
    forms = "a folder", "a hub id", "models:/NAME/VERSION", "models:/NAME@ALIAS", "runs:/RUN_ID/PATH", "openai:/MODEL"
    allowed = ", ".join((*EMBEDDED, *forms, "module:Class"))
    if uri.startswith(SERVER_PREFIX):
        from valuedrift_mlflow.models.server import Server

        Server.from_uri(uri)
    elif uri.startswith("embedded:"):
        if uri not in EMBEDDED:
            raise InputError(problem(field, uri, ", ".join(EMBEDDED)))
    elif uri.startswith(MLFLOW_PREFIXES):
        tracking.check_model(uri, field)
    elif Path(uri).expanduser().is_dir():
        if not any((Path(uri).expanduser() / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise InputError(problem(field, uri, "a folder that holds a model (config.json or adapter_config.json)"))
        _check_adapters(uri, field)
    elif own.is_own(uri):
        own.check_own(uri, field)
    elif uri.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(uri):
        raise InputError(problem(field, uri, allowed))


def check_trainable(uri: str, field: str, *, own_code: bool = False) -> None:
    """As ``check_model``, for a model that is to be trained. ``own_code``: code that comes with it may run.

    Raises:
        InputError: as ``check_model``, and for a model on a server or of a user's own.
    """
    check_model(uri, field)
    if uri.startswith(SERVER_PREFIX) or own.is_own(uri):
        raise InputError(problem(field, uri, "a model whose weights can be loaded", "it can be evaluated only"))
    _check_kind(uri, field, own_code)


def _check_adapters(uri: str, field: str) -> None:
    """Refuse adapters that name no base, or themselves as it, and those that cannot be folded into their base."""
    file = Path(uri).expanduser() / _ADAPTERS
    if not file.is_file():
        return
    told = _read(file) or {}
    base, kind = told.get("base_model_name_or_path"), str(told.get("peft_type"))
    if not isinstance(base, str) or not base or Path(base).expanduser().resolve() == file.parent.resolve():
        mend = f"write it into {file.name}"
        raise InputError(problem(f"{field} {uri} base_model_name_or_path", base, "the model below the adapters", mend))
    # Virtual tokens stand before each prompt; no weights of the base could be changed to the same effect.
    if any(word in kind for word in _VIRTUAL):
        allowed = "adapters that can be merged into their base, such as LoRA"
        raise InputError(problem(f"{field} {uri} peft_type", kind, allowed))


def _check_kind(uri: str, field: str, own_code: bool) -> None:
    """Refuse a folder whose files say that it holds another kind of model, or one with code of its own."""
    folder = Path(uri).expanduser()
    adapter = folder / _ADAPTERS
    config = _read(folder / "config.json")
    if config is None:
        base = (_read(adapter) or {}).get("base_model_name_or_path")
        # A base on the hub or in the tracking store is not fetched for a look at it; loading refuses it too.
        if isinstance(base, str) and base != uri and Path(base).expanduser().is_dir():
            _check_kind(base, field, own_code)
        return
    if other := other_kind(config):
        raise InputError(problem(field, f"{uri}: {other}", "a causal language model"))
    if isinstance(config.get("auto_map"), dict) and not own_code:
        from transformers import CONFIG_MAPPING

        if config.get("model_type") not in CONFIG_MAPPING:
            found = f"{uri}: a model with code of its own"
            mend = "the code of a model is not run (without base.trust_remote_code: true)"
            raise InputError(problem(field, found, "an architecture that transformers itself has", mend))


def _read(file: Path) -> dict[str, object] | None:
    """The object in a json file; None where there is none, or it is no object: loading says so in its own words."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
