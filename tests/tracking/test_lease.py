"""One owner for a run: who takes it, who is refused, and who stops."""

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from ui_pages import server

from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.inputs.interrupts import TakenOver
from valuedrift_mlflow.inputs.processes import Process, this
from valuedrift_mlflow.tracking.lease import OWNER, SETTING, Owner, own

ELSEWHERE = Process("node7", "another place", "another boot", 4711, "1")


@pytest.fixture
def stopped(store: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a pipeline's run that can be taken up; owners are given up after an hour, so that no test is timed."""
    monkeypatch.setenv(SETTING, "3600")
    return str(MlflowClient().create_run("0", tags={"valuedrift.role": "pipeline"}).info.run_id)


@pytest.fixture
def ended() -> Process:
    """A process of this machine that has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        started = replace(this(), pid=running.pid, started=Path(f"/proc/{running.pid}/stat").read_text().split()[21])
        assert not started.dead
        running.communicate(b"\n")
    return started


def named(run_id: str, process: Process, age: float = 0.0) -> Owner:
    """An owner that a run names, with its last heartbeat so many seconds ago."""
    owner = Owner("its token", process, 0.25, time.time() - age)
    owner.write(run_id)
    return owner


def test_an_owner_beats_and_gives_back(stopped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "1")
    with tracking.taken_up(stopped):
        first = Owner.of(stopped)
        assert first is not None and first.process == this()
        while (later := Owner.of(stopped)) == first:
            time.sleep(0.1)
        assert later is not None and later.beat > first.beat and later.token == first.token
    assert OWNER not in mlflow.get_run(stopped).data.tags


def test_a_second_owner_is_refused_by_name(stopped: str) -> None:
    named(stopped, ELSEWHERE, 1)
    with pytest.raises(InputError) as refused, tracking.taken_up(stopped):
        pass
    assert re.search(r"process 4711 on node7, last heartbeat \d+ s ago", str(refused.value))
    assert "end it there (kill 4711), or wait until 3600 s have gone without one" in str(refused.value)
    owner = Owner.of(stopped)
    assert owner is not None and owner.process == ELSEWHERE


def test_this_process_does_not_take_what_it_owns(stopped: str) -> None:
    with tracking.taken_up(stopped), pytest.raises(InputError, match=f"process {os.getpid()}"), own(stopped):
        pass


def test_a_process_that_has_ended_here_is_followed_at_once(stopped: str, ended: Process) -> None:
    named(stopped, ended)
    with tracking.taken_up(stopped):
        owner = Owner.of(stopped)
        assert owner is not None and owner.process == this()


@pytest.mark.parametrize(
    "change", [{"started": "7"}, {"pid": 2**22 + 1}], ids=["its id was given again", "none has it"]
)
def test_an_id_alone_is_no_process(stopped: str, change: dict[str, str]) -> None:
    assert replace(this(), **change).dead  # type: ignore[arg-type]
    assert not replace(this(), boot="another", **change).dead  # type: ignore[arg-type]


def test_a_silent_owner_elsewhere_is_followed_once_it_is_stale(stopped: str) -> None:
    named(stopped, ELSEWHERE, 4000)
    with tracking.taken_up(stopped):
        owner = Owner.of(stopped)
        assert owner is not None and owner.process == this()


def test_an_owner_whose_clock_is_behind_is_seen_by_its_next_heartbeat(stopped: str) -> None:
    over = threading.Event()

    def beat(owner: Owner) -> None:
        while not over.wait(0.05):
            owner = replace(owner, beat=owner.beat + 0.1)
            owner.write(stopped)

    beating = threading.Thread(target=beat, args=(named(stopped, ELSEWHERE, 4000),))
    beating.start()
    try:
        with pytest.raises(InputError, match="node7"), tracking.taken_up(stopped):
            pass
    finally:
        over.set()
        beating.join()


def test_an_owner_that_is_replaced_stops_and_writes_no_more(stopped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "1")
    with (
        pytest.raises(TakenOver, match="was taken over by process 4711 on node7"),
        tracking.taken_up(stopped),
        tracking.run("pipeline", run_id=stopped),
    ):
        while True:  # until a heartbeat finds it
            named(stopped, ELSEWHERE)
            time.sleep(0.3)
            with tracking.run("stage"):
                pass
    assert mlflow.active_run() is None
    run = mlflow.get_run(stopped)
    assert run.info.status == "RUNNING" and "mlflow.note.content" not in run.data.tags
    owner = Owner.of(stopped)
    assert owner is not None and owner.process == ELSEWHERE


def test_a_process_that_was_asleep_asks_before_it_goes_on(stopped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracking.taken_up(stopped):
        tracking.check_owner()
        named(stopped, ELSEWHERE)
        tracking.check_owner()  # it was known a moment ago
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 2000)
        with pytest.raises(TakenOver):
            tracking.check_owner()


@pytest.mark.parametrize("value", ["0", "soon", "inf"])
def test_a_setting_that_cannot_be_is_refused_before_a_run(
    store: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(SETTING, value)
    with pytest.raises(InputError, match=SETTING), tracking.run("pipeline"):
        pass
    assert not MlflowClient().search_runs(["0"])


def test_what_earlier_processes_left_running_is_killed(stopped: str) -> None:
    client = MlflowClient()
    below = {"mlflow.parentRunId": stopped}
    stage = client.create_run("0", tags=below | {"valuedrift.role": "stage"}).info.run_id
    audit = client.create_run("0", tags=below | {"valuedrift.role": "audit"}).info.run_id
    deeper = client.create_run("0", tags={"mlflow.parentRunId": stage}).info.run_id
    failed = client.create_run("0", tags=below | {"valuedrift.role": "stage"}).info.run_id
    client.set_terminated(failed, "FAILED")
    other = client.create_run("0", tags={"valuedrift.role": "stage"}).info.run_id
    places = [Path(mlflow.get_run(run_id).info.artifact_uri.removeprefix("file://")) for run_id in (stopped, audit)]
    for place in places:
        place.mkdir(parents=True)
        # As MLflow calls a file that it has not yet copied to its end.
        (place / ".artifact.uploading.x").touch()
        (place / "whole").touch()
    with tracking.taken_up(stopped):
        status = {run_id: mlflow.get_run(run_id).info.status for run_id in (stage, audit, deeper, failed, other)}
    assert list(status.values()) == ["KILLED", "KILLED", "KILLED", "FAILED", "RUNNING"]
    assert [[path.name for path in place.iterdir()] for place in places] == [["whole"], ["whole"]]


@pytest.mark.slow
def test_over_a_server_two_who_take_a_run_at_once_are_one_owner(store: Path) -> None:
    """Two processes with the store of one server; each takes the run when the other one is there."""
    taking = """
import sys, time
from pathlib import Path
import mlflow
from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs.errors import InputError
mlflow.set_tracking_uri(sys.argv[1])
Path(sys.argv[3]).touch()
while not Path(sys.argv[4]).exists():
    time.sleep(0.01)
try:
    with tracking.taken_up(sys.argv[2]):
        print("owner", flush=True)
        input()
except InputError as error:
    print(error)
"""
    with server(store) as address:
        client = MlflowClient(address)
        run_id = client.create_run("0", tags={"valuedrift.role": "pipeline"}).info.run_id
        command = [sys.executable, "-c", taking, address, run_id]
        asked = [
            subprocess.Popen([*command, mine, other], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for mine, other in (("one", "two"), ("two", "one"))
        ]
        said = [str(process.stdout.readline()) for process in asked if process.stdout]
        for process in asked:
            process.communicate("\n")
        first, second = sorted(said)
        assert first.startswith("--resume: found") and f"on {this().host}, last heartbeat" in first
        assert second == "owner\n"
        assert OWNER not in client.get_run(run_id).data.tags
