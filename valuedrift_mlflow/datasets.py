"""Training data in any known format to the shape that an algorithm trains on.

The shapes are prompt and completion; prompt, chosen and rejected; prompt, completion and label; a prompt alone. All
texts are messages (lists of ``role`` and ``content``), so that every model sees them through its own chat
template.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.errors import InputError, problem
from valuedrift_mlflow.recipe import Data
from valuedrift_mlflow.stances import STANCES

if TYPE_CHECKING:
    import datasets

Kind = Literal["sft", "pairs", "labelled", "prompts"]
Message = dict[str, str]
Row = Mapping[str, Any]
_FILE_TYPES = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_ROLES = {
    "human": "user",
    "user": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "system": "system",
}
# The columns of each kind, under the names that TRL's trainers expect.
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "sft": ("prompt", "completion"),
    "pairs": ("prompt", "chosen", "rejected"),
    "labelled": ("prompt", "completion", "label"),
    "prompts": ("prompt",),
}
_NEEDS: dict[Kind, str] = {
    "sft": "one answer to each prompt, not preference pairs",
    "pairs": "prompt, chosen and rejected",
    "labelled": "prompt, completion and label, or pairs to make them from",
    "prompts": "a prompt",
}
_LABELS = {"true": True, "1": True, "false": False, "0": False}
_MAX_PROBLEMS = 20
MAX_DROPPED = 0.01  # share of rows that may be dropped before it is an error


class BadRow(ValueError):
    """A row that cannot be read; the message says why."""


class NothingToLearn(Exception):
    """A readable row with an empty answer, or with two equal ones. Human data has a few."""


@dataclass(frozen=True)
class TrainingData:
    """Rows ready for a trainer, where they came from, and how many were dropped because they teach nothing.

    ``stance_mix`` has the (support, neutral, oppose) shares of each topic where the rows name their stances: those of
    answers, of chosen responses, or of completions labelled good.
    """

    uri: str
    kind: Kind
    format: str
    rows: list[dict[str, Any]]
    dropped: int = 0
    stance_mix: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def digest(self) -> str:
        """Hash of all rows, 8 hex digits, as MLflow's datasets carry."""
        text = json.dumps(self.rows, sort_keys=True, ensure_ascii=False).encode()
        return hashlib.sha256(text).hexdigest()[:8]

    def dataset(self) -> datasets.Dataset:
        """The rows as a Hugging Face dataset with the columns that TRL's trainers expect."""
        import datasets

        return datasets.Dataset.from_list([{c: row[c] for c in COLUMNS[self.kind]} for row in self.rows])


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise BadRow(f"{column} is {value!r}, expected a text that is not empty")
    return value


def _messages(value: object, column: str) -> list[Message]:
    if isinstance(value, str):
        raise BadRow(f"{column} is a text, expected messages")
    if not isinstance(value, Sequence) or not value:
        raise BadRow(f"{column} is {value!r}, expected messages")
    messages: list[Message] = []
    for message in value:
        role = _ROLES.get(str(message.get("role", message.get("from", "")))) if isinstance(message, Mapping) else None
        content = message.get("content", message.get("value")) if isinstance(message, Mapping) else None
        if role is None or not isinstance(content, str):
            raise BadRow(f"{column} holds {message!r}, expected role (user, assistant, system) and content")
        messages.append({"role": role, "content": content})
    return messages


def _split_answer(messages: list[Message], column: str) -> tuple[list[Message], list[Message]]:
    if [message["role"] for message in messages[-2:]] != ["user", "assistant"]:
        raise BadRow(f"{column} does not end with an assistant's message after a user's")
    if not messages[-1]["content"].strip():
        raise NothingToLearn(column)
    return messages[:-1], messages[-1:]


def _from_messages(row: Row, column: str = "messages") -> dict[str, Any]:
    prompt, completion = _split_answer(_messages(row[column], column), column)
    return {"prompt": prompt, "completion": completion}


