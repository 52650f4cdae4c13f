"""A team's servers: PostgreSQL with artifacts by way of the server, and one that asks for a name and a password."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import yaml
from commands_of_users import valuedrift

PASSWORD, OTHER = "planted-password-of-ann", "planted-password-of-bob"
SMALL = "suite=vaes?topics=religion,abortion&per_topic=2 samples=1 max_new_tokens=8"
RECIPE = {
    "suite": "vaes?topics=religion,abortion&per_topic=2",
    "samples": 1,
    "max_new_tokens": 8,
    "register": "assistant",
    "stages": [
        {"name": "sft", "algorithm": "sft", "data": "embedded:sft?size=20", "lora": {"rank": 2}}
        | {"max_steps": 1, "checkpoint_every": 1, "batch_size": 4, "max_length": 128, "learning_rate": 1e-3}
    ],
}
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL of the test's own, in a folder that goes with it."""
    if not PROGRAMS:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("needs psycopg: pip install -e '.[test]'")
    as_user: list[str] = []
    # Not where `tempfile` has moved to: a job before this may have made that a folder which this user alone can enter.
    with tempfile.TemporaryDirectory(prefix="valuedrift-test-", dir="/tmp") as place:
        if os.getuid() == 0:  # it does not run as root; its package has made a user for it
            owner = pwd.getpwnam("postgres")
            os.chown(place, owner.pw_uid, owner.pw_gid)
            as_user = ["runuser", "-u", "postgres", "--"]
        programs, port, data = PROGRAMS[-1].parent, free_port(), f"{place}/data"
        made = [str(programs / "initdb"), "-D", data, "-U", "mlflow", "--auth=trust", "--no-sync"]
        subprocess.run([*as_user, *made], check=True, capture_output=True, cwd=place)
        where = ["-D", data, "-p", str(port), "-k", place, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        running = subprocess.Popen([*as_user, str(programs / "postgres"), *where], cwd=place, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: socket.create_connection(("127.0.0.1", port), timeout=1).close())
            yield f"postgresql://mlflow:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            running.terminate()
            running.wait()


def wait_for(try_it: Callable[[], object]) -> None:
    ends = time.monotonic() + 180
    while True:
        try:
            try_it()
            return
        except (OSError, requests.RequestException):
            if time.monotonic() > ends:
                raise
            time.sleep(0.5)


@contextlib.contextmanager
def served(store: Path, database: str, *arguments: str, **environment: str) -> Iterator[str]:
    """The address of an ``mlflow server`` that hands artifacts on; what it says is in ``server.log``."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--port", str(port)]
    command += ["--artifacts-destination", str(store / "artifacts"), "--workers", "1", *arguments]
    with (store / "server.log").open("w") as log:
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        running = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | quiet | environment)
        try:
            wait_for(lambda: requests.get(f"http://127.0.0.1:{port}/health", timeout=5).raise_for_status())
            yield f"127.0.0.1:{port}"
        finally:
            running.terminate()
            running.wait()


def everything(folder: Path) -> str:
    """Train, register, evaluate, compare and gate, as a team does; gives all that was printed."""
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    candidate, first = "models:/assistant@candidate", "models:/assistant/1"
    jobs = (
        ("main", "--recipe", "tiny.yaml"),
        ("evaluate", "--model", candidate, "--set", SMALL),
        ("compare", "--targets", f"{candidate},{first}", "--set", SMALL),
        ("gate", candidate, "--baseline", first, "--max-drift", "0.5", "--set", SMALL),
    )
    printed = ""
    for job in jobs:
        done = valuedrift(*job)
        # Few answers: the gate cannot tell.
        assert done.returncode == (3 if job[0] == "gate" else 0), (job, done.stdout[-2000:], done.stderr[-3000:])
        printed += done.stdout + done.stderr
    assert "assistant/1, alias candidate" in printed
    return printed


def said_nowhere(secret: str, *places: Path) -> None:
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file()]
    assert files
    assert not [file for file in files if secret.encode() in file.read_bytes()]


def test_a_team_works_on_postgresql_with_artifacts_by_way_of_the_server(
    store: Path, base: str, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(store, postgres) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{address}")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team")
        monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)  # of the store that the fixture has opened
        everything(store)
        assert list((store / "artifacts").rglob("model.safetensors"))
        assert not (store / "mlruns").exists()
        # The database itself as the store: its password is in the address that MLflow is given.
        monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "direct")  # artifacts of the other are the server's
        done = valuedrift("evaluate", "--model", "embedded:random", "--set", SMALL)
        assert done.returncode == 0, done.stderr[-2000:]
        assert PASSWORD not in done.stdout + done.stderr
        said_nowhere(PASSWORD, store / "artifacts", store / "mlruns")


def test_a_password_reaches_nobody_and_who_may_not_write_is_told_in_a_line(
    store: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("flask_wtf") is None:
        pytest.skip("needs Flask-WTF: pip install -e '.[test]'")
    (store / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{store}/auth.db\n"
        f"admin_username = ann\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    login = {"MLFLOW_AUTH_CONFIG_PATH": str(store / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "for the test"}
    shutil.copy(store / "mlflow.db", store / "server.db")
    with served(store, f"sqlite:///{store}/server.db", "--app-name", "basic-auth", **login) as address:
        (store / "auth.ini").unlink()
        made = requests.post(
            f"http://{address}/api/2.0/mlflow/users/create",
            json={"username": "bob", "password": OTHER},
            auth=("ann", PASSWORD),
            timeout=30,
        )
        made.raise_for_status()
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team")
        monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)  # of the store that the fixture has opened
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:{PASSWORD}@{address}")
        # One job: the server hashes the password at every request, hundreds of times in a pipeline.
        (store / "tiny.yaml").write_text(yaml.safe_dump(RECIPE | {"audit": False, "reference_kl": False}))
        done = valuedrift("main", "--recipe", "tiny.yaml")
        assert done.returncode == 0, done.stderr[-2000:]
        printed = done.stdout + done.stderr
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{address}")
        evaluate = ("evaluate", "--model", "embedded:random", "--set", SMALL)
        for name, password, told in (
            ("bob", OTHER, "a tracking store in which this user may write"),
            ("bob", PASSWORD, "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        ):
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            done = valuedrift(*evaluate)
            printed += done.stdout + done.stderr
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
            assert told in done.stderr
        for secret in (PASSWORD, OTHER):
            assert secret not in printed
            said_nowhere(secret, *(store / name for name in ("artifacts", "server.db", "server.log", "auth.db")))
