"""Processes that are killed outright, or told to stop, at moments that a whole job was seen to pass through."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from faults_sections.place import DPO, PIPELINE, SFT, Outcome, Place, Told, differences

# Cells of one step each: what is killed is the ablation around them.
ABLATED = {
    "suite": "vaes?topics=religion&per_topic=2",
    "samples": 1,
    "max_new_tokens": 8,
    "reference_kl": False,
    "stages": [SFT | {"max_steps": 1}, DPO | {"max_steps": 1}],
}
DESIGN = 'cells: [dpo]\naxes: {"data?gap": [0, 1]}\nseeds: [0]\n'
_GRACE = 10.0


def whole(place: Place, name: str, tree: Mapping[str, object]) -> tuple[Told, list[str]]:
    """What a job comes to that nothing happens to, and the moments it passes through; the place is empty again."""
    file, record = place.recipe(tree), place.temporary / "moments"
    done = place.run(name, *_arguments(place, name, file), aim={"record": str(record)})
    if done.returncode:
        raise RuntimeError(f"{name} does not run: {done.stderr[-2000:]}")
    found, moments = place.told(), record.read_text().splitlines()
    place.forget()
    return found, moments


def _arguments(place: Place, name: str, file: str) -> list[str]:
    if name != "ablate":
        return ["--recipe", file]
    design = place.folder / "design.yaml"
    design.write_text(DESIGN)
    return ["--recipe", file, "--design", str(design)]


def chosen(moments: list[str], most: int) -> list[tuple[str, int, str]]:
    """``most`` moments as (event, how often it has come, before or behind it): each event in its middle, first, last.

    Behind a write is the worst: it has taken effect and nobody has heard of it.
    """
    counts = Counter(moments)
    found: list[tuple[str, int, str]] = []
    for share in (0.5, 0.0, 1.0, 0.25, 0.75):
        for event, number in counts.items():
            nth = 1 + round(share * (number - 1))
            if all((event, nth) != (known, other) for known, other, _ in found):
                found.append((event, nth, "before" if len(found) % 3 == 2 else "behind"))
    return found[:most]


def killed(place: Place, name: str, tree: Mapping[str, object], most: int) -> Iterator[Outcome]:
    """SIGKILL at ``most`` moments of a job, each time taken up again."""
    expected, moments = whole(place, name, tree)
    for event, nth, when in chosen(moments, most):
        fault = f"{when} {event}, time {nth} of {moments.count(event)}"
        yield Outcome(f"SIGKILL, {name}", fault, _killed(place, name, tree, expected, (event, nth, when)))
        place.forget()


def _killed(place: Place, name: str, tree: Mapping[str, object], expected: Told, moment: tuple[str, int, str]) -> str:
    event, nth, when = moment
    arguments = _arguments(place, name, place.recipe(tree))
    done = place.run(name, *arguments, aim={"event": event, "nth": nth, "when": when, "does": int(signal.SIGKILL)})
    if done.returncode != -signal.SIGKILL:
        return f"was not killed: {done.returncode}"
    return goes_on(place, name, arguments, expected)


def goes_on(place: Place, name: str, arguments: list[str], expected: Told) -> str:
    """What is wrong with a job once it was taken up (begun anew where it had no run yet)."""
    run_id = place.resumable()
    again = place.run(name, *arguments, *(["--resume", run_id] if run_id else []))
    if again.returncode:
        return f"exit code {again.returncode}: {again.stderr.strip().splitlines()[-1:]}"
    return differences(place.told(), expected) or ", ".join(f"{left} is left" for left in place.left())


def told_to_stop(place: Place, most: int) -> Iterator[Outcome]:
    """SIGTERM and Ctrl-C at moments of a pipeline: ten seconds, one line, all runs ended; then taken up again."""
    expected, _ = whole(place, "main", PIPELINE)
    moments = [("a training step", 2), ("a model speaks", 2), ("a corpus is audited", 1), ("a state is saved", 2)]
    signals = (signal.SIGTERM, signal.SIGINT)
    cases = [(number, *moment) for moment in moments for number in signals]
    for number, event, nth in cases[:most]:
        aim = {"event": event, "nth": nth, "when": "before", "does": int(number)}
        yield Outcome("told to stop", f"{number.name} before {event}, time {nth}", _told(place, aim, expected))
        place.forget()


def _told(place: Place, aim: Mapping[str, object], expected: Told) -> str:
    number = signal.Signals(int(str(aim["does"])))
    arguments = _arguments(place, "main", place.recipe(PIPELINE))
    done = place.run("main", *arguments, aim=aim)
    if done.returncode != 128 + number:
        return f"exit code {done.returncode}"
    line = done.stderr.strip().splitlines()[-1]
    if not re.fullmatch(rf"valuedrift: stopped by {number.name}; go on with: valuedrift main .* --resume \w+", line):
        return f"its last line: {line}"
    if running := place.running():
        return f"left RUNNING: {running}"
    if folders := [left for left in place.left() if left != ".valuedrift"]:
        return f"left in TMPDIR: {folders}"
    return goes_on(place, "main", arguments, expected)


def resumed_twice(place: Place) -> Iterator[Outcome]:
    """Two processes take up one run: the first is kept within a step until the second was refused."""
    expected, _ = whole(place, "main", PIPELINE)
    arguments = _arguments(place, "main", place.recipe(PIPELINE))
    step = {"event": "a training step", "nth": 2, "when": "before"}
    place.run("main", *arguments, aim=step | {"does": int(signal.SIGKILL)})
    run_id, hook = str(place.resumable()), str(place.temporary / "go on")
    with ThreadPoolExecutor(1) as beside:
        first = beside.submit(place.run, "main", *arguments, "--resume", run_id, aim=step | {"does": hook})
        while not Path(hook + ".there").exists() and not first.done():
            time.sleep(0.1)
        second = place.run("main", *arguments, "--resume", run_id)
        Path(hook).touch()
    why = "" if second.returncode == 2 and "owned by process" in second.stderr else f"the second: {second.returncode}"
    why = why or ("" if first.result().returncode == 0 else f"the first: {first.result().returncode}")
    yield Outcome("two resumes", "of one run at once", why or differences(place.told(), expected))
    place.forget()
