"""The benchmark of faults, one of most kinds: each is done to a real job, which comes to what it comes to without."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_job_that_is_killed_or_hurt_comes_to_what_it_comes_to_without(base: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--short", "--only", "kills", "damage", "judges"]
    paths = os.pathsep.join((str(ROOT / "tests"), str(ROOT)))
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LOST" not in done.stdout
    assert done.stdout.count(": survived (") == 4
