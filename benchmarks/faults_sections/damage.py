"""Files that are written to be read again, and are not what was written when they are."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from faults_sections.kills import goes_on
from faults_sections.place import SFT, Outcome, Place, differences

Case = TypeVar("Case")
ONE_STAGE = {
    "suite": "vaes?topics=religion&per_topic=2",
    "samples": 1,
    "max_new_tokens": 16,
    "stages": [SFT | {"checkpoint_every": 1}],
}


def flipped(path: Path) -> None:
    """One bit in the middle of a file is another one."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    """The second half of a file is gone."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


HURTS: dict[str, Callable[[Path], None]] = {"one bit": flipped, "cut in half": cut, "gone": Path.unlink}


def states(place: Place, most: int) -> Iterator[Outcome]:
    """Each file of a training's newest state, hurt in each way; then the newest state whole, then both."""
    arguments = ["--recipe", place.recipe(ONE_STAGE)]
    if place.run("sft", *arguments).returncode:
        raise RuntimeError("sft does not run")
    expected = place.told()
    place.forget()
    arguments = ["--recipe", place.recipe(ONE_STAGE)]
    step = {"event": "a training step", "nth": 4, "when": "before"}
    place.run("sft", *arguments, aim=step | {"does": int(signal.SIGKILL)})
    place.keep()
    older, newest = sorted(place.folder.glob(".valuedrift/*/checkpoint-*"))[-2:]
    files = [path.relative_to(newest) for path in _files(newest)]
    cases = [(f"{file}: {way}", hurt, [newest / file]) for way, hurt in HURTS.items() for file in files]
    cases += [
        ("the newest state is gone", shutil.rmtree, [newest]),
        ("both states are gone", shutil.rmtree, [older, newest]),
        ("both states have other weights", flipped, [state / "model.safetensors" for state in (older, newest)]),
    ]
    for fault, hurt, paths in spread(cases, most):
        place.bring_back()
        for path in paths:
            hurt(path)
        yield Outcome("damaged state", fault, goes_on(place, "sft", arguments, expected))
    place.forget()


def _files(folder: Path) -> list[Path]:
    """All that have a content to hurt."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size > 1]


def spread(cases: list[Case], most: int) -> list[Case]:
    """At most ``most`` of all cases, from the first to the last."""
    return [cases[number * len(cases) // most] for number in range(most)] if most < len(cases) else cases


def caches(place: Place, most: int) -> Iterator[Outcome]:
    """The base model in the user's cache and the store of responses, hurt between two equal jobs."""
    settings = "suite=vaes?topics=religion&per_topic=2 samples=1 max_new_tokens=16"
    evaluated = ["--model", "embedded:base", "--set", settings]
    if (done := place.run("evaluate", *evaluated)).returncode:
        raise RuntimeError(f"evaluate does not run: {done.stderr[-500:]}")
    expected = place.told()
    shutil.rmtree(place.folder)
    place.folder.mkdir()
    place.keep()
    cases = [(way, hurt, path) for path in _files(place.caches) for way, hurt in HURTS.items()]
    for way, hurt, path in spread(cases, most):
        place.bring_back()
        hurt(path)
        done = place.run("evaluate", *evaluated)
        why = differences(place.told(), expected) if done.returncode == 0 else done.stderr.strip()[-300:]
        yield Outcome("damaged cache", f"{path.name}: {way}", why)
    place.forget()
