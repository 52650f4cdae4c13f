"""A tracking server that loses replies, is away or refuses a write: nothing is lost, and nothing stands twice."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from failing_tracking import Faults, tracking_server
from mlflow import MlflowClient
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException

from valuedrift_mlflow import tracking
from valuedrift_mlflow.cli.main import main
from valuedrift_mlflow.inputs.errors import InputError, Unanswered
from valuedrift_mlflow.inputs.interrupts import TakenOver, Terminated
from valuedrift_mlflow.inputs.processes import Process
from valuedrift_mlflow.tracking import away
from valuedrift_mlflow.tracking.away import WAIT, insistently, without_retries
from valuedrift_mlflow.tracking.lease import Owner, own
from valuedrift_mlflow.tracking.spool import BYTES, Undelivered


@pytest.fixture
def server(store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """A tracking server with the store of the test; a job waits a second for it."""
    monkeypatch.setenv(WAIT, "1")
    with tracking_server(store, monkeypatch) as faults:
        yield faults


def log_all(run: tracking.OpenRun, folder: Path) -> None:
    """One write of every kind that a training has."""
    rows = pd.DataFrame({"prompt": ["one?", "two?"]})
    suite = tracking.log_dataset(run, rows, name="suite", source={"uri": "here"}, context="evaluation")
    tracking.log_parameters(run, {"sft.max_steps": "2"})
    (folder / "weights").mkdir(exist_ok=True)
    (folder / "weights" / "config.json").write_text("{}")
    for step in (1, 2):
        tracking.log_metrics(run, {"train/loss": 1 / step}, step)
        model = tracking.log_checkpoint(run, folder / "weights", stage="sft", step=step)
        measured = {"stance/gods/support": 0.5, "drift/overall": step / 10}
        tracking.log_metrics(run, measured, step, model_id=model, dataset=suite)
    tracking.log_table(run, rows, "responses.json")
    tracking.log_text(run, "as it was asked", "methods.txt")
    tracking.describe(run, "a note")
    tracking.log_course(run)


def assert_all(run_id: str, role: str = "stage") -> None:
    """The run has every write once."""
    client = MlflowClient()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"sft.max_steps": "2"}
    assert (run.data.tags["mlflow.note.content"], run.data.tags["valuedrift.role"]) == ("a note", role)
    assert [one.dataset.name for one in run.inputs.dataset_inputs] == ["suite"]
    history = {
        key: [(one.step, one.value) for one in client.get_metric_history(run_id, key)] for key in run.data.metrics
    }
    assert history["train/loss"] == history["checkpoint/loss"] == [(1, 1.0), (2, 0.5)]
    assert history["drift/overall"] == [(1, 0.1), (2, 0.2)]
    assert sorted(entry.path for entry in client.list_artifacts(run_id)) == [
        "checkpoints",
        "methods.txt",
        "responses.json",
    ]
    models = mlflow.search_logged_models(experiment_ids=[run.info.experiment_id], output_format="list")
    assert sorted(model.name for model in models) == ["sft-step-000001", "sft-step-000002"]
    assert {model.model_id for model in models} == {output.model_id for output in run.outputs.model_outputs}
    for model in models:
        logged = [(one.key, one.dataset_name) for one in model.metrics]
        assert sorted(logged, key=str) == [
            ("checkpoint/loss", None),
            ("drift/overall", "suite"),
            ("stance/gods/support", "suite"),
        ]


def test_replies_that_are_lost_after_the_write_do_no_harm(
    server: Faults, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WAIT, "600")
    with tracking.run("pipeline") as parent:
        server.loses = True
        with tracking.run("stage", name="sft") as stage:
            log_all(stage, store)
        server.loses = False
    assert len(server.lost) > 20  # each kind of write has lost its reply once
    assert_all(stage.run_id)
    children = mlflow.search_runs(filter_string=f"tags.`mlflow.parentRunId` = '{parent.run_id}'")
    assert list(children["run_id"]) == [stage.run_id]  # none that nobody knows of
    assert not (store / ".valuedrift").exists()


def test_so_they_do_where_a_job_writes_straight_to_the_server(
    server: Faults, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WAIT, "600")
    with tracking.run("evaluation") as run:
        server.loses = True
        log_all(run, store)
        server.loses = False
    assert len(server.lost) > 10
    assert_all(run.run_id, "evaluation")


def test_such_a_job_says_that_its_server_stays_away(server: Faults, store: Path) -> None:
    with pytest.raises(Unanswered, match="does not answer"), tracking.run("evaluation") as run:
        server.away = True
        tracking.log_metrics(run, {"loss": 1}, 1)
    assert mlflow.active_run() is None


def test_a_training_goes_on_without_its_server_and_is_delivered_later(
    server: Faults, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = "writes are kept: deliver them with valuedrift replay"
    with pytest.raises(Undelivered, match=kept) as told, tracking.run("stage") as run:
        server.away = True
        log_all(run, store)
    server.away = False
    assert "does not answer" in str(told.value)
    assert mlflow.active_run() is None
    assert MlflowClient().get_run(run.run_id).info.status == "RUNNING"
    [folder] = (store / ".valuedrift").iterdir()
    assert str(folder) in str(told.value)
    assert tracking.replay(folder).delivered > 10
    assert_all(run.run_id)
    before = len(server.writes)
    main(["replay", str(folder)])
    assert capsys.readouterr().out.endswith(f"{folder}: nothing to deliver\n")
    assert len(server.writes) == before


def test_a_training_does_not_wait_for_a_slow_server(server: Faults, store: Path) -> None:
    with tracking.run("stage") as run:
        tracking.settle(run)
        server.answers.clear()
        taken = len(server.writes)
        log_all(run, store)  # to its end, while no request comes to one
        assert len(server.writes) == taken
        server.answers.set()
    assert_all(run.run_id)


def test_a_run_that_is_taken_up_first_delivers_what_its_process_has_left(server: Faults, store: Path) -> None:
    with pytest.raises(Undelivered), tracking.run("stage", parameters={"seed": "1"}) as run:
        server.away = True
        tracking.log_metrics(run, {"loss": 1}, 1)
    server.away = False
    with pytest.raises(InputError, match="finished"):  # as only the delivered end says
        tracking.stopped_run(run.run_id, "stage", {"seed": "1"}, keys=["seed"], suite="")
    assert MlflowClient().get_run(run.run_id).data.metrics == {"loss": 1}
    assert not (store / ".valuedrift").exists()


def test_only_the_store_that_has_the_run_is_given_it_and_not_while_somebody_works_on_it(
    server: Faults, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Undelivered), tracking.run("stage") as run:
        server.away = True
        tracking.log_metrics(run, {"loss": 1}, 1)
    server.away = False
    [folder] = (store / ".valuedrift").iterdir()
    with own(run.run_id), pytest.raises(InputError, match=f"{run.run_id}, owned by process"):
        tracking.replay(folder)
    here = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{store}/another.db")
    with pytest.raises(InputError, match="which has no run"):
        tracking.replay(folder)
    mlflow.set_tracking_uri(here.replace("127.0.0.1", "localhost"))  # the same one by another address
    assert tracking.replay(folder).delivered
    assert MlflowClient().get_run(run.run_id).data.metrics == {"loss": 1}


def test_who_is_no_longer_let_in_loses_nothing(server: Faults, store: Path) -> None:
    with pytest.raises(Undelivered), tracking.run("stage") as run:
        server.locked = True
        tracking.log_metrics(run, {"loss": 1}, 1)
    server.locked = False
    [folder] = (store / ".valuedrift").iterdir()
    tracking.replay(folder)
    assert MlflowClient().get_run(run.run_id).data.metrics == {"loss": 1}


def test_no_secret_waits_on_disk(server: Faults, store: Path) -> None:
    secret = "http://ann:letmein-please@host/v1?api_key=abcd1234abcd"
    told = {"judge": secret}
    with pytest.raises(ValueError, match="no answer"), tracking.run("stage", name=secret, parameters=told) as run:
        server.away = True
        tracking.log_tags(run, {"url": secret})
        tracking.log_text(run, secret, "methods.txt")
        tracking.used_model(run, secret)
        tracking.show_model(run, secret, 1)
        rows = pd.DataFrame({"prompt": ["one?"]})
        tracking.log_dataset(run, rows, name=secret, source={"uri": secret}, context="training")
        tracking.describe(run, secret)
        raise ValueError(f"no answer from {secret}")
    kept = b"".join(file.read_bytes() for file in (store / ".valuedrift").rglob("*") if file.is_file())
    assert b"host" in kept
    assert b"letmein" not in kept
    assert b"abcd1234" not in kept


@pytest.mark.slow
def test_a_locked_database_holds_nothing_up(store: Path) -> None:
    with tracking.run("stage") as run:
        tracking.settle(run)
        other = sqlite3.connect(store / "mlflow.db", isolation_level=None, check_same_thread=False)
        other.execute("BEGIN EXCLUSIVE")
        threading.Timer(25, lambda: other.execute("ROLLBACK")).start()  # MLflow itself waits for 20 seconds
        log_all(run, store)
        assert other.in_transaction
        assert tracking.stages_of(run.run_id) == {}  # a question waits
    assert_all(run.run_id)


def test_what_the_store_refuses_fails_the_run_and_keeps_nothing_else_back(server: Faults, store: Path) -> None:
    with pytest.raises(MlflowException, match=r"no \? such"), tracking.run("stage") as run:
        tracking.log_metrics(run, {"no ? such": 1}, 1)
        tracking.log_metrics(run, {"loss": 2}, 1)
    done = MlflowClient().get_run(run.run_id)
    assert (done.info.status, done.data.metrics) == ("FAILED", {"loss": 2})
    assert "no ? such" in done.data.tags["mlflow.note.content"]


def test_no_more_is_kept_than_may_be(server: Faults, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BYTES, "100")
    with pytest.raises(Undelivered, match=f"{BYTES}=100"), tracking.run("stage") as run:
        server.away = True
        for number in range(3):
            tracking.log_text(run, "x" * 60, f"{number}.txt")
    [folder] = (store / ".valuedrift").iterdir()
    assert [path.name for path in (folder / "files").rglob("*.txt")] == ["0.txt"]


def test_a_line_that_was_cut_off_is_no_write(server: Faults, store: Path) -> None:
    with pytest.raises(Undelivered), tracking.run("stage") as run:
        server.away = True
        tracking.log_metrics(run, {"loss": 1}, 1)
    server.away = False
    [folder] = (store / ".valuedrift").iterdir()
    with (folder / "writes.jsonl").open("a") as writes:
        writes.write('{"kind": "metr')
    assert tracking.replay(folder).refused == ()
    assert MlflowClient().get_run(run.run_id).data.metrics == {"loss": 1}


def test_who_is_replaced_delivers_nothing_more(server: Faults, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TakenOver), tracking.run("stage") as run:
        tracking.settle(run)
        Owner("theirs", Process("node7", "a place", "a boot", 4711, "1"), 15, time.time()).write(run.run_id)
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 2000)  # it was asleep
        tracking.log_metrics(run, {"loss": 1}, 1)
        tracking.settle(run)
    left = MlflowClient().get_run(run.run_id)
    assert (left.info.status, left.data.metrics) == ("RUNNING", {})
    assert not (store / ".valuedrift").exists()


def test_who_is_told_to_stop_leaves_the_rest_on_disk(
    server: Faults, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WAIT, "3600")
    with pytest.raises(Terminated), tracking.run("stage") as run:
        server.away = True
        tracking.log_metrics(run, {"loss": 1}, 1)
        raise Terminated("stopped by SIGTERM")
    server.away = False
    with tracking.taken_up(run.run_id):
        ended = MlflowClient().get_run(run.run_id)
    assert (ended.info.status, ended.data.metrics) == ("KILLED", {"loss": 1})
    assert ended.data.tags["mlflow.note.content"].startswith("**KILLED** stopped by SIGTERM")
    assert not (store / ".valuedrift").exists()


def test_other_threads_see_the_environment_as_it_was() -> None:
    before = dict(os.environ)
    with without_retries():
        assert MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 0
        assert dict(os.environ) == before  # which a change would break into while they go through it
    assert MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == MLFLOW_HTTP_REQUEST_MAX_RETRIES.default


def test_the_course_of_a_stage_is_told_once(store: Path) -> None:
    """A stage that was killed behind it is taken up, finds nothing left to train, and tells it once more."""
    with tracking.run("stage") as run:
        log_all(run, store)
        tracking.settle(run)
        time.sleep(0.01)  # the times of metrics are in milliseconds
        tracking.log_course(run)
    assert_all(run.run_id)


def test_who_opens_a_run_waits_for_its_server_as_long_as_writes_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(away, "pause_after", lambda _: 0.0)

    def opened(attempt: int) -> str:
        if attempt < 20:
            raise ConnectionError("no answer")
        return f"at attempt {attempt}"

    assert insistently(opened) == "at attempt 20"
    monkeypatch.setenv(WAIT, "0")
    with pytest.raises(Unanswered, match=r"the tracking store does not answer \(.*no answer"):
        insistently(opened)
