"""What the hub says of a dataset, asked once and for some seconds at most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError, one_line, problem

SECONDS = 10  # that the hub has to answer whether it has a dataset


def has(data: Data) -> bool:
    """Whether the hub has a dataset; False where the hub cannot be reached.

    It is asked once: the library asks again and again for half a minute.

    Raises:
        InputError: the hub says that it has no such dataset.
    """
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        huggingface_hub.HfApi().dataset_info(data.uri, revision=data.revision, timeout=SECONDS)
    except GatedRepoError:
        mend = "ask for access on its page, then log in (hf auth login)"
        raise InputError(problem("data", data.uri, "a dataset that you may read", mend)) from None
    except RevisionNotFoundError:
        raise InputError(problem(f"data {data.uri} revision", data.revision, "a revision that it has")) from None
    except RepositoryNotFoundError:
        allowed = "a file or folder here, or a dataset of the hub"
        raise InputError(problem("data", data.uri, allowed, "there is neither, or it is private")) from None
    # Anything else is the network; the cache may still have the dataset.
    except Exception:
        return False
    return True


@contextmanager
def cache_alone(uri: str) -> Iterator[None]:
    """Have the library look into its cache alone.

    Raises:
        InputError: it has nothing there.
    """
    import datasets
    from huggingface_hub import constants

    # Both libraries have read the environment when they were imported, each into a name of its own.
    places: tuple[Any, ...] = (datasets.config, constants)
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    except Exception as error:
        allowed = "a file or folder here, or a dataset of the hub"
        mend = f"there is none here, the hub cannot be reached, and the cache does not have it ({one_line(error)})"
        raise InputError(problem("data", uri, allowed, mend)) from error
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value
