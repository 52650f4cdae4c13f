"""Several machines in one training: where they meet, which one is the first, and what it has the others do.

The same command is started on each. The first machine is the one that ``launch.rendezvous`` is an address of: it holds
the MLflow runs and writes all there is. The others wait for its orders, and start their processes of a stage when it
starts its own. Orders go through a store of torch's at that address; the processes find each other by torchrun.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.strict import flat
from valuedrift_mlflow.recipe.recipe import Recipe

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, and not among its exports

    from valuedrift_mlflow.report.display import Display

_HERE_WITHIN = 1800.0  # seconds in which all machines have to be there
_LOOKED_EVERY = 0.5  # seconds; a notice to stop is heard between two looks
_REPORTED_WITHIN = 10.0  # seconds in which another machine says what went wrong on it
_WHERE = "launch.rendezvous"
_current: Meeting | None = None  # a stage's training asks for it from far below


class Meeting:
    """The machines of a job, seen from one of them.

    Attributes:
        rank: 0 of the first machine.
        nodes: how many there are.
    """

    def __init__(self, store: TCPStore, host: str, port: int, nodes: int) -> None:
        """Machines that meet in ``store``, which lies at ``host:port``."""
        self._store, self._host, self._port, self.nodes = store, host, port, nodes
        self._orders = 0
        self.rank = -1

    @property
    def address(self) -> str:
        """Where they meet."""
        return f"{self._host}:{self._port}"

    def open(self, recipe: Mapping[str, object]) -> None:
        """The first machine: say what the job is, and be there."""
        self._store.set("recipe", json.dumps(recipe))
        self.rank = self._store.add("machines", 1) - 1

    def join(self, recipe: Mapping[str, object]) -> None:
        """Any other machine: be there.

        Raises:
            InputError: its recipe is another, or all machines are there already.
        """
        theirs = json.loads(self._text("recipe"))
        if theirs != recipe:
            ours, first = flat(dict(recipe)), flat(theirs)
            names = sorted(name for name in ours.keys() | first.keys() if ours.get(name) != first.get(name))
            found = f"{socket.gethostname()} with another recipe ({', '.join(names)})"
            refused = problem("launch.nodes", found, "one recipe on all machines", "start the same command on each")
            self._store.set("refused", refused)
            raise InputError(refused)
        self.rank = self._store.add("machines", 1) - 1
        if self.rank >= self.nodes:
            raise InputError(problem("launch.nodes", f"machine number {self.rank + 1}", f"{self.nodes} machines"))

    def gather(self, display: Display) -> None:
        """The first machine: wait for the others.

        Raises:
            InputError: they do not come, or one has another recipe.
        """
        display.line(f"waiting for {self.nodes - 1} more machines at {self.address}")
        ends = time.monotonic() + _HERE_WITHIN
        while self._store.add("machines", 0) < self.nodes:
            if self._store.check(["refused"]):
                raise InputError(self._text("refused"))
            if time.monotonic() > ends:
                found = f"{self._store.add('machines', 0)} machines after {_HERE_WITHIN / 60:.0f} minutes"
                raise InputError(problem("launch.nodes", found, f"{self.nodes} that reach {self.address}"))
            time.sleep(_LOOKED_EVERY)

    def order(self, files: Mapping[str, str]) -> list[str]:
        """The first machine: have the others start a stage with these files; gives torchrun's arguments here."""
        self._orders += 1
        with closing(socket.socket()) as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        self._store.set(f"orders/{self._orders}", json.dumps({"files": dict(files), "port": port}))
        return self._arguments(port)

    def next_orders(self) -> tuple[dict[str, str], list[str]] | None:
        """Any other machine: the files and torchrun's arguments of the next stage; None after the last one.

        Raises:
            InputError: the first machine has ended otherwise.
        """
        self._orders += 1
        told = json.loads(self._text(f"orders/{self._orders}"))
        if told.get("failed"):
            raise InputError(problem(_WHERE, f"a first machine that ended: {told['failed']}", "one that goes on"))
        return None if "failed" in told else (told["files"], self._arguments(told["port"]))

    def report(self, reports: object) -> None:
        """Any other machine: say what went wrong in its processes."""
        self._store.set(f"reports/{self._orders}", json.dumps(reports))

    def reports(self) -> list[dict[str, object]]:
        """The first machine: what has gone wrong in the processes of another one, if it tells in time."""
        ends, key = time.monotonic() + _REPORTED_WITHIN, f"reports/{self._orders}"
        while not self._store.check([key]) and time.monotonic() < ends:
            time.sleep(_LOOKED_EVERY)
        found: list[dict[str, object]] = json.loads(self._text(key)) if self._store.check([key]) else []
        return found

    def close(self, failed: str) -> None:
        """The first machine: let the others go; ``failed`` is why, empty where all is well."""
        self._orders += 1
        self._store.set(f"orders/{self._orders}", json.dumps({"failed": failed}))
        # The store ends with this process: the others must have read this by then.
        time.sleep(3 * _LOOKED_EVERY)

    def _arguments(self, port: int) -> list[str]:
        # Static: the first machine has to be the one whose processes count from 0, of which the first one writes.
        return [
            f"--nnodes={self.nodes}",
            f"--node-rank={self.rank}",
            "--rdzv-backend=static",
            f"--master-addr={self._host}",
            f"--master-port={port}",
        ]

    def _text(self, key: str) -> str:
        """What stands under a key, once it does.

        Raises:
            InputError: the first machine is gone.
        """
        try:
            while not self._store.check([key]):
                time.sleep(_LOOKED_EVERY)
            return bytes(self._store.get(key)).decode()
        except RuntimeError as error:
            found = f"{self.address}, where nobody answers any more ({one_line(error, 80)})"
            raise InputError(problem(_WHERE, found, "a first machine that goes on", "see what it has said")) from None


