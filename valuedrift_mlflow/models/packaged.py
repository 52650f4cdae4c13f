"""How MLflow's packaged models (pyfuncs) and plain functions are asked: each in the shape that it takes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from valuedrift_mlflow.inputs.errors import InputError, Unanswered, one_line, problem
from valuedrift_mlflow.inputs.outputs import NoText, text_in
from valuedrift_mlflow.models.generation import FunctionGenerator

if TYPE_CHECKING:
    from mlflow.types import Schema

_ANSWERS = "a model that answers prompts, or messages, with texts"


class Packaged(Protocol):
    """An MLflow pyfunc, of which only this is asked here."""

    def get_raw_model(self) -> object:
        """The model inside."""
        ...


def pyfunc_generator(pyfunc: object, uri: str = "model") -> FunctionGenerator:
    """Asks any MLflow pyfunc or function as its signature says.

    One that takes ``messages`` (chat models, chat agents) or ``input`` (responses agents) gets one conversation at a
    time; any other a table with one column, ``prompt`` where the signature names none. Where such a table is answered
    by a single text or object, it gets one prompt at a time too.

    Raises:
        InputError: the signature asks for something else, such as numbers; later, where the model is asked: it fails.
    """
    predict = cast(Callable[[object], object], getattr(pyfunc, "predict", pyfunc))
    schema = _schema(pyfunc)
    key = next((name for name in ("messages", "input") if schema is not None and name in _lists(schema)), None)
    column = "prompt" if schema is None or key else _column(schema, uri)

    def ask(data: object) -> object:
        try:
            return predict(data)
        except (InputError, Unanswered):
            raise
        except Exception as error:  # it is the user's model, and may fail in any way
            found = f"{uri}: {type(error).__name__}: {one_line(error)}"
            raise InputError(problem("model", found, _ANSWERS)) from error

    def answer(prompts: list[str]) -> Sequence[object]:
        if key:
            return [ask({key: [{"role": "user", "content": prompt}]}) for prompt in prompts]
        given = _answers(ask(_table(column, prompts)), len(prompts))
        if given is not None:
            return given
        return [ask(_table(column, [prompt])) for prompt in prompts]

    return FunctionGenerator(answer)


def _schema(pyfunc: object) -> Schema | None:
    """What a model's signature says of its input; None where it says nothing."""
    signature = getattr(getattr(pyfunc, "metadata", None), "signature", None)
    schema: Schema | None = getattr(signature, "inputs", None)
    return schema


def _lists(schema: Schema) -> set[str]:
    """The names of the columns that hold lists."""
    from mlflow.types.schema import AnyType, Array

    return {spec.name for spec in schema.inputs if isinstance(spec.type, Array | AnyType) and spec.name}


def _column(schema: Schema, uri: str) -> str:
    """The one column of texts that a model takes.

    Raises:
        InputError: it takes another number of them, or numbers.
    """
    from mlflow.types import DataType
    from mlflow.types.schema import AnyType

    needed = schema.required_input_names() if schema.has_input_names() else [None]
    specs = [spec for spec in schema.inputs if spec.name in needed or len(schema.inputs) == 1]
    if len(specs) != 1 or not (specs[0].type is DataType.string or isinstance(specs[0].type, AnyType)):
        columns = ", ".join(f"{spec.name or 'unnamed'} ({spec.type})" for spec in schema.inputs)
        raise InputError(problem("model", f"{uri}, which takes {one_line(columns, 120)}", _ANSWERS))
    return specs[0].name or "prompt"


def _table(column: str, prompts: list[str]) -> object:
    import pandas as pd

    return pd.DataFrame({column: prompts})


def _answers(output: object, count: int) -> Sequence[object] | None:
    """One answer for each of ``count`` prompts; None where several prompts have got a single one."""
    import pandas as pd

    if isinstance(output, pd.DataFrame):
        return [_of_row(row) for row in output.to_dict("records")]
    if isinstance(output, Mapping):
        only = next(iter(output.values())) if len(output) == 1 else None
        if isinstance(only, list | tuple) and len(only) == count:
            return only
    if isinstance(output, str | Mapping) or not isinstance(output, Iterable):
        return [output] if count == 1 else None
    return list(output)


def _of_row(row: Mapping[Hashable, object]) -> object:
    """The answer in a row of a table: under a name that answers have, else in the first column."""
    said = text_in(row)
    return next(iter(row.values()), None) if isinstance(said, NoText) else said
