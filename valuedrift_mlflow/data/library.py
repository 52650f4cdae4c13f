"""The ``datasets`` library, quiet and without reports to the hub."""

from __future__ import annotations

from types import ModuleType


def datasets_library() -> ModuleType:
    """The library, imported where it is needed first: that takes a second."""
    import datasets

    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # or every local file is reported to the hub, with a wait offline
    library: ModuleType = datasets
    return library
