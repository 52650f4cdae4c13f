"""Suite URIs to suites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.parts import Registry, is_object, plugins
from valuedrift_mlflow.inputs.reading import user_path
from valuedrift_mlflow.inputs.uris import split_options, topics_of, whole_number
from valuedrift_mlflow.suite import prism, tables
from valuedrift_mlflow.suite.suite import Suite

OPTIONS = ("topics", "per_topic", "topic_column")
_FUNCTIONS: Registry[Callable[[], object]] = Registry(
    tables.GROUP, "function", {tables.BUILT_IN: "valuedrift_mlflow.suite.tables:built_in"}
)


def load(uri: str = tables.BUILT_IN) -> Suite:
    """Load a suite: ``vaes``, a file, ``prism:PATH`` (``prism.load_prism``), or what a function of the user gives.

    A file is csv, jsonl, json or parquet (``.csv.gz`` and ``.jsonl.gz`` too). It has the columns of ``Suite.frame()``,
    or it holds opposed pairs (``opposed_pairs.items``), with the columns ``stance_a``, ``stance_b``, ``prompt_a`` and
    ``prompt_b``.

    The function is ``module:function``, or one that an installed package has given a name. It takes no arguments and
    returns a table as a file holds it, or a ``Suite``.

    Options after ``?`` take a part of a suite: ``topics=abortion,religion`` and ``per_topic=5``. For opposed pairs
    ``topic_column=NAME`` says which column holds the topic.

    Raises:
        InputError: a missing file, missing columns or bad rows (each with its number), an unknown topic or option; a
            function that cannot be imported, fails, or returns something else.
    """
    # Before the options are split: it has others.
    if uri.startswith(prism.PREFIX):
        return prism.load_prism(uri)
    name, options = split_options(uri)
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise InputError(problem(f"suite {uri}", ", ".join(unknown), "the options " + ", ".join(OPTIONS)))
    topics = topics_of(options)
    per_topic = whole_number(uri, "per_topic", options["per_topic"]) if "per_topic" in options else None
    if name == tables.BUILT_IN:
        if "topic_column" in options:
            raise InputError(problem(f"suite {uri}", "topic_column", "topics, per_topic", tables.ONLY_PAIRS))
        suite = tables.built_in()
    elif is_object(name) or name in plugins(tables.GROUP):
        suite = _of_the_user(name, options.get("topic_column"))
    else:
        suite = tables.from_file(user_path(name, "suite"), options.get("topic_column"))
    # With its options: results name the part that they are of.
    return replace(suite.subset(topics, per_topic), source=uri)


def _of_the_user(name: str, topic_column: str | None) -> Suite:
    """The suite that a function gives, its rows checked as those of a file."""
    import pandas as pd

    function = _FUNCTIONS.get(name, "suite")
    try:
        made = function()
    except InputError:
        raise
    except Exception as error:  # it is the user's code
        mend = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(problem("suite", name, "a function that gives a suite", mend)) from error
    if isinstance(made, Suite) and topic_column is None:
        # A Suite can be made by hand past every check: as a table it goes through those of a file.
        checked = tables.from_frame(made.frame(), made.name, made.version)
        return replace(checked, provenance=made.provenance, ends=made.ends)
    table = made.frame() if isinstance(made, Suite) else made
    if not isinstance(table, pd.DataFrame):
        mend = f"it returned {'nothing' if made is None else type(made).__name__}"
        raise InputError(problem("suite", name, "a function that returns a pandas.DataFrame or a Suite", mend))
    return tables.from_table(table, name, "function", f"suite {name}", topic_column)
