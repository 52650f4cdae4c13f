"""Suite URIs to suites."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.uris import split_options, topics_of, whole_number
from valuedrift_mlflow.suite import prism, tables
from valuedrift_mlflow.suite.suite import Suite

OPTIONS = ("topics", "per_topic", "topic_column")


def load(uri: str = tables.BUILT_IN) -> Suite:
    """Load a suite: ``vaes``, a file, or ``prism:PATH`` (built by ``prism.load``).

    A file is csv, jsonl, json or parquet (``.csv.gz`` and ``.jsonl.gz`` too). It has the columns of ``Suite.frame()``,
    or it holds opposed pairs (``opposed.items``), with the columns ``stance_a``, ``stance_b``, ``prompt_a`` and
    ``prompt_b``.

    Options after ``?`` take a part of a suite: ``topics=abortion,religion`` and ``per_topic=5``. For opposed pairs
    ``topic_column=NAME`` says which column holds the topic.

    Raises:
        InputError: a missing file, missing columns or bad rows (each with its number), an unknown topic or option.
    """
    if uri.startswith(prism.PREFIX):
        return prism.load(uri)
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
    else:
        suite = tables.from_file(Path(name), options.get("topic_column"))
    return replace(suite.subset(topics, per_topic), source=uri)
