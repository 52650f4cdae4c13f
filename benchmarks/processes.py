"""What benchmarks of whole processes share: a point in a process of its own, and how figures grow from point to point.

The peak of a process's memory never falls again, so that each point needs one.
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
# Imports are of compiled modules, as pip leaves them: with this variable every process would compile thousands anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
LINEAR = 1.1  # exponents up to this are called linear: the rest is what two points are off


def pinned(cores: int) -> None:
    """Keep this process and its children to the first of its cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def alone(script: str, *arguments: object, **variables: str) -> dict[str, Any]:
    """What a script prints as JSON in its last line, run in a process of its own with these environment variables."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **variables})
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def peak_megabytes() -> float:
    """The peak of this process's memory, and of its children's that still run; pages that they share count for each.

    What ``getrusage`` tells begins with the process that this one was started from, which may be larger: so Linux' own
    count of each program is taken where there is one.
    """
    if Path("/proc/self/status").is_file():
        own = psutil.Process()
        return sum(_peak_bytes(process.pid) for process in (own, *own.children(recursive=True))) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT / 1e6


def _peak_bytes(process: int) -> int:
    with suppress(OSError):  # it has just ended
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def cpu_seconds() -> float:
    """Of this process and of its children, those that still run among them."""
    running = 0.0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended, and is in the times of this process
            running += sum(child.cpu_times()[:2])
    return sum(os.times()[:4]) + running


@contextmanager
def taken(told: dict[str, Any]) -> Iterator[None]:
    """Note what the context takes: seconds of the wall and of the processor, and by how much the peak of memory rises.

    Wake up whatever is read or imported once before: that grows with nothing.
    """
    before, wall, cpu = peak_megabytes(), time.perf_counter(), cpu_seconds()
    yield
    told["wall"], told["cpu"] = time.perf_counter() - wall, cpu_seconds() - cpu
    told["megabytes"], told["before"] = peak_megabytes() - before, before


def say(told: Mapping[str, object]) -> None:
    """Print what a point took for the process that has started this one."""
    print(json.dumps(told), flush=True)


def exponents(sizes: Sequence[float], figures: Sequence[float]) -> list[float]:
    """By which power of the size a figure grows from each point to the next: 1 is linear, 0 is not at all."""
    pairs = zip(sizes, sizes[1:], figures, figures[1:], strict=False)
    return [
        math.log(max(after, 1e-9) / max(before, 1e-9)) / math.log(more / less) for less, more, before, after in pairs
    ]


def fitted(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """The slope of the least squares line through the logarithms of all points."""
    logs = [(math.log(size), math.log(max(figure, 1e-9))) for size, figure in zip(sizes, figures, strict=True)]
    x, y = (sum(own) / len(logs) for own in zip(*logs, strict=True))
    return sum((a - x) * (b - y) for a, b in logs) / sum((a - x) ** 2 for a, _ in logs)