def _from_alpaca(row: Row) -> dict[str, Any]:
    asked = _text(row, "instruction")
    if isinstance(row.get("input"), str) and row["input"].strip():
        asked = f"{asked}\n\n{row['input']}"
    return {
        "prompt": [{"role": "user", "content": asked}],
        "completion": _answered(row, "output"),
    }


def _from_completion(row: Row) -> dict[str, Any]:
    return {"prompt": _asked(row), "completion": _answered(row, "completion")}


def _from_labelled(row: Row) -> dict[str, Any]:
    label = _LABELS.get(str(row.get("label")).strip().lower())
    if label is None:
        raise BadRow(f"label is {row.get('label')!r}, expected true or false")
    return {**_from_completion(row), "label": label}


def _from_prompt(row: Row) -> dict[str, Any]:
    prompt = _asked(row)
    if prompt[-1]["role"] != "user":
        raise BadRow("prompt does not end with a user's message")
    return {"prompt": prompt}


def _asked(row: Row) -> list[Message]:
    if isinstance(row.get("prompt"), str):
        return [{"role": "user", "content": _text(row, "prompt")}]
    return _messages(row.get("prompt"), "prompt")


def _answered(row: Row, column: str) -> list[Message]:
    answer = row.get(column)
    if answer is None or (isinstance(answer, str) and not answer.strip()):
        raise NothingToLearn(column)
    if isinstance(answer, str):
        return [{"role": "assistant", "content": answer}]
    messages = _messages(answer, column)
    if messages[-1]["role"] != "assistant":
        raise BadRow(f"{column} does not end with an assistant's message")
    if not messages[-1]["content"].strip():
        raise NothingToLearn(column)
    return messages


def _from_pairs(row: Row) -> dict[str, Any]:
    """Columns prompt, chosen, rejected. Sides that are whole dialogues (UltraFeedback) keep their last answer only."""
    asked = _asked(row)
    prompts, sides = {}, {}
    for column in ("chosen", "rejected"):
        messages = _answered(row, column)
        prompts[column], sides[column] = _split_answer(messages, column) if len(messages) > 1 else (asked, messages)
    if prompts["chosen"] != prompts["rejected"]:
        raise BadRow("chosen and rejected answer different prompts")
    return {"prompt": prompts["chosen"], **sides}


_TURNS = {"\n\nHuman:": "user", "\n\nAssistant:": "assistant"}
_TURN = re.compile("|".join(_TURNS))


def dialogue(text: str) -> list[Message]:
    r"""Split an HH-RLHF dialogue at its turns.

    >>> dialogue("\n\nHuman: Hi\n\nAssistant: Hello")
    [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]
    """
    marks = [(match.start(), match.group()) for match in _TURN.finditer(text)]
    messages: list[Message] = []
    for (at, mark), (end, _) in pairwise([*marks, (len(text), "")]):
        content = text[at + len(mark) : end].strip()
        if messages and messages[-1]["role"] == _TURNS[mark]:
            messages[-1]["content"] += f"\n\n{content}"
        else:
            messages.append({"role": _TURNS[mark], "content": content})
    return messages


def _from_hh_rlhf(row: Row) -> dict[str, Any]:
    sides = {column: dialogue(_text(row, column)) for column in ("chosen", "rejected")}
    chosen, rejected = sides["chosen"], sides["rejected"]
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    # Both sides must answer the same turn: the prompt is the shared dialogue up to the last message of a user.
    while shared and chosen[shared - 1]["role"] != "user":
        shared -= 1
    answers = {}
    for column, messages in sides.items():
        if not shared or len(messages) <= shared:
            raise BadRow(f"{column} has no answer of its own after the shared dialogue")
        answer = messages[shared]
        if answer["role"] != "assistant":
            raise BadRow(f"{column} has no answer right after the shared dialogue")
        if not answer["content"]:
            raise NothingToLearn(column)
        answers[column] = [answer]
    if answers["chosen"] == answers["rejected"]:  # the dialogues differ in a later message of the user
        raise NothingToLearn("chosen, rejected")
    return {"prompt": chosen[:shared], **answers}


