"""A folder as the place where a user works: commands are given there, and runs go to its store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """A folder with an MLflow database is the working folder, its database the tracking store.

    A test enters it with the fixture ``store``, or, where tests share what one computation has left, with
    ``shared_folder``: once around the computation, and in every test that looks at it.
    """
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for variable in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
            patch.delenv(variable, raising=False)
        uri = f"sqlite:///{folder}/mlflow.db"
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment("tests")
        try:
            yield
        finally:
            while mlflow.active_run():
                mlflow.end_run()
