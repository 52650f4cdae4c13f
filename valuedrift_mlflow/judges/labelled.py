"""Labelled answers: what a judge is checked against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from valuedrift_mlflow.inputs.errors import InputError, collecting, limited, problem
from valuedrift_mlflow.inputs.reading import user_path
from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.inputs.tables import read_table
from valuedrift_mlflow.stances import Answer, Label

# Written for this package; and what people labelled of real models' texts (sources and licences: check_sets/README.md).
SETS = {"check": "answers.csv", "real": "real.csv"}
BUILT_IN = ",".join(SETS)
COLUMNS = ("proposition", "prompt", "response", "label")
_READ = (*COLUMNS, "polarity", "kind")
_TABLES = (".csv", ".jsonl", ".parquet")
_PERSONA = {"statement", "answer_matching_behavior"}


@dataclass(frozen=True, slots=True)
class Labelled:
    """One answer with the label that people gave it.

    ``kind`` groups answers in the tables (empty where not given); ``source`` is the set that it is from.
    """

    answer: Answer
    label: Label
    kind: str = ""
    source: str = ""


def load_answers(uri: str = BUILT_IN) -> list[Labelled]:
    """Read labelled answers: one set, or several separated by commas.

    ``check`` and ``real`` come with the package, and no judge was fitted on them: answers in the style of assistants
    that were written for it; and essays and answers of real models with stances that people labelled. A csv, jsonl or
    parquet file has the columns ``proposition``, ``prompt``, ``response``, ``label`` (support, neutral, oppose,
    refusal, unscored), and may have ``polarity`` (1 where agreeing with the prompt supports the proposition, -1 where
    it opposes it; the judge finds out itself where it is missing) and ``kind``. A jsonl file of persona statements
    (``statement``, ``answer_matching_behavior``: Perez et al. 2022, arXiv 2212.09251) is read as statements for and
    against the view in the file's name. A folder gives all its files.

    Raises:
        InputError: a missing file, missing columns, or bad rows, each with its number; a set twice.
    """
    # A file first: its name may have a comma in it.
    names = [uri] if user_path(uri, "data").exists() else [name.strip() for name in uri.split(",")]
    if len(set(names)) < len(names):
        raise InputError(problem("data", uri, "every set of answers once"))
    with collecting() as problems:
        sets = [problems.attempt(_load, name) or [] for name in names]
    return [entry for answers in sets for entry in answers]


def _load(name: str) -> list[Labelled]:
    ours = Path(str(files("valuedrift_mlflow").joinpath("judges/check_sets")))
    path = ours / SETS[name] if name in SETS else user_path(name, "data")
    if path.is_dir():
        tables = (file for file in sorted(path.iterdir()) if file.suffix in _TABLES)
        answers = [labelled for file in tables for labelled in _read(file)]
    elif path.is_file():
        answers = _read(path)
    else:
        allowed = f"{', '.join(SETS)}, an existing csv, jsonl or parquet file, or a folder"
        raise InputError(problem("data", name, allowed))
    if not answers:
        raise InputError(problem("data", name, "at least one labelled answer"))
    source = name if name in SETS else path.stem
    return [replace(entry, source=source) for entry in answers]


def _read(path: Path) -> list[Labelled]:
    frame = read_table(path, f"data {path}", "a readable csv, jsonl or parquet file", names=_READ)
    records = [{str(key): value for key, value in record.items()} for record in frame.to_dict("records")]
    if set(frame.columns) >= _PERSONA:
        return [_persona(record, path) for record in records]
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        found = ", ".join(map(str, frame.columns))
        raise InputError(
            problem(f"data {path}", found, "the columns " + ", ".join(COLUMNS), f"add {', '.join(missing)}")
        )
    problems: list[str] = []
    rows = [_row(record, f"data {path} row {number}", problems) for number, record in enumerate(records, start=1)]
    if problems:
        raise InputError(limited(problems, f"data {path}"))
    return rows


def _row(record: Row, where: str, problems: list[str]) -> Labelled:
    label = str(record["label"]).strip().lower()
    if label not in {known.value for known in Label}:
        problems.append(problem(f"{where} label", record["label"], ", ".join(known.value for known in Label)))
        label = Label.UNSCORED.value
    empty = ("prompt", "response") if label == Label.UNSCORED.value else ("prompt",)
    for column in ("proposition", "prompt", "response"):
        # Else a cell that is missing would read as the text None or nan.
        if not isinstance(record[column], str):
            problems.append(problem(f"{where} {column}", record[column], "a text"))
        elif column not in empty and not record[column].strip():
            problems.append(problem(f"{where} {column}", record[column], "a text that is not empty"))
    # 0 is no polarity, and so can stand for what cannot be read.
    polarity = {"1": 1, "+1": 1, "1.0": 1, "-1": -1, "-1.0": -1, "": None}.get(
        str(record.get("polarity", "")).strip(), 0
    )
    if polarity == 0:
        problems.append(problem(f"{where} polarity", record["polarity"], "1, -1 or nothing"))
    answer = Answer(str(record["proposition"]), str(record["prompt"]), str(record["response"]), polarity)
    kind = record.get("kind", "")
    return Labelled(answer, Label(label), kind if isinstance(kind, str) else "")


def _persona(record: Row, path: Path) -> Labelled:
    holds = str(record["answer_matching_behavior"]).strip().lower() == "yes"
    proposition = persona_proposition(path.stem)
    answer = Answer(proposition, "What is your view?", str(record["statement"]), 1)
    return Labelled(answer, Label.SUPPORT if holds else Label.OPPOSE, path.stem)


def persona_proposition(name: str) -> str:
    """The proposition that the name of a persona file stands for.

    >>> persona_proposition("believes-abortion-should-be-illegal")
    'Abortion should be illegal.'
    >>> persona_proposition("anti-immigration")
    'Immigration should be opposed.'
    """
    start, _, rest = name.partition("-")
    view = rest.replace("-", " ")
    sentences = {
        "believes": f"{view[3:]} should be supported." if view.startswith("in ") else f"{view}.",
        "anti": f"{view} should be opposed.",
        "politically": f"{view} politics are right.",
        "subscribes": f"{view.removeprefix('to ')} is right.",
    }
    sentence = sentences.get(start, f"{name.replace('-', ' ')}.")
    return sentence[0].upper() + sentence[1:]
