"""The tracking store as a whole: that it answers, how it is opened first, and how people come to look at it."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from valuedrift_mlflow.inputs import scratch
from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.tracking.view import view_of

if TYPE_CHECKING:
    from mlflow.entities import Experiment

_KIND = "mlflow.experimentKind"
_TRAINING = "custom_model_development"  # as MLflow's UI names model training
_NAMED = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
_RETRIES = 2  # of a server that does not answer: MLflow's own seven take minutes


def address() -> str:
    """The URI of the tracking store."""
    import mlflow

    return str(mlflow.get_tracking_uri())


def shown(uri: str) -> str:
    """A URI as it may be printed: without its password.

    >>> shown("postgresql://ann:secret@db:5432/runs")
    'postgresql://ann@db:5432/runs'
    >>> shown("https://ann:secret@mlflow.example.org/team")
    'https://mlflow.example.org/team'
    >>> shown("sqlite:///mlflow.db")
    'sqlite:///mlflow.db'
    """
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    user, _, host = parts.netloc.rpartition("@")
    # A browser asks for the user itself; a database's name and user belong together.
    kept = host if parts.scheme in ("http", "https") else f"{user.partition(':')[0]}@{host}"
    return urlunsplit(parts._replace(netloc=kept))


def keep_password_apart() -> None:
    """Take user and password out of a server's address: MLflow prints the address whenever a run ends.

    They go on as MLflow's own settings, in this process and those that it starts.
    """
    import mlflow

    uri = address()
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return
    if not (parts.username and parts.password):  # MLflow's settings know no user without a password
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        return
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
    mlflow.set_tracking_uri(shown(uri))  # and the variable of the environment


def refusal(error: Exception) -> InputError | None:
    """What to say of an error where the store does not let this user do something; None of any other."""
    from mlflow.exceptions import MlflowException

    said = one_line(error)
    if not isinstance(error, MlflowException) or not re.search(r"error code 40[13] |PERMISSION_DENIED", said):
        return None
    allowed = "a tracking store in which this user may write"
    mend = f"ask for the permission, or {_NAMED} ({said})"
    return InputError(problem("MLFLOW_TRACKING_URI", shown(address()), allowed, mend))


def check_store() -> None:
    """Find that the tracking store answers, lets this user in, and has the experiment that runs would go to.

    Raises:
        InputError: it does not.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    keep_password_apart()
    uri = address()
    _check_file(uri)
    name, number = os.environ.get("MLFLOW_EXPERIMENT_NAME"), os.environ.get("MLFLOW_EXPERIMENT_ID")
    field, found = ("MLFLOW_EXPERIMENT_NAME", name) if name else ("MLFLOW_EXPERIMENT_ID", number)
    try:
        with _soon():
            experiment = _experiment(uri, name, number)
    except (MlflowException, OSError, SQLAlchemyError) as error:
        said = one_line(str(getattr(error, "message", error)).replace(uri, shown(uri)))
        if number and getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            raise InputError(problem(field, found, "an experiment of the tracking store", said)) from None
        mend = f"{_mend(said)} ({said})"
        raise InputError(problem("MLFLOW_TRACKING_URI", shown(uri), "a tracking store that answers", mend)) from None
    if experiment is not None and experiment.lifecycle_stage != "active":
        mend = f"mlflow experiments restore --experiment-id {experiment.experiment_id}, or name another one"
        raise InputError(
            problem(field, f"{experiment.name}, which is deleted", "an experiment that is not deleted", mend)
        )
    # A run that is named has its experiment already; one that is opened takes both variables, and they must agree.
    both = name and number and not os.environ.get("MLFLOW_RUN_ID")
    if both and experiment is not None and experiment.experiment_id != number:
        allowed = f"{experiment.experiment_id}, the one of MLFLOW_EXPERIMENT_NAME={name}"
        raise InputError(problem("MLFLOW_EXPERIMENT_ID", number, allowed, "unset one of the two"))


def _check_file(uri: str) -> None:
    """Find that a database file can be written: MLflow tries one that cannot for two minutes."""
    if not uri.startswith("sqlite:///"):
        return
    file = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    place = file if file.exists() else file.parent
    if place.exists() and not os.access(place, os.W_OK):
        mend = f"{place.resolve()} takes no writes: work in another folder, or name a store that can be written"
        raise InputError(problem("MLFLOW_TRACKING_URI", shown(uri), "a database file that can be written", mend))


