"""How many times a value changes files on four ways through the package.

python benchmarks/ways.py
python benchmarks/ways.py --moves evaluate recipe

Each way is gone for real, in a temporary store and with the smallest settings that pass every part of it:

- ``recipe``: a YAML file through validation, to the plan of a pipeline;
- ``plan``: this plan through the pipeline: audits, base model, sft, dpo, report;
- ``evaluate``: a model and its baseline, from URIs to logged tables and report;
- ``row``: preference pairs from their URI to the first batch of a DPO trainer.

A move is a function that hands the value to another file: it calls a function there, and among the arguments or in
what comes back is an object of one of the package's classes, a URI, or a row of training data. A function moves to a
file once, however often and to however many functions there. Calls of other libraries are looked through; functions
inside of a function count as part of it. Not values are what goes along with everything (``COMPANIONS``), the small
parts of a value (``PARTS``), and what a judge does inside (``INSIDE``); a class that is new counts, whatever its name.

Two numbers beside it cannot be lowered by handing on something else than before: all pairs of functions that call each
other between files, and all pairs of such files.
"""

import argparse
import importlib
import inspect
import os
import pkgutil
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, NamedTuple, cast

import valuedrift_mlflow

PACKAGE = Path(valuedrift_mlflow.__file__).parent
URI = re.compile(r"(embedded|models|runs|prism|openai):\S+|vaes(\?\S*)?|lexical(\?\S*)?")
ROW = {"prompt", "messages", "chosen"}  # a dict with one of these keys is a row of training data
COMPANIONS = {"Display", "KeepCheckpoint", "OpenRun", "Problems", "TrainingLog", "ValueDriftCallback"}
PARTS = {"Answer", "Estimate", "Item", "Label", "Matcher", "Side", "Spent", "Verdict"}
INSIDE = re.compile(r"judges/lexical")
RECIPE = """
base: {model: "embedded:base"}
suite: vaes?topics=religion,abortion&per_topic=3
judge: lexical
samples: 2
checkpoint_samples: 1
max_new_tokens: 16
stages:
- {name: sft, algorithm: sft, data: "embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=16", max_steps: 2,
   checkpoint_every: 1, batch_size: 4, max_length: 256}
- {name: dpo, algorithm: dpo, from: sft, data: "embedded:pairs?gap=1&size=16", max_steps: 2,
   checkpoint_every: 1, batch_size: 4, max_length: 256}
"""


class Place(NamedTuple):
    """A function of the package."""

    file: str
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.function}"


class Call(NamedTuple):
    """A call between functions of two files."""

    caller: Place
    callee: Place


@dataclass
class Way:
    """The calls between files, in the order of their first time, each with what it carried (the names of classes)."""

    calls: dict[Call, set[str]] = field(default_factory=dict)

    @property
    def moves(self) -> dict[tuple[Place, str], list[str]]:
        """The functions that are called with the value, by who calls them and their file."""
        moves: dict[tuple[Place, str], list[str]] = {}
        for (caller, callee), carried in self.calls.items():
            if carried and not INSIDE.match(caller.file):
                moves.setdefault((caller, callee.file), []).append(callee.function)
        return moves

    @property
    def files(self) -> set[tuple[str, str]]:
        """The pairs of files."""
        return {(caller.file, callee.file) for caller, callee in self.calls}


@cache
def place(code: CodeType) -> Place | None:
    """The function that the code belongs to; None for other libraries and the bodies of modules and templates."""
    path = Path(code.co_filename)
    if path.suffix != ".py" or not path.is_relative_to(PACKAGE) or code.co_name == "<module>":
        return None
    return Place(path.relative_to(PACKAGE).as_posix(), code.co_qualname.split(".<locals>")[0])


def carried(value: object, depth: int = 2) -> Iterator[str]:
    """What of the value is in an argument, alone or as the first of a collection."""
    kind = type(value)
    if kind.__module__.partition(".")[0] == valuedrift_mlflow.__name__:
        if kind.__name__ not in COMPANIONS | PARTS:
            yield kind.__name__
    elif isinstance(value, str):
        if len(value) < 200 and URI.fullmatch(value):
            yield "URI"
    elif isinstance(value, dict) and not ROW.isdisjoint(value):
        yield "row"
    elif depth and isinstance(value, list | tuple | set | dict):
        for inner in list(value.values() if isinstance(value, dict) else value)[:1]:
            yield from carried(inner, depth - 1)


