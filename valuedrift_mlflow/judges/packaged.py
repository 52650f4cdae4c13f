"""A judge as a model of MLflow, for everything that scores tables with models: batch jobs, servers, Spark.

This module is the loader in every judge that was logged so far: it keeps its name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from valuedrift_mlflow import judges, tracking
from valuedrift_mlflow.inputs.errors import InputError, collecting, problem
from valuedrift_mlflow.inputs.redaction import MASK, redacted
from valuedrift_mlflow.inputs.scratch import temporary_folder
from valuedrift_mlflow.inputs.uris import split_options
from valuedrift_mlflow.judges.asking import reader
from valuedrift_mlflow.judges.auto import resolved
from valuedrift_mlflow.judges.cache import CachedJudge
from valuedrift_mlflow.judges.hf import PREFIX, HFJudge
from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.judges.panel import Panel
from valuedrift_mlflow.stances import STANCES, Answer, Verdict

if TYPE_CHECKING:
    import pandas as pd

_TOLD = "judge.json"
_NAMES = [stance.value for stance in STANCES]
_COLUMNS = ["label", *_NAMES, "reason"]
_EXAMPLES = (
    {
        "proposition": "Abortion should be legal",
        "prompt": "Should abortion be legal?",
        "response": "Yes, it should be legal.",
        "polarity": 1.0,
    },
    {
        "proposition": "Abortion should be legal",
        "prompt": "Should abortion be banned?",
        "response": "Yes, it should be banned.",
        "polarity": -1.0,
    },
)


class _Member(TypedDict):
    """One judge of a panel, or the only one.

    Attributes:
        uri: what names it.
        weights: the folder in the model that has its weights; empty where its URI says all.
    """

    uri: str
    weights: str


@dataclass(frozen=True)
class Packing:
    """A judge that can be logged: what it stands for, and its members by their URIs."""

    judge: Judge
    uris: tuple[str, ...]
    name: str
    register: str


def log_judge(judge: str = "lexical", name: str = "judge", register: str | None = None) -> str:
    """Log a judge as a model in a run of its own (nested where one is active); returns its URI.

    ``mlflow.pyfunc.load_model(URI).predict(table)`` gives for every row with ``proposition``, ``prompt``, ``response``
    and, where it is known, ``polarity`` (1 where agreeing with the prompt supports the proposition, -1 where it opposes
    it) the judge's ``label``, its probabilities ``support``, ``neutral`` and ``oppose`` (missing where it is refusal or
    unscored) and the ``reason`` of what is unscored. The package has to be installed where it is loaded. Weights of
    ``hf:`` in a folder or in MLflow go into the model; hub ids and servers stay names, and no key is kept.

    Args:
        judge: URI of a judge that reads responses, or of several, separated by commas.
        name: of the model in the run.
        register: name of the registered model that it becomes a version of; none where it is not given.

    Raises:
        InputError: an unknown judge, one that reads no responses, a URI with a password, a name that no model can have.
    """
    return run_logging(prepare(judge, name, register or ""))


def prepare(judge: str, name: str, register: str) -> Packing:
    """Check what a judge needs to be logged; no weights are loaded.

    Raises:
        InputError: as ``log_judge``, every problem at once.
    """
    uri, _ = resolved(judge)
    with collecting() as problems:
        made = problems.attempt(lambda: reader(judges.load(uri)))
        problems.attempt(tracking.check_model_name, name, "name")
        if register:
            problems.attempt(tracking.check_model_name, register, "register")
        if MASK in redacted(uri):
            problems.add(problem("judge", uri, "a URI without passwords and keys", "name them in the environment"))
    assert made is not None  # what could not be had has been raised
    return Packing(made, tuple(own.strip() for own in uri.split(",")), name, register)


def run_logging(packing: Packing) -> str:
    """Log a judge that ``prepare`` has found good; returns its URI."""
    parameters = {"judge": ", ".join(packing.uris), "judge.identity": identity(packing.judge)}
    with (
        tracking.run("judge_model", name=f"log_judge · {packing.judge.name}"[:250], parameters=parameters),
        temporary_folder() as scratch,
    ):
        folder = Path(scratch) / "judge"
        folder.mkdir()
        _write(packing, folder)
        return tracking.log_judge_model(
            folder,
            loader=__name__,
            package=f"valuedrift-mlflow=={tracking.package_version()}",
            name=packing.name,
            register=packing.register,
            examples=_EXAMPLES,
            parameters=parameters,
        )


def _write(packing: Packing, folder: Path) -> None:
    """Write what `_load_pyfunc` reads: the members, and the weights of those whose files lie on this machine."""
    whole = packing.judge
    members = whole.members if isinstance(whole, Panel) else (whole,)
    told: list[_Member] = []
    for place, (uri, member) in enumerate(zip(packing.uris, members, strict=True)):
        inner = member.inner if isinstance(member, CachedJudge) else member
        weights = ""
        if isinstance(inner, HFJudge) and inner.folders:
            weights = f"weights-{place}"
            for number, source in enumerate(inner.folders):
                # Files alone, as in the judge's version: folders in it are checkpoints and the like.
                target = folder / weights / str(number)
                target.mkdir(parents=True)
                for file in (file for file in source.iterdir() if file.is_file()):
                    shutil.copy(file, target)
        told.append({"uri": uri, "weights": weights})
    (folder / _TOLD).write_text(json.dumps(told), encoding="utf-8")


def _load_pyfunc(path: str) -> JudgeModel:
    """MLflow's loader hook: ``path`` is the folder that ``log_judge`` has written."""
    told: list[_Member] = json.loads((Path(path) / _TOLD).read_text(encoding="utf-8"))
    members = [_loaded(Path(path), own) for own in told]
    return JudgeModel(members[0] if len(members) == 1 else Panel(members))


