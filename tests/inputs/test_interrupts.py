"""Processes that are told to stop, whatever they are doing; and the temporary folders of those that were killed."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

BEGUN = """
import os, signal, sys, time
from valuedrift_mlflow.inputs import interrupts, scratch

def tell(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    time.sleep(0)  # here it is handled

"""


def ended(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    shown = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", BEGUN + code], capture_output=True, text=True, env=shown, check=False)


@pytest.fixture
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vd", dir="/tmp") as folder:  # short, for the sake of sockets
        yield Path(folder)


def test_work_is_left_where_it_is_and_says_how_to_go_on(temporary: Path) -> None:
    code = """
with interrupts.minded(ends=True), interrupts.ending(lambda: None, "go on with: this"):
    scratch.keep_together()
    try:
        tell()
    finally:
        print("closed")
"""
    done = ended(code, TMPDIR=str(temporary))
    assert (done.returncode, done.stdout) == (143, "closed\n")
    assert done.stderr == "valuedrift: stopped by SIGTERM; go on with: this\n"
    assert not list(temporary.iterdir())


def test_a_terminal_that_is_closed_is_a_notice_too() -> None:
    code = """
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever has started this test
with interrupts.minded(ends=True), interrupts.ending(lambda: None, "go on with: this"):
    tell(signal.SIGHUP)
"""
    done = ended(code)
    assert (done.returncode, done.stderr) == (129, "valuedrift: stopped by SIGHUP; go on with: this\n")


def test_a_step_comes_to_its_end() -> None:
    code = """
with interrupts.minded(ends=True):
    interrupts.hold()
    tell(signal.SIGINT)
    print("step")
    raise interrupts.release()
"""
    done = ended(code)
    assert (done.returncode, done.stdout) == (130, "step\n")


@pytest.mark.parametrize(
    "work",
    ["interrupts.hold(); tell(); time.sleep(3600)", "interrupts.hold(); tell()\n    while True: pass"],
    ids=["waiting", "computing"],
)
def test_a_step_that_takes_too_long_is_cut_off(work: str) -> None:
    done = ended(f"with interrupts.minded(ends=True):\n    {work}", VALUEDRIFT_GRACE="1")
    assert done.returncode == 143


def test_who_swallows_the_stop_is_ended_with_its_runs_closed(temporary: Path) -> None:
    code = """
with interrupts.minded(ends=True), interrupts.ending(lambda: os.write(1, b"closed")):
    scratch.keep_together()
    while True:
        try:
            tell() if not interrupts.asked() else time.sleep(3600)
        except BaseException:
            pass
"""
    done = ended(code, VALUEDRIFT_GRACE="1", TMPDIR=str(temporary))
    assert (done.returncode, done.stdout) == (143, "closed")
    assert done.stderr == "valuedrift: stopped by SIGTERM\n"
    assert not list(temporary.iterdir())


def test_one_notice_may_come_twice_and_a_second_one_ends_at_once() -> None:
    code = """
with interrupts.minded(ends=True):
    interrupts.hold()
    tell(signal.SIGINT)
    tell()  # as `mlflow run` sends it behind Ctrl-C
    print("still there", flush=True)
    time.sleep(1.1)
    tell()
    print("and still")
"""
    done = ended(code, VALUEDRIFT_GRACE="3600")
    assert (done.returncode, done.stdout) == (143, "still there\n")


def test_a_script_gets_what_python_gives_it() -> None:
    code = """
try:
    with interrupts.minded():
        tell(signal.SIGINT)
except KeyboardInterrupt:
    print("caught")
with interrupts.minded():
    tell()
"""
    done = ended(code)
    assert (done.returncode, done.stdout) == (143, "caught\n")
    assert done.stderr == "valuedrift: stopped by SIGINT\nvaluedrift: stopped by SIGTERM\n"


def test_handlers_of_others_stay() -> None:
    code = """
signal.signal(signal.SIGTERM, lambda number, frame: print("theirs"))
with interrupts.minded(ends=True):
    tell()
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    done = ended(code)
    assert (done.returncode, done.stdout) == (0, "theirs\n")


def test_folders_of_processes_that_were_killed_go_and_those_of_others_stay(temporary: Path) -> None:
    place = {"TMPDIR": str(temporary)}
    assert (
        ended("scratch.keep_together(); scratch.temporary_folder(); tell(signal.SIGKILL)", **place).returncode
        == -signal.SIGKILL
    )
    [left] = temporary.iterdir()
    theirs = temporary / "valuedrift-mine"
    theirs.mkdir()
    waiting = BEGUN + "kept = scratch.temporary_folder(); print(kept.name, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", waiting],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **place},
    ) as alive:
        assert alive.stdout is not None
        live = Path(alive.stdout.readline().strip())
        assert not left.exists()
        ended("scratch.temporary_folder()", **place)
        assert set(temporary.iterdir()) == {live, theirs}
        alive.communicate("\n")
    assert set(temporary.iterdir()) == {theirs}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")
def test_what_mlflow_run_has_started_ends_with_it(temporary: Path) -> None:
    """A script of that name stands for it: both start a process, wait for it, and hand no signal on."""
    child = temporary / "child.py"
    child.write_text(
        BEGUN
        + "from valuedrift_mlflow.inputs import processes\n"
        + "with interrupts.minded(ends=True):\n    processes.end_with_mlflow_run()\n"
        + "    print('begun', flush=True)\n    time.sleep(3600)\n"
    )
    parent = temporary / "mlflow"
    parent.write_text("import subprocess, sys\nsubprocess.run([sys.executable, sys.argv[2]])\n")
    with subprocess.Popen(
        [sys.executable, parent, "run", child], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None and started.stderr is not None
        assert started.stdout.readline() == "begun\n"
        started.terminate()
        # Read to its end: the child has it open until it has ended itself.
        assert "valuedrift: stopped by SIGTERM" in started.stderr.read()