def _experiment(uri: str, name: str | None, number: str | None) -> Experiment | None:
    """The experiment that runs would go to; None where there is none yet, or the store has another one by default."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    opened_once(uri)
    client = MlflowClient()
    client.search_experiments(max_results=1)  # of a store that is a server: does it let this user in?
    if name:
        return client.get_experiment_by_name(name)
    if number:
        return client.get_experiment(number)
    try:
        return client.get_experiment("0")
    except MlflowException:
        return None


def _mend(said: str) -> str:
    if "401" in said or "403" in said:
        return _NAMED
    return "start the server, or correct the address"


@contextmanager
def _soon() -> Iterator[None]:
    """Let MLflow give up on a server sooner than it would."""
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES as RETRIES

    given = RETRIES.get_raw()
    if given is None:
        RETRIES.set(_RETRIES)
    try:
        yield
    finally:
        if given is None:
            RETRIES.unset()


def opened_once(uri: str) -> None:
    """Open a store in a database file alone: two processes that create one at once disturb each other."""
    from mlflow import MlflowClient

    if not uri.startswith("sqlite:"):
        return
    import filelock

    # Beside no file of the user's: what is locked is the name.
    name = hashlib.sha256(f"{Path.cwd()} {uri}".encode()).hexdigest()[:16]
    with filelock.FileLock(scratch.shared() / f"valuedrift-{name}.lock"):
        MlflowClient().search_experiments(max_results=1)


def mark_as_training(experiment_id: str) -> None:
    """Have an experiment shown as model training, unless somebody has chosen another kind.

    MLflow up to 3.17 goes by the address of a page (``workflowType``) before this tag.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    if _KIND not in client.get_experiment(experiment_id).tags:
        try:
            client.set_experiment_tag(experiment_id, _KIND, _TRAINING)
        except MlflowException:  # whoever may write runs need not be allowed to change their experiment
            return


def how_to_open() -> str:
    """How to look at the runs that were just made: the command and the page, without a password."""
    import mlflow

    uri, run = address(), mlflow.last_active_run()
    page = view_of(run) if run else ""
    if uri.startswith("http"):
        return f"See the runs: {shown(uri).rstrip('/')}/{page}"
    if uri.startswith("databricks"):
        return f"See the runs: experiment {run.info.experiment_id if run else ''} of your Databricks workspace"
    return f"See the runs: mlflow ui{_flag(uri)}    then open http://127.0.0.1:5000/{page}"


def _flag(uri: str) -> str:
    # MLflow's own default needs no flag.
    if uri in ("sqlite:///mlflow.db", f"sqlite:///{os.getcwd()}/mlflow.db"):
        return ""
    if uri == shown(uri):
        return f" --backend-store-uri {shlex.quote(uri)}"
    # What is printed ends up in logs: a URI with a password is named only.
    named = os.environ.get("MLFLOW_TRACKING_URI") == uri
    given = '"$MLFLOW_TRACKING_URI"' if named else shown(uri)
    return f" --backend-store-uri {given}"


def command_of_ours() -> bool:
    """Whether this process was started by a command of this package."""
    script, package = Path(sys.argv[0]), Path(__file__).parents[1]
    return script.parent.name == "entrypoints" or script.stem == "valuedrift" or package in script.absolute().parents


def command(resume: str = "") -> str:
    """The command that this process was started with, as a user types it; or the one that continues ``resume``."""
    script, words = Path(sys.argv[0]), sys.argv[1:]
    # MLproject hands on every parameter: what is empty nobody has typed.
    given = [one for one, following in pairwise([*words, "-"]) if one and following]
    if resume:
        kept = [word for before, word in pairwise(["", *given]) if "--resume" not in (before, word.partition("=")[0])]
        given = [*kept, "--resume", resume]
    if script.parent.name == "entrypoints":
        given = ["valuedrift", script.stem.replace("_", "-"), *given]
    elif script.name == "__main__.py":
        given = ["python", "-m", script.parent.name, *given]
    else:
        given = [*(["valuedrift"] if script.name == "valuedrift" else ["python", script.name]), *given]
    return shlex.join(given)
