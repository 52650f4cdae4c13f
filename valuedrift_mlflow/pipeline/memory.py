"""Memory between stages: each begins with what the one before it held, and what a job keeps is gone through once."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def settled() -> Iterator[None]:
    """A job: what lives between its stages is left out of the collections of garbage, and given back at the end.

    That is most of the libraries, a million objects, through which every collection goes: a second, several times a
    stage. May stand within itself.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def free_memory() -> None:
    """Give a model's memory back before the next one is loaded."""
    import torch

    # Trainer, model and callbacks refer to each other in circles, which no reference count frees.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def end_stage() -> None:
    """Free what a stage has left behind; what lives on does so until the job ends, see `settled`."""
    free_memory()
    gc.freeze()