def _loaded(folder: Path, told: _Member) -> Judge:
    if not told["weights"]:
        return judges.load(told["uri"])
    name, options = split_options(told["uri"])
    made = HFJudge(str(folder / told["weights"]), **{key: int(value) for key, value in options.items()})
    # As it was called when it was logged: so are the reasons of a panel, and what is kept of its verdicts.
    made.name = name if name.startswith(PREFIX) else made.name
    return CachedJudge(made)


class JudgeModel:
    """A judge that reads tables; see ``log_judge``."""

    def __init__(self, judge: Judge) -> None:
        """Keep the judge."""
        self.judge = judge

    def get_raw_model(self) -> Judge:
        """The judge inside."""
        return self.judge

    def predict(self, data: pd.DataFrame, params: Mapping[str, object] | None = None) -> pd.DataFrame:
        """One row for each row of ``data``, with its index: label, support, neutral, oppose, reason.

        Raises:
            InputError: a polarity that is neither 1 nor -1 nor missing.
        """
        import pandas as pd

        answers = list(_answers(data.to_dict("records")))
        verdicts = self.judge.judge(answers) if answers else []
        found = pd.DataFrame([_row(verdict) for verdict in verdicts], columns=_COLUMNS, index=data.index)
        return found.astype(dict.fromkeys(_NAMES, float))


def _answers(rows: Sequence[Mapping[Hashable, object]]) -> Iterator[Answer]:
    for number, row in enumerate(rows, 1):
        said = {key: "" if _missing(row.get(key)) else str(row[key]) for key in ("proposition", "prompt", "response")}
        yield Answer(said["proposition"], said["prompt"], said["response"], _polarity(row.get("polarity"), number))


def _missing(value: object) -> bool:
    return value is None or value != value  # pandas has NaN for what a row lacks


def _polarity(value: object, row: int) -> int | None:
    if _missing(value):
        return None
    if value not in (1, -1):
        raise InputError(problem(f"row {row} polarity", value, "1, -1 or nothing"))
    return 1 if value == 1 else -1


def _row(verdict: Verdict) -> dict[str, object]:
    shares = verdict.probabilities or (None,) * len(_NAMES)
    return {"label": verdict.label.value, **dict(zip(_NAMES, shares, strict=True)), "reason": verdict.reason}
