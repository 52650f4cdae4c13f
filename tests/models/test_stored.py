"""What an unchanged model has said is read, and never something that it has not said."""

import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import valuedrift_mlflow
from valuedrift_mlflow import models
from valuedrift_mlflow.models import Loaded
from valuedrift_mlflow.models.generation import FunctionGenerator, Sampling
from valuedrift_mlflow.models.response_store import ResponseStore
from valuedrift_mlflow.models.speech import Speech
from valuedrift_mlflow.models.stored import StoredGenerator, stored

PROMPTS, KEYS = ["Should we?", "Is it right to ban handguns?", "Why?"], ["a", "b", "c"]
ASKED = Sampling(2, 1.0, 6, seed=3, salt="test")


@pytest.fixture(scope="module")
def loaded(random_folder: Path) -> Loaded:
    return models.load_model(str(random_folder))


@pytest.fixture
def kept(tmp_path: Path) -> ResponseStore:
    return ResponseStore(tmp_path / "cache" / "r.sqlite")


def ask(loaded: Loaded, kept: ResponseStore, sampling: Sampling = ASKED) -> tuple[list[list[str]], int]:
    """Responses, and how many of them were sampled."""
    generator = stored(loaded.generator(), kept)
    assert isinstance(generator, StoredGenerator)
    done: list[int] = []
    responses = generator.generate(PROMPTS, KEYS, sampling, done.append)
    assert sum(done) == len(PROMPTS) * sampling.samples  # the bar comes to its end
    return responses, sum(map(len, responses)) - generator.reused


def fresh(loaded: Loaded, sampling: Sampling = ASKED) -> list[list[str]]:
    return loaded.generator().generate(PROMPTS, KEYS, sampling, lambda _: None)


def test_the_same_is_sampled_once_and_reads_as_it_was_said(loaded: Loaded, kept: ResponseStore) -> None:
    assert ask(loaded, kept) == (fresh(loaded), 6)
    assert ask(loaded, kept) == (fresh(loaded), 0)


def test_more_samples_add_to_those_that_are_there(loaded: Loaded, kept: ResponseStore) -> None:
    ask(loaded, kept)
    five = replace(ASKED, samples=5)
    assert ask(loaded, kept, five) == (fresh(loaded, five), 9)


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 4},
        {"salt": "other"},
        {"temperature": 0.9},
        {"max_new_tokens": 5},
        {"speech": Speech(stop=("the",))},
    ],
    ids=str,
)
def test_what_draws_otherwise_is_asked_anew(loaded: Loaded, kept: ResponseStore, changed: dict[str, object]) -> None:
    ask(loaded, kept)
    other = replace(ASKED, **changed)  # type: ignore[arg-type]
    assert ask(loaded, kept, other) == (fresh(loaded, other), 6)


def test_how_many_are_generated_at_once_changes_no_response(loaded: Loaded, kept: ResponseStore) -> None:
    ask(loaded, kept)
    assert ask(loaded, kept, replace(ASKED, batch_size=1))[1] == 0


def test_without_drawing_no_seed_counts(loaded: Loaded, kept: ResponseStore) -> None:
    greedy = replace(ASKED, temperature=0.0)
    ask(loaded, kept, greedy)
    assert ask(loaded, kept, replace(greedy, seed=9, salt="other", samples=4)) == (
        fresh(loaded, replace(greedy, samples=4)),
        0,
    )


def test_one_changed_bit_of_the_weights_is_another_model(random_folder: Path, kept: ResponseStore) -> None:
    loaded = models.load_model(str(random_folder))
    ask(loaded, kept)
    weight = next(loaded.model.parameters())
    with torch.no_grad():
        weight.view(-1)[7] = torch.nextafter(weight.view(-1)[7], torch.tensor(float("inf")))
    assert ask(loaded, kept)[1] == 6


def test_another_chat_template_is_another_prompt(random_folder: Path, kept: ResponseStore) -> None:
    loaded = models.load_model(str(random_folder))
    ask(loaded, kept)
    loaded.tokenizer.chat_template = str(loaded.tokenizer.chat_template) + "Well, "
    assert ask(loaded, kept)[1] == 6


def hooked(loaded: Loaded) -> None:
    loaded.model.register_forward_hook(lambda module, arguments, output: output)


def adapted(loaded: Loaded) -> None:
    from peft import LoraConfig, get_peft_model

    loaded.model = get_peft_model(loaded.model, LoraConfig(r=2, target_modules="all-linear"))  # type: ignore[assignment]


class Own:
    """Stands for a class that comes with a model: nobody knows what its code does tomorrow."""