def current(stage: str) -> Meeting:
    """The meeting of this job.

    Raises:
        InputError: its machines have not met.
    """
    if _current is None:
        mend = "start `valuedrift main` or the stage's command on every machine"
        raise InputError(problem(f"{stage}.launch.nodes", "several machines", "1 here", mend))
    return _current


@contextmanager
def met(recipe: Recipe, display: Display) -> Iterator[Meeting | None]:
    """Meet the other machines of a job; None where it has no other. What ends it here ends it there.

    Raises:
        InputError: they cannot meet.
    """
    global _current
    nodes = max((stage.launch.nodes for stage in recipe.stages), default=1)
    if nodes == 1:
        yield None
        return
    host, port = _place(recipe)
    settings = recipe.model_dump(mode="json", by_alias=True)
    if not _is_here(host, port):
        meeting = Meeting(_reached(host, port), host, port, nodes)
        meeting.join(settings)
        yield meeting
        return
    meeting = Meeting(_store(host, port, first=True), host, port, nodes)
    failed = ""
    try:
        meeting.open(settings)
        meeting.gather(display)
        _current = meeting
        yield meeting
    except BaseException as error:
        failed = one_line(str(error) or type(error).__name__, 300)
        raise
    finally:
        _current = None
        meeting.close(failed)


def check_nodes(recipe: Recipe) -> None:
    """Refuse stages on several machines that have no place to meet, or several.

    Raises:
        InputError: all problems at once.
    """
    several = [stage for stage in recipe.stages if stage.launch.nodes > 1]
    if not several:
        return
    counts = sorted({stage.launch.nodes for stage in several})
    if len(counts) > 1:
        found = " and ".join(map(str, counts))
        raise InputError(problem("launch.nodes", found, "one number for all stages, or 1"))
    _place(recipe)


def _place(recipe: Recipe) -> tuple[str, int]:
    """Where the machines meet.

    Raises:
        InputError: nowhere, or at several places.
    """
    named = {stage.launch.rendezvous for stage in recipe.stages if stage.launch.nodes > 1}
    host, _, port = str(next(iter(named), "") or "").rpartition(":")
    if len(named) != 1 or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        found = " and ".join(str(one) for one in named if one) or "nothing"
        allowed = "HOST:PORT, an address of the first machine and a port that is free there"
        raise InputError(problem(_WHERE, found, allowed, "--rendezvous HOST:PORT"))
    return host, int(port)


def _is_here(host: str, port: int) -> bool:
    """Whether an address is one of this machine, at a port that nobody has taken yet.

    Raises:
        InputError: no address has this name.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        allowed = "the name or the address of the first machine"
        raise InputError(problem(_WHERE, host, allowed, one_line(error))) from None
    for family, kind, protocol, _, place in found:
        with closing(socket.socket(family, kind, protocol)) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(place)
            except OSError:
                continue
            return True
    return False


def _reached(host: str, port: int) -> TCPStore:
    """The store of the first machine, once that is there.

    Raises:
        InputError: it does not come.
    """
    ends = time.monotonic() + _HERE_WITHIN
    while time.monotonic() < ends:
        try:
            with closing(socket.create_connection((host, port), timeout=5)):
                pass
            return _store(host, port, first=False)
        except OSError:
            time.sleep(_LOOKED_EVERY)
    found = f"{host}:{port}, where nobody answers after {_HERE_WITHIN / 60:.0f} minutes"
    raise InputError(problem(_WHERE, found, "an address of the first machine that this one reaches"))


def _store(host: str, port: int, *, first: bool) -> TCPStore:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # see above

    try:
        return TCPStore(host, port, is_master=first, wait_for_workers=False, timeout=timedelta(seconds=30))
    except RuntimeError as error:
        allowed = "a port at which the machines of this job meet, and nobody else"
        raise InputError(problem(_WHERE, f"{host}:{port}", allowed, one_line(error, 120))) from None
