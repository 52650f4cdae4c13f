"""The table of recipe keys."""

from __future__ import annotations

from pydantic import (
    BaseModel,
)

from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.stages import ALGORITHMS
from valuedrift_mlflow.stages.stage import Stage


def markdown_table() -> str:
    """The table of recipe keys, made from the models of the recipe and of its stages."""
    rows = ["| key | default | meaning |", "|---|---|---|"]

    def add(kind: type[BaseModel], prefix: str, skip: frozenset[str] = frozenset()) -> None:
        for key, field in kind.model_fields.items():
            if key in skip:
                continue
            name = prefix + (field.serialization_alias or key)
            annotation = field.annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel) and not field.is_required():
                add(annotation, f"{name}.")
                continue
            default = "required" if field.is_required() else field.get_default(call_default_factory=True)
            shown = "" if default is None else f"`{default}`" if default != "required" else "required"
            rows.append(f"| `{name}` | {shown} | {field.description or ''} |")

    add(Recipe, "", frozenset({"stages"}))
    rows.append("| `stages` | | a list; each stage has the keys below |")
    rows.append(f"| `STAGE.algorithm` | required | one of {', '.join(f'`{name}`' for name in ALGORITHMS)} |")
    add(Stage, "STAGE.", frozenset({"algorithm"}))
    for name, kind in ALGORITHMS.items():
        extra = {
            key: field
            for key, field in kind.model_fields.items()
            if key not in Stage.model_fields and key != "algorithm"
        }
        # A key of all stages, but each algorithm has a default of its own.
        rate = kind.model_fields["learning_rate"].default
        rows.append(f"| `{name}.learning_rate` | `{rate}` | its default for this algorithm |")
        for key, field in extra.items():
            shown = "required" if field.is_required() else f"`{field.default}`"
            rows.append(f"| `{name}.{key}` | {shown} | {field.description} |")
    return "\n".join(rows) + "\n"
