"""Responses that exist already: read from a table, matched with the suite's items, ready to be judged."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from valuedrift_mlflow import suite as suites
from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs.errors import InputError, limited, problem
from valuedrift_mlflow.inputs.outputs import NoText, text_in
from valuedrift_mlflow.inputs.reading import user_path
from valuedrift_mlflow.inputs.tables import read_table
from valuedrift_mlflow.suite import Item, Suite
from valuedrift_mlflow.suite.suite import COLUMNS, KEY_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

_OWN_SUITE = {"topic", "item_id", "proposition", "prompt", "polarity"}
_READ = ("response", "step", "sample", "suite", *COLUMNS, *KEY_COLUMNS)


@dataclass(frozen=True)
class Responses:
    """The responses of one model at one or more steps, as (item, sample, text), and the suite they answer."""

    suite: Suite
    by_step: dict[int, list[tuple[Item, int, str]]]
    uri: str = ""  # empty where they were not read from a table

    @property
    def samples(self) -> int:
        """How many there are to a prompt, on average over prompts and steps; at least one."""
        prompts = sum(len({item.item_id for item, _, _ in said}) for said in self.by_step.values())
        return max(1, round(sum(map(len, self.by_step.values())) / max(1, prompts)))


def is_table(uri: str) -> bool:
    """Whether a URI names a table of responses and not a model."""
    return uri.endswith((".json", ".jsonl", ".csv", ".parquet"))


def load_responses(uri: str, suite: str | Suite | None = None, otherwise: Suite | None = None) -> Responses:
    """Read a table of responses: json, jsonl, csv or parquet, or ``runs:/RUN_ID/responses.json``.

    Needed are ``response`` and ``item_id`` (or ``prompt``); ``step`` and ``sample`` tell measurements and repeated
    answers apart. The suite is the one given; else the one the table names in its column ``suite`` (as
    ``responses.json`` of every run does, with the suite beside it where no URI names that); else the table itself,
    where it has a suite's columns; else ``otherwise``, or the built-in one.

    Raises:
        InputError: an unreadable table, rows without a response or with an unknown item (with their numbers), responses
            to another suite than the one given.
    """
    allowed = "a readable json, jsonl, csv or parquet table"
    frame = read_table(_local(uri), f"responses {uri}", allowed, names=_READ, otherwise=".json", numbers=True)
    if "response" not in frame or not {"item_id", "prompt"} & set(frame.columns):
        columns = ", ".join(map(str, frame.columns))
        raise InputError(problem(f"responses {uri}", columns, "the columns response and item_id (or prompt)"))
    if frame.empty:
        raise InputError(problem(f"responses {uri}", "no rows", "at least one response"))
    given = suites.load(suite) if isinstance(suite, str) and suite else suite or None
    assert not isinstance(given, str)  # an empty one is none
    asked = _suite_of(frame, uri, given, otherwise) or otherwise or suites.load()
    return Responses(asked, _matched(frame, asked, uri), uri)


def _local(uri: str) -> Path:
    if uri.startswith("runs:/"):
        return tracking.downloaded(uri, "responses", "an artifact of a run in the tracking store")
    path = user_path(uri, "responses")
    if not path.is_file() or not is_table(uri):
        raise InputError(problem("responses", uri, "an existing json, jsonl, csv or parquet file"))
    return path


def _suite_of(frame: pd.DataFrame, uri: str, given: Suite | None, otherwise: Suite | None) -> Suite | None:
    """The suite that is given or that a table names or holds; None where nothing says which it is."""
    named = sorted({str(name) for name in frame["suite"]}) if "suite" in frame else []
    if len(named) > 1:
        raise InputError(problem(f"responses {uri} suite", ", ".join(named), "responses to one suite"))
    if given or named:
        suite = given or _named(named[0], uri, otherwise)
        if named and suite.hash != named[0].rpartition("#")[2]:
            raise InputError(
                problem(f"responses {uri} suite", named[0], suite.identity, "judge them with the suite they answer")
            )
        return suite
    if set(frame.columns) >= _OWN_SUITE:
        # An item stands here once for each of its samples and steps.
        return suites.from_frame(frame.drop_duplicates("item_id"), Path(uri).stem, "file", uri)
    return None


def _named(identity: str, uri: str, otherwise: Suite | None) -> Suite:
    """The suite of an identity, SOURCE@VERSION#HASH: the one that was given, that its URI names, or of the same run.

    Raises:
        InputError: it cannot be found.
    """
    if otherwise is not None and identity.endswith(f"#{otherwise.hash}"):
        return otherwise
    source = identity.rpartition("@")[0]  # a URI may have an @ of its own
    if source != suites.FRAME:
        return suites.load(source)
    beside = f"{uri.rpartition('/')[0]}/{suites.TABLE}.json"
    allowed = "a suite that a URI names, or the table of the suite beside the responses"
    path = tracking.downloaded(beside, f"responses {uri} suite", allowed) if uri.startswith("runs:/") else Path(beside)
    if not path.is_file():
        raise InputError(problem(f"responses {uri} suite", identity, allowed, "give the suite that they answer"))
    return suites.from_frame(read_table(path, f"suite {beside}", allowed), "suite")


def _matched(frame: pd.DataFrame, suite: Suite, uri: str) -> dict[int, list[tuple[Item, int, str]]]:
    by_id = {item.item_id: item for item in suite.items}
    by_prompt = {item.prompt: item for item in suite.items}
    asked = Counter(item.prompt for item in suite.items)
    problems: list[str] = []
    by_step: dict[int, list[tuple[Item, int, str]]] = defaultdict(list)
    taken: dict[tuple[int, str], set[int]] = defaultdict(set)
    records = [{str(key): value for key, value in record.items()} for record in frame.to_dict("records")]
    for row, record in enumerate(records, start=1):
        where = f"responses {uri} row {row}"
        name = "item_id" if "item_id" in record else "prompt"
        item = (by_id if name == "item_id" else by_prompt).get(str(record[name]))
        if item is None:
            problems.append(problem(f"{where} {name}", record[name], f"one of suite {suite.name}"))
            continue
        if str(record.get("prompt", item.prompt)) != item.prompt:
            problems.append(problem(f"{where} prompt", record["prompt"], item.prompt, "it answers another suite"))
            continue
        if name == "prompt" and asked[item.prompt] > 1:
            # Else the last of them would get the answers to all.
            mend = "say which by a column item_id"
            problems.append(problem(f"{where} prompt", item.prompt, "a prompt of one item alone", mend))
            continue
        response = text_in(record["response"])
        if isinstance(response, NoText):
            problems.append(problem(f"{where} response", record["response"], "a text"))
            continue
        step = _whole(record.get("step", 0))
        if step is None:
            problems.append(problem(f"{where} step", record["step"], "a whole number of at least 0"))
            continue
        sample = _sample(record, taken[step, item.item_id])
        if sample is None:
            allowed = "a whole number of at least 0, once for each item and step"
            problems.append(problem(f"{where} sample", record["sample"], allowed))
            continue
        taken[step, item.item_id].add(sample)
        by_step[step].append((item, sample, response))
    if problems:
        raise InputError(limited(problems, f"responses {uri}"))
    return dict(sorted(by_step.items()))


def _sample(record: Mapping[str, object], taken: set[int]) -> int | None:
    """The number of a row's answer among those to one prompt; in the order of the rows where the table does not say."""
    given = record.get("sample")
    # A column with gaps holds them as NaN or, read from a csv, as empty texts, and its numbers may be floats.
    if given in (None, "") or given != given:
        return next(number for number in itertools.count() if number not in taken)
    sample = _whole(given)
    return None if sample in taken else sample


def _whole(given: object) -> int | None:
    """A whole number of at least 0, as a number or as the text of one, also of one with a point; else None."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        number = float(given)
    except (ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() and 0 <= number < 2**53 else None
