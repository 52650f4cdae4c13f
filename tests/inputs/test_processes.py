"""Memory that a job has freed is its own for the next step."""

import sys

import pytest
from commands_of_users import program

# Twice the same bytes; how many pages the system had to give for the second ones.
ASKED_TWICE = """
import resource
from valuedrift_mlflow.inputs.processes import keep_freed_memory

keep_freed_memory()
length = 100_000_000
first = b"x" * length
del first
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
second = b"x" * length
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the settings are those of glibc")
def test_what_was_freed_is_had_again_without_asking_the_system() -> None:
    pages = 100_000_000 // 4096
    assert int(program(ASKED_TWICE).stdout) < pages / 100
    # What the user has said of glibc's memory stays.
    assert int(program(ASKED_TWICE, environment={"MALLOC_ARENA_MAX": "2"}).stdout) > pages * 0.9
