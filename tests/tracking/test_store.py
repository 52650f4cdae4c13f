"""The tracking store: what is said where it cannot be used, what never is, and two jobs that create one at once."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
from commands_of_users import program, valuedrift
from mlflow import MlflowClient

from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.tracking.store import command

OPEN = "from valuedrift_mlflow import tracking\nwith tracking.run('audit', name='one'):\n    pass"
HOW = "from valuedrift_mlflow import tracking\nprint(tracking.how_to_open())"


def test_two_jobs_create_one_database_at_once(tmp_path: Path) -> None:
    quiet = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    quiet |= {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": os.pathsep.join(sys.path)}
    jobs = [
        subprocess.Popen([sys.executable, "-c", OPEN], cwd=tmp_path, env=quiet, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    runs = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["0"])
    assert [(run.info.run_name, run.info.status) for run in runs] == [("one", "FINISHED")] * 2


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A server that says the same to everybody."""

    class Saying(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *said: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Saying)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@pytest.mark.parametrize(("status", "mend"), [(401, "MLFLOW_TRACKING_USERNAME"), (403, "MLFLOW_TRACKING_USERNAME")])
def test_a_store_that_lets_nobody_in_is_told_of_without_the_password(
    store: Path, monkeypatch: pytest.MonkeyPatch, status: int, mend: str
) -> None:
    with answering(status) as host:
        mlflow.set_tracking_uri(f"http://ann:secret@{host}")
        with pytest.raises(InputError) as refused:
            tracking.check_store()
    line = str(refused.value)
    assert line.startswith(f"MLFLOW_TRACKING_URI: found 'http://{host}', allowed: a tracking store that answers; set")
    assert mend in line and str(status) in line and "secret" not in line


def test_a_job_whose_server_is_down_ends_with_a_line_and_code_2(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    done = valuedrift("audit", "--data", "embedded:pairs?size=10")
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if line.startswith("valuedrift: ")]
    assert "MLFLOW_TRACKING_URI: found 'http://127.0.0.1:9'" in line and "start the server" in line
    assert "Traceback" not in done.stderr


def test_a_deleted_experiment_is_told_of(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = MlflowClient()
    number = client.create_experiment("gone")
    client.delete_experiment(number)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "gone")
    with pytest.raises(
        InputError, match=f"gone, which is deleted.*mlflow experiments restore --experiment-id {number}"
    ):
        tracking.check_store()
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "4711")
    with pytest.raises(InputError, match="MLFLOW_EXPERIMENT_ID: found '4711'"):
        tracking.check_store()


def test_a_name_and_a_number_of_two_experiments_are_told_of(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow refuses them where it opens the run."""
    named, other = (MlflowClient().create_experiment(name) for name in ("named", "other"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "named")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", other)
    with pytest.raises(InputError, match=f"MLFLOW_EXPERIMENT_ID: found '{other}', allowed: {named}, the one of"):
        tracking.check_store()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", named)
    tracking.check_store()


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("http://ann:secret@127.0.0.1:9/team", "See the runs: http://127.0.0.1:9/team/"),
        ("postgresql://ann:secret@db:5432/runs", 'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI" '),
        ("databricks", "of your Databricks workspace"),
    ],
)
def test_no_password_is_printed(store: Path, monkeypatch: pytest.MonkeyPatch, uri: str, line: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    said = program(HOW).stdout
    assert line in said and "secret" not in said


def test_runs_within_a_run_stay_in_its_experiment(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")
    mine = mlflow.create_experiment("mine")
    with mlflow.start_run(experiment_id=mine), tracking.run("evaluation", name="inner") as inner:
        pass
    assert mlflow.get_run(inner.run_id).info.experiment_id == mine


def test_a_kind_that_somebody_has_chosen_stays(store: Path) -> None:
    mine = mlflow.set_experiment("mine")
    MlflowClient().set_experiment_tag(mine.experiment_id, "mlflow.experimentKind", "genai_development")
    with tracking.run("audit", name="one"):
        pass
    assert MlflowClient().get_experiment(mine.experiment_id).tags["mlflow.experimentKind"] == "genai_development"


@pytest.mark.parametrize(
    ("started", "typed"),
    [
        (["own.py"], "python own.py"),
        (
            ["/x/entrypoints/check_judge.py", "--judge", "lexical", "--data", "", "--set", ""],
            "valuedrift check-judge --judge lexical",
        ),
        (["/x/bin/valuedrift", "main", "--set", "samples=2 seed=7"], "valuedrift main --set 'samples=2 seed=7'"),
    ],
)
def test_a_command_is_shown_as_it_is_typed(monkeypatch: pytest.MonkeyPatch, started: list[str], typed: str) -> None:
    """MLproject hands on every parameter, those too that nobody has given."""
    monkeypatch.setattr(sys, "argv", started)
    assert command() == typed


@pytest.mark.parametrize("given", [[], ["--resume", "one"], ["--resume=one"], ["--resume", ""]])
def test_the_command_that_goes_on_names_one_run(monkeypatch: pytest.MonkeyPatch, given: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/entrypoints/main.py", "--recipe", "embedded", *given, "--set", "seed=7"])
    assert command("two") == "valuedrift main --recipe embedded --set seed=7 --resume two"


MOUNTS = shutil.which("unshare") and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not MOUNTS, reason="only root may mount a disk that takes no writes")
def test_a_folder_that_takes_no_writes_is_told_of_at_once(tmp_path: Path) -> None:
    """MLflow would try it for two minutes."""
    mounted = f"mount -t tmpfs tmpfs {tmp_path} && mount -o remount,ro {tmp_path} && cd {tmp_path}"
    asked = f"{sys.executable} -c 'from valuedrift_mlflow import tracking; tracking.check_store()'"
    mine = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{mounted} && {asked}"],
        env=mine | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"allowed: a database file that can be written; {tmp_path} takes no writes" in done.stderr