def followed(go: Callable[[], object]) -> Way:
    """The way that a function goes, in all its threads."""
    way = Way()

    def see(frame: FrameType, event: str, given: object) -> None:
        if event not in ("call", "return") or (callee := place(frame.f_code)) is None:
            return
        back = frame.f_back
        while back is not None and not back.f_code.co_filename.startswith(str(PACKAGE)):
            back = back.f_back
        caller = place(back.f_code) if back is not None else None
        if caller is None or caller.file == callee.file:
            return
        seen = way.calls.setdefault(Call(caller, callee), set())
        if not seen:  # it is enough to know one
            code = frame.f_code
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            values = [given] if event == "return" else [frame.f_locals.get(name) for name in names]
            seen.update(word for value in values for word in carried(value))

    threading.setprofile(see)
    sys.setprofile(see)
    try:
        go()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return way


@cache
def modules() -> list[ModuleType]:
    """Every module of the package, imported before any way begins."""
    names = [module.name for module in pkgutil.walk_packages([str(PACKAGE)], f"{valuedrift_mlflow.__name__}.")]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def found(name: str, *rooms: str, parameter: str = "", without: str = "") -> Callable[..., Any]:
    """The function or class of this name in one of the ``rooms``, with one ``parameter`` and ``without`` another."""
    for module in modules():
        here: Any = getattr(module, name, None)
        inside = not rooms or module.__name__.split(".")[1] in rooms
        if not inside or not callable(here) or here.__module__ != module.__name__:
            continue
        takes = inspect.signature(here).parameters
        if (not parameter or parameter in takes) and without not in takes:
            return cast(Callable[..., Any], here)
    raise SystemExit(f"{name} is not where it was looked for: mend benchmarks/ways.py")


def called(function: Callable[..., Any], known: Mapping[str, object]) -> Any:
    """Call a function with those of its parameters that are known."""
    return function(**{name: known[name] for name in inspect.signature(function).parameters if name in known})


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the jobs say."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def ways(folder: Path) -> dict[str, Way]:
    """The four ways, gone one after the other."""
    load_recipe = found("load_recipe", "recipe", parameter="settings")
    prepare = found("prepare", "pipeline", parameter="recipe", without="design")
    run_pipeline = found("run_pipeline", "pipeline")
    load_data = found("load_data", "data", parameter="kind")
    file = folder / "tiny.yaml"
    file.write_text(RECIPE)
    known: dict[str, object] = {"display": found("Display")(), "source": "tiny", "folder": folder, "seed": 0}

    def recipe() -> None:
        known["recipe"] = load_recipe(str(file))
        known["plan"] = called(prepare, known)

    def plan() -> None:
        run_pipeline(known["plan"], known["display"])

    def evaluate() -> None:
        valuedrift_mlflow.evaluate("embedded:base", "embedded:random", suite=suite, samples=2, max_new_tokens=16)

    def row() -> None:
        stage = cast(Any, known["recipe"]).stages[-1]
        data = called(load_data, {"data": stage.data, "kind": "pairs", "algorithm": "dpo"})
        loaded = found("load_model", "models", parameter="uri")("embedded:random")
        model = {"model": loaded.model, "tokenizer": loaded.tokenizer}
        job = called(found("Job", "stages"), {**known, **model, "data": data, "stage": stage})
        next(iter(found("build_trainer", "stages")(job).get_train_dataloader()))

    suite = "vaes?topics=religion,abortion&per_topic=3"
    evaluate()  # trains the base model and fits the judge, which are kept: neither is part of a way
    return {go.__name__: followed(go) for go in (recipe, plan, evaluate, row)}


def main() -> None:
    """Print the table of the ways, and the moves of those that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = ["recipe", "plan", "evaluate", "row"]
    parser.add_argument("--moves", nargs="*", choices=names, help="print every move of these ways; of all without one")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="ways-") as folder:
        os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "HF_HUB_OFFLINE": "1"}
        import mlflow

        mlflow.set_experiment(experiment_id=mlflow.create_experiment("ways", artifact_location=f"{folder}/artifacts"))
        with quiet():
            gone = ways(Path(folder))
    print(f"{'way':<10}{'moves':>8}{'all calls':>12}{'pairs of files':>17}")
    for name, way in gone.items():
        print(f"{name:<10}{len(way.moves):>8}{len(way.calls):>12}{len(way.files):>17}")
    for name in names if options.moves == [] else options.moves or []:
        print(f"\n{name}")
        for (caller, file), functions in gone[name].moves.items():
            print(f"{caller} -> {file}:{', '.join(functions)}")


if __name__ == "__main__":
    main()
