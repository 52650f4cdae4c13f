"""The model that a stage starts from as a folder, for trainers that load a second model from one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valuedrift_mlflow.stages.stage import Job


@contextmanager
def start_folder(job: Job) -> Iterator[Path]:
    """A folder with the start's weights; as long as it is there, the model's config names it as its origin.

    Each process has one of its own.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    origin = job.model.config.name_or_path
    with tempfile.TemporaryDirectory(prefix="start-", dir=job.folder) as folder:
        job.model.save_pretrained(folder)
        # TRL asks the config for where to load the second model from.
        job.model.config.name_or_path = folder
        try:
            yield Path(folder)
        finally:
            job.model.config.name_or_path = origin
