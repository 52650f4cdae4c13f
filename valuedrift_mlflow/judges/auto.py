"""The judge ``auto``: the best that is configured."""

from __future__ import annotations

import os
from functools import cache

from valuedrift_mlflow.inputs.errors import one_line

AUTO = "auto"
OFFLINE = "lexical"
VARIABLE = "VALUEDRIFT_JUDGE"  # a judge URI: what a team has settled on, such as hf:models:/stance-judge@champion
_SECONDS = 5.0  # to wait for the list of a server's models


def resolved(uri: str, *, embedded: bool = False, evaluated: str = "") -> tuple[str, str]:
    """The judge that a URI stands for, and why where it is ``auto``; any other URI stands for itself.

    In order: in the embedded world the offline judge, which was made for it; what ``VALUEDRIFT_JUDGE`` names; the one
    model of the server in ``OPENAI_BASE_URL``; the offline judge.

    Args:
        uri: a judge URI.
        embedded: whether the texts are those of the embedded world.
        evaluated: URI of the model that is judged, which is not made its own judge.
    """
    if uri.strip() != AUTO:
        return uri, ""
    # Before all else: a judge that somebody has settled on for real models knows less of these answers.
    if embedded:
        return OFFLINE, "the offline judge, made for the embedded world"
    if named := os.environ.get(VARIABLE, "").strip():
        return named, f"named in {VARIABLE}"
    address = os.environ.get("OPENAI_BASE_URL", "").strip()
    if not address:
        return OFFLINE, f"neither {VARIABLE} nor OPENAI_BASE_URL is set"
    names, fault = _served(address)
    # Without the options of its URI, which a server's list does not have.
    others = [name for name in names if f"openai:/{name}" != evaluated.partition("?")[0]]
    if len(others) == 1:
        return f"openai:/{others[0]}", f"the model that {address} serves"
    return OFFLINE, fault or f"{address} serves {', '.join(others) or 'no other model'}: name one as openai:/MODEL"


# Once in a process: a recipe, its plan and what it evaluates all resolve the same name, and must get the same answer.
@cache
def _served(address: str) -> tuple[tuple[str, ...], str]:
    """The models of a server; none, with the reason, where it does not tell."""
    from openai import OpenAI, OpenAIError

    from valuedrift_mlflow.models.server import LOCAL_KEY

    key = os.environ.get("OPENAI_API_KEY") or LOCAL_KEY
    try:
        with OpenAI(base_url=address, api_key=key, timeout=_SECONDS, max_retries=0) as client:
            return tuple(model.id for model in client.models.list()), ""
    except OpenAIError as error:
        return (), f"{address} does not list its models: {one_line(error)}"
