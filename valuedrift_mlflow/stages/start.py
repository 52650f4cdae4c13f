"""The model that a stage starts from as a folder, for trainers that load a second model from one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valuedrift_mlflow.stages.stage import Job


@contextmanager
def start_folder(job: Job) -> Iterator[Path]:
    """A folder with the start's weights; as long as it is there, the model's config names it as its origin.

    Each process has one of its own.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    origin = job.model.config.name_or_path
    with tempfile.TemporaryDirectory(prefix="start-", dir=job.folder) as folder:
        # In a training of several processes transformers saves in the first one alone.
        model: Any = job.model
        model.should_save_on_this_rank = lambda is_main_process: is_main_process
        try:
            model.save_pretrained(folder)
        finally:
            del model.should_save_on_this_rank
        # TRL asks the config for where to load the second model from.
        job.model.config.name_or_path = folder
        try:
            yield Path(folder)
        finally:
            job.model.config.name_or_path = origin
