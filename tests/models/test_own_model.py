"""Models of users: a class with ``generate``, or anything that takes prompts and gives texts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from parts_of_users import working_folder

from valuedrift_mlflow import models
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models.generation import Sampling

CODE = """
class Bot:
    def generate(self, prompts, keys, sampling, progress):
        progress(len(prompts) * sampling.samples)
        return [[f"{prompt} {sample}" for sample in range(sampling.samples)] for prompt in prompts]

class Calls:
    def __call__(self, prompts): return [prompt.upper() for prompt in prompts]

def answer(prompts): return [prompt.lower() for prompt in prompts]

class Silent: ...
class Needy:
    def __init__(self, key): ...
    def generate(self, prompts, keys, sampling, progress): ...
class Broken(Bot):
    def __init__(self): raise OSError("no weights")
class Short(Bot):
    def generate(self, prompts, keys, sampling, progress): return [["one"]]
class Flat(Bot):
    def generate(self, prompts, keys, sampling, progress): return list(prompts)
class Nothing(Bot):
    def generate(self, prompts, keys, sampling, progress): return None
def few(prompts): return prompts[1:]
"""
PROMPTS, KEYS = ["Should we?", "No?"], ["a", "b"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with working_folder(tmp_path, monkeypatch) as folder:
        (folder / "mine_m.py").write_text(CODE)
        yield folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Bot", [["Should we? 0", "Should we? 1"], ["No? 0", "No? 1"]]),
        ("Calls", [["SHOULD WE?"] * 2, ["NO?"] * 2]),
        ("answer", [["should we?"] * 2, ["no?"] * 2]),
    ],
)
def test_what_answers(folder: Path, name: str, expected: list[list[str]]) -> None:
    seen: list[int] = []
    generator = models.load_generator(f"mine_m:{name}")
    assert generator.generate(PROMPTS, KEYS, Sampling(2, 0.7, 256), seen.append) == expected
    assert sum(seen) == 4


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("mine_m:Gone", "baseline: found 'mine_m:Gone', allowed: a Class that mine_m has"),
        ("absent_m:Bot", "baseline: .*ModuleNotFoundError"),
        ("mine_m:Silent", "a class with a method generate, or something that takes a list of prompts"),
        ("mine_m:Needy", "a class that can be made without arguments; missing a required argument: 'key'"),
        ("/mine_m", "openai:/MODEL, module:Class"),
    ],
)
def test_what_is_no_model_is_refused_before_anything_is_computed(folder: Path, uri: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        models.check_model(uri, "baseline")


def test_a_class_that_cannot_be_made_is_named_with_its_reason(folder: Path) -> None:
    models.check_model("mine_m:Broken")  # making it may load weights
    with pytest.raises(InputError, match=r"found 'mine_m:Broken'.*OSError: no weights"):
        models.load_generator("mine_m:Broken")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Short", "found 'responses to 1 prompts', allowed: 2 texts for each of the 2 prompts"),
        ("Flat", "'Should we.'.*, allowed: 2 texts for each"),
        ("Nothing", "found 'NoneType', allowed: a list of lists"),
        ("few", "returned 1 responses to 2 prompts"),
    ],
)
def test_what_it_returns_is_looked_at(folder: Path, name: str, words: str) -> None:
    with pytest.raises(InputError, match=f"what model mine_m:{name} returns: .*{words}"):
        models.load_generator(f"mine_m:{name}").generate(PROMPTS, KEYS, Sampling(2, 0.7, 256), lambda count: None)


def test_it_cannot_be_trained(folder: Path) -> None:
    with pytest.raises(InputError, match=r"base.model: found 'mine_m:Bot'.*it can be evaluated only"):
        models.check_trainable("mine_m:Bot", "base.model")
