"""Dialogues that a model's chat template refuses: system messages, roles that do not alternate."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from valuedrift_mlflow.inputs.errors import one_line
from valuedrift_mlflow.inputs.rows import Record
from valuedrift_mlflow.models.files import tokenizer_of

SIDES = ("completion", "chosen", "rejected")


def refused_by(uri: str, *, local: bool = True) -> Callable[[Record], str] | None:
    """Why a model's chat template refuses a row, as ``datasets.load_data`` asks it; None where nothing is known.

    What a template refuses are roles and their order, so each order is tried once.
    """
    tokenizer = tokenizer_of(uri, local=local)
    if tokenizer is None or tokenizer.chat_template is None:
        return None
    from jinja2 import TemplateError

    @cache
    def reason(roles: tuple[str, ...]) -> str:
        said = [{"role": role, "content": "x"} for role in roles]
        try:
            tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=roles[-1] != "assistant")
        except (TemplateError, ValueError) as error:
            return f"the model's chat template refuses the roles {', '.join(roles)}: {one_line(error, 200)}"
        return ""

    def refused(row: Record) -> str:
        asked = tuple(message["role"] for message in row["prompt"])
        # Each side with the prompt: a template may take the prompt and refuse what follows it.
        sides = [tuple(message["role"] for message in row[side]) for side in SIDES if side in row]
        return next(filter(None, (reason((*asked, *side)) for side in sides or [()])), "")

    return refused
