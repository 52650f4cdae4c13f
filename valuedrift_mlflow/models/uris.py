"""Model URIs: which there are, how they are shown, and everything that can be said of one without loading."""

from __future__ import annotations

import re
from pathlib import Path

from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.reading import json_object, user_path
from valuedrift_mlflow.models import own
from valuedrift_mlflow.models.auto import imported_by, other_kind
from valuedrift_mlflow.models.how import STORED, How
from valuedrift_mlflow.tracking import MLFLOW_PREFIXES

EMBEDDED = ("embedded:base", "embedded:random")
SERVER_PREFIX = "openai:/"
_ADAPTERS = "adapter_config.json"
_VIRTUAL = ("PROMPT", "P_TUNING", "PREFIX", "CPT", "CARTRIDGE")  # in peft's names of what learns a prompt
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?(@[\w./-]+)?")  # with a revision or without


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


def check_model(uri: str, field: str = "model", how: How = STORED) -> None:
    """Everything that can be said of a model URI without loading the model; ``how`` says what code of it may run.

    Raises:
        InputError: an unknown embedded model, a missing folder, a registered model or run that is not in the tracking
        store or runs code that may not run, a server without an address or key, a class of a user that is not there.
    """
    forms = (
        "a folder",
        "a hub id (ID@REVISION too)",
        "models:/NAME/VERSION",
        "models:/NAME@ALIAS",
        "runs:/RUN_ID/PATH",
        "openai:/MODEL",
    )
    allowed = ", ".join((*EMBEDDED, *forms, "module:Class"))
    if uri.startswith(SERVER_PREFIX):
        from valuedrift_mlflow.models.server import Server

        Server.from_uri(uri)
    elif uri.startswith("embedded:"):
        if uri not in EMBEDDED:
            raise InputError(problem(field, uri, ", ".join(EMBEDDED)))
    elif uri.startswith(MLFLOW_PREFIXES):
        tracking.check_model(uri, field)
        tracking.check_packaged(uri, field, pyfunc_code=how.pyfunc_code)
    elif user_path(uri).is_dir():
        if not any((user_path(uri) / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise InputError(problem(field, uri, "a folder that holds a model (config.json or adapter_config.json)"))
        _check_adapters(uri, field)
    elif own.is_own(uri):
        own.check_own(uri, field)
    elif uri.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(uri):
        raise InputError(problem(field, uri, allowed))


def check_trainable(uri: str, field: str, how: How = STORED) -> None:
    """As ``check_model``, for a model that is to be trained.

    Raises:
        InputError: as ``check_model``, and for a model on a server or of a user's own.
    """
    check_model(uri, field, how)
    if uri.startswith(SERVER_PREFIX) or own.is_own(uri):
        raise InputError(problem(field, uri, "a model whose weights can be loaded", "it can be evaluated only"))
    _check_kind(uri, field, how.own_code)


def _check_adapters(uri: str, field: str) -> None:
    """Refuse adapters that name no base, or themselves as it, and those that cannot be folded into their base."""
    seen: list[Path] = []
    folder = user_path(uri).resolve()
    while (folder / _ADAPTERS).is_file():
        seen.append(folder)
        base = _base_of(folder, f"{field} {uri}")
        below = user_path(base)
        if below.is_dir() and below.resolve() in seen:
            allowed, mend = "the model below the adapters", f"write it into {_ADAPTERS}"
            raise InputError(problem(f"{field} {uri} base_model_name_or_path", base, allowed, mend))
        if not below.is_dir():  # in the store or on the hub: loading tells
            return
        folder = below.resolve()


def _base_of(folder: Path, where: str) -> str:
    """What the adapters in a folder lie on, if they can be folded into it."""
    told = json_object(folder / _ADAPTERS) or {}
    base, kind = told.get("base_model_name_or_path"), str(told.get("peft_type"))
    if not isinstance(base, str) or not base:
        mend = f"write it into {_ADAPTERS}"
        raise InputError(problem(f"{where} base_model_name_or_path", base, "the model below the adapters", mend))
    if imported := imported_by(told):
        raise InputError(problem(f"{where} {_ADAPTERS}", imported, "adapters without megatron_config"))
    # Virtual tokens stand before each prompt; no weights of the base could be changed to the same effect.
    if any(word in kind for word in _VIRTUAL):
        allowed = "adapters that can be merged into their base, such as LoRA"
        raise InputError(problem(f"{where} peft_type", kind, allowed))
    return base


def _check_kind(uri: str, field: str, own_code: bool) -> None:
    """Refuse a folder whose files say that it holds another kind of model, or one with code of its own."""
    folder = user_path(uri)
    adapter = folder / _ADAPTERS
    config = json_object(folder / "config.json")
    if config is None:
        base = (json_object(adapter) or {}).get("base_model_name_or_path")
        # A base on the hub or in the tracking store is not fetched for a look at it; loading refuses it too.
        if isinstance(base, str) and base != uri and user_path(base).is_dir():
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
