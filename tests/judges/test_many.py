"""Many answers are read in other processes, and come to the same."""

import os
import signal
import threading

import pytest

from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.judges.lexical.judge import LexicalJudge
from valuedrift_mlflow.judges.many import MANY, verdicts
from valuedrift_mlflow.stances import UNSCORED, Answer, Verdict

SAID = ("I am for it.", "I oppose it.", "No idea.")
ANSWERS = [Answer(f"The state should pay for school {number}.", "", SAID[number % 3]) for number in range(MANY)]


class Here:
    """Tells in its verdicts which process has read."""

    name = "here"
    portable = True

    def judge(self, answers):
        return [Verdict(UNSCORED.label, None, None, str(os.getpid())) for _ in answers]


class NotPortable(Here):
    portable = False


class Killed(Here):
    """Read anywhere but where it was made, it is killed."""

    def __init__(self):
        self.home = os.getpid()

    def judge(self, answers):
        if os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().judge(answers)


class Refuses(Here):
    def judge(self, answers):
        raise InputError("no judge for this")


@pytest.fixture(autouse=True)
def three_cores(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)


def test_verdicts_are_those_of_one_process_in_order():
    judge = LexicalJudge()
    found = verdicts(judge, ANSWERS)
    assert found == judge.judge(ANSWERS)
    assert [verdict.label.value for verdict in found[:3]] == ["support", "oppose", "neutral"]


def test_many_answers_are_read_in_other_processes_and_few_here():
    many, few = verdicts(Here(), ANSWERS), verdicts(Here(), ANSWERS[1:])
    assert len({verdict.reason for verdict in many} - {str(os.getpid())}) == 2
    assert {verdict.reason for verdict in few} == {str(os.getpid())}


def test_a_judge_that_is_bound_to_its_process_reads_there():
    assert {verdict.reason for verdict in verdicts(NotPortable(), ANSWERS)} == {str(os.getpid())}


def test_where_one_core_is_all_nothing_is_started(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    assert {verdict.reason for verdict in verdicts(Here(), ANSWERS)} == {str(os.getpid())}


def test_what_a_lost_process_was_to_read_is_read_here(caplog):
    found = verdicts(Killed(), ANSWERS)
    assert {verdict.reason for verdict in found} == {str(os.getpid())} and len(found) == len(ANSWERS)
    assert "was lost" in caplog.text
    assert str(os.getpid()) not in {verdict.reason for verdict in verdicts(Here(), ANSWERS)}  # others have begun


def test_a_judge_that_cannot_travel_reads_here_and_is_named(caplog):
    judge = Here()
    judge.lock = threading.Lock()
    assert {verdict.reason for verdict in verdicts(judge, ANSWERS)} == {str(os.getpid())}
    assert "judge here says that it is portable and is not" in caplog.text


def test_an_error_of_the_judge_is_its_own():
    with pytest.raises(InputError, match="no judge for this"):
        verdicts(Refuses(), ANSWERS)
