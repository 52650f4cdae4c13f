"""Which process something belongs to, and whether that one is known to have ended."""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TELL_OF_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG of Linux' prctl
# M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's mallopt, with the bytes that a job gives them.
_KEPT = {-1: 2**31 - 1, -3: 256 * 2**20}


@dataclass(frozen=True)
class Process:
    """A process that no other one can be taken for.

    Attributes:
        host: its machine's name, for people to read.
        place: where its id counts: the machine, and on Linux the container.
        boot: the start of that machine.
        pid: its id, which the system gives again to others later.
        started: when it was started, as the system counts.
    """

    host: str
    place: str
    boot: str
    pid: int
    started: str

    @property
    def dead(self) -> bool:
        """Whether it has ended, as far as that can be known: a process of another place may always be alive."""
        here = this()
        if (self.place, self.boot) != (here.place, here.boot):
            return False
        return self.started != _started(self.pid)


def end_with_mlflow_run() -> None:
    """Be sent SIGTERM when the ``mlflow run`` that has started this process ends: it hands no signal on. On Linux."""
    words = _line(f"/proc/{os.getppid()}/cmdline").split("\0")
    if "run" in words and any(Path(word).name == "mlflow" for word in words):
        import ctypes

        ctypes.CDLL(None).prctl(_TELL_OF_PARENTS_DEATH, signal.SIGTERM)


def keep_freed_memory() -> None:
    """Take memory that was freed again before the system is asked for more, where the C library is glibc.

    The activations of a step are freed after it. Left alone, glibc gives them back to the system, which fills every
    page with zeros when the next step asks for them again: a fifth of the time of the training of a small model.
    What the user has set by glibc's own variables stays.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    import ctypes

    for option, size in _KEPT.items():
        ctypes.CDLL(None).mallopt(option, size)


def this() -> Process:
    """This process."""
    host, place, boot = _surroundings()
    pid = os.getpid()  # not kept: a process that was forked is another one
    return Process(host, place, boot, pid, _started(pid))


@cache
def _surroundings() -> tuple[str, str, str]:
    import psutil

    host = socket.gethostname()
    boot = _line("/proc/sys/kernel/random/boot_id") or str(int(psutil.boot_time()))
    try:
        counted = os.readlink("/proc/self/ns/pid")
    except OSError:
        counted = ""
    return host, _short(host, _line("/etc/machine-id"), counted), _short(boot)


def _short(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]


def _line(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process was started; empty where there is none, or one that waits for nothing but to be forgotten."""
    import psutil

    try:
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return ""
        # Clock ticks since the machine's start, where they can be had: psutil's time moves with the clock.
        behind_name = _line(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return behind_name[19] if behind_name else str(int(psutil.Process(pid).create_time()))
    except psutil.NoSuchProcess:
        return ""