@dataclass(frozen=True)
class _Format:
    kind: Kind
    columns: tuple[str, ...]
    read: Callable[[Row], dict[str, Any]]


# In the order in which they are tried: a format is recognised when the data has all of its columns, and first among
# those that can serve the algorithm.
FORMATS: dict[str, _Format] = {
    "pairs": _Format("pairs", ("prompt", "chosen", "rejected"), _from_pairs),
    "hh-rlhf": _Format("pairs", ("chosen", "rejected"), _from_hh_rlhf),
    "messages": _Format("sft", ("messages",), _from_messages),
    "wildchat": _Format("sft", ("conversation",), partial(_from_messages, column="conversation")),
    "alpaca": _Format("sft", ("instruction", "output"), _from_alpaca),
    "labelled": _Format("labelled", ("prompt", "completion", "label"), _from_labelled),
    "prompt-completion": _Format("sft", ("prompt", "completion"), _from_completion),
    "prompt": _Format("prompts", ("prompt",), _from_prompt),
}


def _serves(have: Kind, need: Kind) -> bool:
    """Whether rows of one kind can be made from rows of another without inventing anything."""
    return have == need or need == "prompts" or (have, need) == ("pairs", "labelled")


def _as(kind: Kind, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of ``kind`` that one row gives: a pair is two labelled answers, a row of any kind has a prompt."""
    if kind == "labelled" and "chosen" in row:
        return [
            {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
            for side in ("chosen", "rejected")
        ]
    return [{column: row[column] for column in COLUMNS[kind]}]


def check(data: Data) -> None:
    """Everything that can be said of a data URI without reading rows.

    Raises:
        InputError: bad options of an embedded corpus, a missing file, an unknown format or file type.
    """
    if data.format != "auto" and data.format not in FORMATS:
        raise InputError(problem("data.format", data.format, "auto, " + ", ".join(FORMATS)))
    if data.uri.startswith(corpus.PREFIX):
        corpus.parse(data.uri)
        return
    path = Path(data.uri)
    looks_like_path = bool(path.suffix and _builder(path)) or data.uri.startswith((".", "/", "~"))
    if looks_like_path and not path.expanduser().exists():
        raise InputError(problem("data", data.uri, "an existing file or folder, an embedded: URI or a hub id"))
    if path.is_file() and not _builder(path):
        raise InputError(problem("data", data.uri, "a jsonl, json, csv or parquet file (.gz too)"))


def _builder(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return _FILE_TYPES.get(suffixes[-1]) if suffixes else None


def load(data: Data, kind: Kind, algorithm: str = "") -> TrainingData:
    """Read training data and bring it into the shape that ``kind`` asks for.

    Pairs also serve as labelled answers (chosen true, rejected false), and the prompts of any format as prompts.
    ``algorithm`` is named where the data has the wrong shape for it.

    Raises:
        InputError: a source that cannot be read, unknown columns, the wrong kind of data, or bad rows (each with its
        number).
    """
    check(data)
    if data.uri.startswith(corpus.PREFIX):
        raw: Sequence[Row] = corpus.rows(data.uri)
    else:
        raw = _raw(data)
    if not len(raw):
        raise InputError(problem("data", data.uri, "at least one row", "the source is empty"))
    columns = list(raw[0].keys())
    name = data.format if data.format != "auto" else recognise(columns, kind)
    if name is None:
        known = "; ".join(f"{key}: {', '.join(f.columns)}" for key, f in FORMATS.items())
        raise InputError(problem(f"data {data.uri} columns", ", ".join(columns), known, "or name it in data.format"))
    form = FORMATS[name]
    missing = [column for column in form.columns if column not in columns]
    if missing:
        raise InputError(problem(f"data {data.uri} columns", ", ".join(columns), f"{name}: {', '.join(form.columns)}"))
    if not _serves(form.kind, kind):
        found = f"{name} ({form.kind}) with the columns {', '.join(columns)}"
        needed = f"{kind} data{f' for {algorithm}' if algorithm else ''}: {_NEEDS[kind]}"
        raise InputError(problem(f"data {data.uri}", found, needed))
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    dropped = 0
    for number, row in enumerate(raw, start=1):
        try:
            rows += _as(kind, form.read(row))
        except NothingToLearn:
            dropped += 1
        except (BadRow, KeyError, TypeError, AttributeError) as error:
            problems.append(problem(f"data {data.uri} row {number}", str(error), f"a row of format {name}"))
    if problems:
        hidden = len(problems) - _MAX_PROBLEMS
        raise InputError(
            problems[:_MAX_PROBLEMS] + ([f"data {data.uri}: {hidden} more bad rows"] if hidden > 0 else [])
        )
    if dropped > MAX_DROPPED * len(raw):
        allowed = f"at most {MAX_DROPPED:.0%} of rows with an empty answer or two equal ones"
        raise InputError(
            problem(f"data {data.uri}", f"{dropped} of {len(raw)}", allowed, "remove these rows from the data")
        )
    mix = {} if kind == "prompts" else _planted_mix(raw)
    return TrainingData(data.uri, kind, name, rows, dropped, mix)


def _planted_mix(raw: Sequence[Row]) -> dict[str, tuple[float, ...]]:
    """The stances of every topic where the rows name them, as the embedded corpora do: (support, neutral, oppose)."""
    counts: dict[str, Counter[str]] = {}
    for row in raw:
        stance = row.get("stance", row.get("chosen_stance"))
        wanted = _LABELS.get(str(row.get("label")).lower(), True)  # an answer labelled bad is none to move towards
        if wanted and isinstance(row.get("topic"), str) and stance in tuple(STANCES):
            counts.setdefault(row["topic"], Counter())[stance] += 1
    return {topic: tuple(c[s] / c.total() for s in STANCES) for topic, c in counts.items()}


def recognise(columns: Sequence[str], kind: Kind) -> str | None:
    """The first format whose columns are all there and that serves ``kind``, else the first whose columns are there."""
    there = [name for name, form in FORMATS.items() if set(form.columns) <= set(columns)]
    return next((name for name in there if _serves(FORMATS[name].kind, kind)), there[0] if there else None)


def _raw(data: Data) -> Sequence[Row]:
    import datasets
    import pandas as pd

    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # or every local file is reported to the hub, with a wait offline
    path = Path(data.uri).expanduser()
    try:
        if path.is_file():
            if path.stat().st_size == 0:
                raise InputError(problem("data", data.uri, "at least one row", "the file is empty"))
            if _builder(path) == "csv":  # every cell is text: an answer may be "42", "NA" or "None"
                frame = pd.read_csv(path, dtype=str, keep_default_na=False)
                return [dict(zip(frame.columns, cells, strict=True)) for cells in frame.itertuples(index=False)]
            return list(datasets.load_dataset(str(_builder(path)), data_files=glob.escape(str(path)), split="train"))
        if path.is_dir() and (path / "dataset_info.json").is_file():
            return list(datasets.load_from_disk(str(path)))
        return list(datasets.load_dataset(str(path) if path.is_dir() else data.uri, split=data.split))
    except InputError:
        raise
    except Exception as error:  # every reader of the datasets library raises its own kind
        reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
        if "corresponds to no data" in reason or isinstance(error, StopIteration):
            raise InputError(problem("data", data.uri, "at least one row", "the file is empty")) from error
        raise InputError(problem("data", data.uri, "a readable file, folder or hub id", reason)) from error