def of_own_code(loaded: Loaded) -> None:
    kind = type(loaded.model)
    loaded.model.__class__ = type(kind.__name__, (Own, kind), {"__module__": "transformers_modules.somebody"})


@pytest.mark.parametrize("change", [hooked, adapted, of_own_code])
def test_a_model_that_is_more_than_its_weights_is_not_kept(random_folder: Path, kept: ResponseStore, change) -> None:  # type: ignore[no-untyped-def]
    loaded = models.load_model(str(random_folder))
    change(loaded)
    assert ask(loaded, kept)[1] == ask(loaded, kept)[1] == 6
    assert not kept.file.exists()


def test_functions_and_servers_are_asked_every_time() -> None:
    generator = FunctionGenerator(lambda prompts: prompts)
    assert stored(generator) is generator


@pytest.mark.parametrize("harm", ["text", "middle", "short", "other"])
def test_damage_is_mended_not_read(loaded: Loaded, kept: ResponseStore, harm: str) -> None:
    ask(loaded, kept)
    if harm == "text":  # one response was changed
        database = sqlite3.connect(kept.file)
        database.execute(
            "UPDATE responses SET text = CAST('I support it.' AS BLOB) WHERE key = (SELECT key FROM responses LIMIT 1)"
        )
        database.commit()
        database.close()
    else:
        raw = kept.file.read_bytes()
        damaged = {
            "middle": raw[:4096] + b"\xff" * (len(raw) - 4096),
            "short": raw[: len(raw) // 2],
            "other": b"not a database at all, but long enough to be taken for one " * 99,
        }
        kept.file.write_bytes(damaged[harm])
    responses, sampled = ask(loaded, kept)
    assert responses == fresh(loaded) and sampled > 0
    assert ask(loaded, kept) == (responses, 0)


def test_what_cannot_be_kept_is_measured_all_the_same(loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert ask(loaded, ResponseStore(tmp_path / "file" / "r.sqlite")) == (fresh(loaded), 6)


def test_the_file_stays_below_its_limit_and_loses_what_was_used_longest_ago(tmp_path: Path) -> None:
    kept = ResponseStore(tmp_path / "r.sqlite", limit=300_000)
    keys = [number.to_bytes(32, "big") for number in range(4000)]
    for start in range(0, 4000, 100):
        kept.keep(dict.fromkeys(keys[start : start + 100], "x" * 400))
    assert kept.file.stat().st_size < 400_000
    known = kept.known(keys)
    assert 300 < len(known) < 700
    assert set(keys[-200:]) <= set(known) and keys[0] not in known


WRITER = """
import sys
from pathlib import Path
from valuedrift_mlflow.models.response_store import ResponseStore
store, own = ResponseStore(Path(sys.argv[1])), int(sys.argv[2])
for start in range(0, 600, 20):
    store.keep({(own * 1000 + number).to_bytes(32, "big"): f"{own} {number}" for number in range(start, start + 20)})
    store.known([number.to_bytes(32, "big") for number in range(3000)])
"""


def test_processes_write_at_once(kept: ResponseStore) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(kept.file), str(own)]) for own in (0, 2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    known = kept.known([number.to_bytes(32, "big") for number in range(3000)])
    assert len(known) == 1200
    assert known[(2599).to_bytes(32, "big")] == "2 599"


def test_texts_of_any_letters_come_back(kept: ResponseStore) -> None:
    texts: Sequence[str] = ["", "\x00", "ein Satz\n", "\ud83d", "\U0001f600", "é" * 10_000]
    kept.keep({bytes([number]) * 32: text for number, text in enumerate(texts)})
    assert [kept.known([bytes([number]) * 32])[bytes([number]) * 32] for number in range(len(texts))] == texts


def test_an_evaluation_is_repeated_without_sampling_unless_that_is_wanted(
    store: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(store / "cache"))

    def evaluated(**settings: object) -> dict[str, float]:
        part = "vaes?topics=religion,abortion&per_topic=3"
        result = valuedrift_mlflow.evaluate(
            str(random_folder), suite=part, judge="lexical", samples=2, max_new_tokens=6, **settings
        )
        return dict(result.metrics)

    first, again, anew = evaluated(), evaluated(), evaluated(reuse_responses=False)
    hits = "cost/response_cache_hits"
    assert (first.get(hits), again.get(hits), anew.get(hits)) == (None, 12, None)
    same = {key for key in first if not key.startswith("cost/")}
    assert {key: first[key] for key in same} == {key: again[key] for key in same} == {key: anew[key] for key in same}
