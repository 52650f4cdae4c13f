"""What can be evaluated, and what it is asked: models by URI or in memory, responses that exist, suites of any form."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast, runtime_checkable

from valuedrift_mlflow import models
from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.evaluation.responses import Responses, is_table, load_responses
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.outputs import asked_in
from valuedrift_mlflow.models.generation import Generator
from valuedrift_mlflow.models.own import OwnGenerator
from valuedrift_mlflow.models.packaged import Packaged
from valuedrift_mlflow.suite import Suite

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

_RUN = re.compile(r"runs:/\w+/?")
PROMPT_KEYS = ("prompt", "question", "query", "request", "messages", "input")  # of what an app was asked


@dataclass(frozen=True)
class Asked:
    """A model that is to be asked; ``load`` brings its weights to memory, where it ``has_weights`` to bring.

    ``tokenizer`` is that of a model which is in memory already, ``name`` what it is called where it has no URI.
    """

    uri: str
    load: Callable[[], Generator]
    has_weights: bool = True
    tokenizer: PreTrainedTokenizerBase | None = None
    name: str = ""

    @property
    def named(self) -> str:
        """What runs and pages call it."""
        return self.uri or self.name


@runtime_checkable
class _Tabular(Protocol):
    """A dataset that can be had as a table, such as those of ``mlflow.genai.datasets``."""

    def to_df(self) -> pd.DataFrame:
        """Its rows."""
        ...


SuiteLike: TypeAlias = "str | Suite | pd.DataFrame | Sequence[Mapping[str, object]] | _Tabular"


def asked_by_uri(uri: str, memory: models.Swapping, field: str = "model") -> Asked:
    """The model of a URI, which is not loaded (into ``memory``) before it is asked.

    Raises:
        InputError: it names no model; ``field`` is what the URI was given as.
    """
    # Other packaged models may turn out to have none either; that is seen when they are loaded, and told then.
    has_weights = not (uri.startswith(models.SERVER_PREFIX) or models.is_own(uri))
    if has_weights:
        models.check_trainable(uri, field, memory.how)
    else:
        models.check_model(uri, field, memory.how)
    return Asked(uri, partial(memory.load, uri), has_weights)


def asked_in_memory(model: object, uri: str = "") -> Asked:
    """A model that is in memory.

    It may be an MLflow pyfunc, a pipeline of transformers or its model and tokenizer as a pair, an object with a method
    ``generate`` as `models.own` has it, or a function from a table with the column ``prompt`` to answers.

    Raises:
        InputError: it is none of these, or it writes no texts.
    """
    from transformers import PreTrainedModel

    name = uri or getattr(model, "__name__", "") or type(model).__name__
    loaded = models.in_memory(model, name) or models.unwrap(cast(Packaged, model), name)
    if isinstance(loaded, models.Loaded):
        generator: Generator = loaded.generator()
        return Asked(uri, lambda: generator, True, loaded.tokenizer, name)
    asked = callable(getattr(model, "predict", model))
    own = not asked and callable(getattr(model, "generate", None))
    if isinstance(model, PreTrainedModel) or not (asked or own):
        allowed = "a URI, a function, a pyfunc, a pipeline, or a model with its tokenizer: (model, tokenizer)"
        raise InputError(problem("model", name, allowed))
    generator = OwnGenerator(cast(Generator, model), name) if own else models.pyfunc_generator(model, name)
    return Asked(uri, lambda: generator, False, None, name)


def baseline_of(uri: str, asked: Suite, memory: models.Swapping) -> Asked | Responses:
    """What drift is measured from: a model, a table of responses, or a run that holds one (``runs:/RUN_ID``).

    Raises:
        InputError: there is no such model, table or run.
    """
    uri = responses_of_run(uri)
    if is_table(uri):
        return load_responses(uri, otherwise=asked)
    return asked_by_uri(uri, memory, field="baseline")


def responses_of_run(uri: str) -> str:
    """The table of responses of a run that a URI names without a path; any other URI as it is.

    >>> responses_of_run("runs:/0a1b"), responses_of_run("runs:/0a1b/checkpoints/step-000020")
    ('runs:/0a1b/responses.json', 'runs:/0a1b/checkpoints/step-000020')
    """
    return f"{uri.rstrip('/')}/responses.json" if _RUN.fullmatch(uri) else uri


def suite_of(suite: SuiteLike, name: str = "suite") -> Suite | None:
    """A suite by its URI, or from a table, rows, or a dataset whose rows have ``inputs`` and ``expectations``.

    None for an empty URI: none is given.

    Raises:
        InputError: as `suite.load` and `suite.from_frame`.
    """
    import pandas as pd

    if isinstance(suite, str):
        return suites.load(suite) if suite else None
    if isinstance(suite, Suite):
        return suite
    if isinstance(suite, _Tabular):
        suite = suite.to_df()
    frame = suite if isinstance(suite, pd.DataFrame) else pd.DataFrame([dict(row) for row in suite])
    if "inputs" in frame:
        frame = pd.DataFrame([_flat(row, number) for number, row in enumerate(frame.to_dict("records"), start=1)])
    return suites.from_frame(frame, name)


def _flat(row: Mapping[Hashable, object], number: int) -> dict[str, object]:
    """A row of ``mlflow.genai``: what is asked stands in its inputs, what it is judged by in its expectations."""
    inputs, expected = row.get("inputs"), row.get("expectations")
    flat: dict[str, object] = {"item_id": str(row.get("dataset_record_id") or number), "polarity": 1}
    for given in (inputs, expected):
        flat |= dict(given) if isinstance(given, Mapping) else {}
    return flat | {"prompt": prompt_in(inputs)}


def prompt_in(inputs: object) -> str:
    """The text that an app was asked, of what it was given."""
    if not isinstance(inputs, Mapping):
        return asked_in(inputs)
    return next((asked_in(inputs[key]) for key in PROMPT_KEYS if inputs.get(key) is not None), "")
