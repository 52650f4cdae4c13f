"""Generated bad input where nobody types it: what is read again, what servers and stores say, whole command lines.

As in ``test_bad_input.py``: ``VALUEDRIFT_FUZZ=700`` tries many more cases.
"""

import json
import shlex
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
import yaml
from bad_input import CASES, FEW, FILES, JUNK, NAMED, STEERS, TEXTS, VALUES, good_or_told
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow import MlflowClient

from valuedrift_mlflow import models, suite, tracking
from valuedrift_mlflow.cli.commands import COMMANDS
from valuedrift_mlflow.cli.main import main
from valuedrift_mlflow.evaluation.kept import read_measurements
from valuedrift_mlflow.evaluation.labels import load_labels
from valuedrift_mlflow.evaluation.measurement import JudgedResponse, Measurement
from valuedrift_mlflow.evaluation.metrics import responses_table
from valuedrift_mlflow.evaluation.reference import load_reference
from valuedrift_mlflow.evaluation.targets import found
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.inputs.reading import output_path
from valuedrift_mlflow.judges.cache import CachedJudge
from valuedrift_mlflow.judges.chat import ChatJudge, Reading
from valuedrift_mlflow.models.encoder import check_embedder
from valuedrift_mlflow.models.fingerprint import fingerprint
from valuedrift_mlflow.models.replies import Bill, Completion, Passing, TokenLogprobs, read_completion, retry_after
from valuedrift_mlflow.models.response_store import ResponseStore
from valuedrift_mlflow.models.server import Server
from valuedrift_mlflow.pipeline.designs import load_design
from valuedrift_mlflow.stages.resume import newest_checkpoint
from valuedrift_mlflow.stages.rewards import check_reward
from valuedrift_mlflow.stances import Answer, Verdict, check_kept
from valuedrift_mlflow.suite.anchors import load_anchors
from valuedrift_mlflow.tracking.lease import Owner
from valuedrift_mlflow.value_gap.synthesis_journal import Journal

SUITE = suite.load("vaes?per_topic=1&topics=religion")
MADE = {"journal": 1, "model": "m"}
FILE_DOORS: dict[str, Callable[[Path], object]] = {
    "labels": lambda path: load_labels(str(path)),
    "reference": lambda path: load_reference(str(path), SUITE),
    "responses of a run": lambda path: read_measurements(path, SUITE, "neutral"),
    "journal": lambda path: Journal(path, MADE),
}
TEXT_DOORS: dict[str, Callable[[str], object]] = {
    "labels": load_labels,
    "reference": lambda text: load_reference(text, SUITE),
    "anchors": load_anchors,
    "design": load_design,
    "reward": check_reward,
    "encoder": check_embedder,
    "output": output_path,
    "target": found,
}
# What this package writes itself, changed in one place: the kind of damage that a whole look does not see.
WRITTEN = [
    Measurement(
        0,
        SUITE,
        "lexical@1",
        "neutral",
        tuple(JudgedResponse(item, 0, "Yes.", Verdict.of((0.7, 0.2, 0.1))) for item in SUITE.items[:2]),
        0.0,
    )
]
KEPT = responses_table(WRITTEN)
ENTRY = {"topic": "religion", "prompt": "P?", "use": "chosen", "stance": "support", "style": "", "try": "0"}
JUDGED = ENTRY | {"response": "Yes.", "verdict": "support", "probabilities": [0.7, 0.2, 0.1], "end": True}


@pytest.mark.parametrize("door", FILE_DOORS)
@CASES
@given(file=FILES)
def test_any_file(store: Path, door: str, file: tuple[str, bytes]) -> None:
    ending, content = file
    path = store / f"given{ending}"
    path.write_bytes(content)
    good_or_told(lambda: FILE_DOORS[door](path))


@pytest.mark.parametrize("door", TEXT_DOORS)
@CASES
@given(text=TEXTS)
def test_any_text(store: Path, door: str, text: str) -> None:
    good_or_told(lambda: TEXT_DOORS[door](text))


@CASES
@given(column=st.sampled_from(list(KEPT.columns)), value=NAMED | VALUES)
def test_a_table_of_a_run_with_any_cell(tmp_path: Path, column: str, value: object) -> None:
    data = KEPT.to_numpy().tolist()
    data[0][list(KEPT.columns).index(column)] = value
    (tmp_path / "responses.json").write_text(json.dumps({"columns": list(KEPT.columns), "data": data}))
    good_or_told(lambda: read_measurements(tmp_path / "responses.json", SUITE, "neutral"))


@CASES
@given(key=st.sampled_from(list(JUDGED)), value=NAMED | VALUES)
def test_a_journal_with_any_cell(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "train.responses.jsonl"
    path.write_text(f"{json.dumps(MADE)}\n{json.dumps(JUDGED | {key: value})}\n")
    good_or_told(lambda: Journal(path, MADE))


@CASES
@given(tree=st.dictionaries(st.sampled_from(["axes", "seeds", "stages", "chains", "choices", "omit"]) | TEXTS, VALUES))
def test_any_design(tmp_path: Path, tree: dict[str, object]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(yaml.safe_dump(tree, allow_unicode=True).encode(errors="surrogatepass"))
    good_or_told(lambda: load_design(str(path)))


CONFIG_KEYS = ["model_type", "architectures", "auto_map", "base_model_name_or_path", "peft_type", "megatron_config"]


@CASES
@given(tree=st.dictionaries(st.sampled_from(CONFIG_KEYS) | TEXTS, VALUES, max_size=4), junk=JUNK)
def test_any_model_folder(tmp_path: Path, tree: dict[str, object], junk: bytes) -> None:
    for name in ("config.json", "adapter_config.json"):
        (tmp_path / name).write_bytes(json.dumps(tree).encode() + junk)
        good_or_told(lambda: models.check_trainable(str(tmp_path), "base.model"))
        good_or_told(lambda: fingerprint(str(tmp_path)))


FLAVOR = st.sampled_from(["python_function", "transformers", "loader_module", "data", "model_binary", "code", "env"])


@FEW
@given(tree=st.dictionaries(FLAVOR, NAMED | VALUES | st.dictionaries(FLAVOR, VALUES)), junk=JUNK)
def test_any_mlmodel_file(store: Path, tree: dict[str, object], junk: bytes) -> None:
    run = MlflowClient().create_run(mlflow.get_experiment_by_name("tests").experiment_id)
    file = Path(run.info.artifact_uri.removeprefix("file://")) / "model" / "MLmodel"
    file.parent.mkdir(parents=True)
    told = {"flavors": tree, "model_uuid": "a" * 32, "artifact_path": "model", "run_id": run.info.run_id}
    file.write_bytes(yaml.safe_dump(told).encode(errors="surrogatepass") + junk)
    good_or_told(lambda: models.check_model(f"runs:/{run.info.run_id}/model"))


# What servers say -----------------------------------------------------------------------------------------------------

REPLY = st.fixed_dictionaries(
    {"choices": st.lists(st.fixed_dictionaries({"message": st.fixed_dictionaries({"content": VALUES})}), max_size=2)}
)


@CASES
@given(body=REPLY | VALUES, junk=JUNK, header=TEXTS)
def test_any_body(body: object, junk: bytes, header: str) -> None:
    with suppress(Passing):
        read_completion(json.dumps(body).encode() + junk, Bill())
    assert 0 <= retry_after({"retry-after": header}) <= 120
    assert 0 <= retry_after({"retry-after-ms": header}) <= 120


class Saying:
    """In the place of a client: gives one text, whatever it is asked, with log-probabilities of its tokens."""

    server = Server("m", "http://127.0.0.1:1/v1")

    def __init__(self, text: str, logprob: float) -> None:
        place = TokenLogprobs(token=text, logprob=logprob, top_logprobs=[{"token": "support", "logprob": logprob}])
        self.told = Completion(text, (place,), 1, 10, 2, "stop")

    def complete(self, *_: object, **__: object) -> Completion:
        return self.told


@CASES
@given(
    text=TEXTS | st.sampled_from(["support", '{"label": "support"}', '{"label": ["support"]}', "<think>oppose"]),
    logprob=st.floats(),
)
def test_any_reply_of_a_judge(text: str, logprob: float) -> None:
    for way in ("logprobs", "votes", "structured"):
        judge = ChatJudge(Saying.server, Reading(answer=way))  # type: ignore[arg-type]
        judge._client = Saying(text, logprob)  # type: ignore[assignment]
        [verdict] = judge.judge([Answer("P.", "P?", text or "Yes.")])
        check_kept(verdict.label, verdict.probabilities)
        assert not STEERS.search(verdict.reason) and len(verdict.reason) < 2_000, ascii(verdict.reason)


# What is read again ---------------------------------------------------------------------------------------------------


class Supporting:
    """Supports everything."""

    name, version = "supporting", "1"

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        return [Verdict.of((0.7, 0.2, 0.1)) for _ in answers]

    def verdicts(self, answers: Sequence[Answer]) -> Any:
        return iter(enumerate(self.judge(answers)))


CELLS = st.none() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=20) | st.binary(max_size=20)


@CASES
@given(cell=CELLS, junk=JUNK, place=st.integers(0, 8000))
def test_kept_verdicts_of_any_content(tmp_path: Path, cell: object, junk: bytes, place: int) -> None:
    file, asked = Path(tempfile.mkdtemp(dir=tmp_path)) / "v.sqlite", [Answer("P.", "P?", "Yes.")]
    for damaged in (False, True):
        CachedJudge(Supporting(), file).judge(asked)
        if damaged:
            file.write_bytes(file.read_bytes()[:place] + junk + file.read_bytes()[place + len(junk) :])
        else:
            with suppress(sqlite3.IntegrityError), closing(sqlite3.connect(file)) as database, database:
                database.execute("UPDATE verdicts SET verdict = ?", (cell,))
        [verdict] = CachedJudge(Supporting(), file).judge(asked)
        assert verdict.probabilities == (0.7, 0.2, 0.1)
    CachedJudge(Supporting(), file).judge(asked)
    [verdict] = CachedJudge(Supporting(), file).judge(asked)
    assert verdict.cached or junk


@CASES
@given(column=st.sampled_from(["text", "mark", "used"]), cell=CELLS, junk=JUNK, place=st.integers(0, 8000))
def test_kept_responses_of_any_content(tmp_path: Path, column: str, cell: object, junk: bytes, place: int) -> None:
    file = Path(tempfile.mkdtemp(dir=tmp_path)) / "r.sqlite"
    ResponseStore(file).keep({b"k": "Yes."})
    with suppress(sqlite3.IntegrityError), closing(sqlite3.connect(file)) as database, database:
        database.execute(f"UPDATE responses SET {column} = ?", (cell,))
    assert ResponseStore(file).known([b"k"]) in ({}, {b"k": "Yes."})
    file.write_bytes(file.read_bytes()[:place] + junk + file.read_bytes()[place + len(junk) :])
    assert ResponseStore(file).known([b"k"]) in ({}, {b"k": "Yes."})
    ResponseStore(file).keep({b"k": "Yes."})
    assert ResponseStore(file).known([b"k"]) == {b"k": "Yes."}


@CASES
@given(tree=VALUES | st.dictionaries(st.just("files"), VALUES), junk=JUNK, name=st.sampled_from("0123x-") | TEXTS)
@example(tree={"files": {300 * "x": ""}}, junk=b"", name="3")  # no name of a file
def test_states_of_any_content(tmp_path: Path, tree: object, junk: bytes, name: str) -> None:
    with suppress(OSError, ValueError):  # no name of a folder
        folder = tmp_path / f"checkpoint-{name.replace('/', '')}"
        folder.mkdir(exist_ok=True)
        (folder / "complete").write_bytes(json.dumps(tree).encode() + junk)
    found = newest_checkpoint(tmp_path)
    assert found is None or not (tree or junk)


@FEW
@given(tree=VALUES | st.fixed_dictionaries({"token": VALUES, "process": VALUES, "every": VALUES, "beat": VALUES}))
def test_an_owner_of_any_content(store: Path, tree: object) -> None:
    run = MlflowClient().create_run("0").info.run_id
    MlflowClient().set_tag(run, "valuedrift.owner", json.dumps(tree)[:4000])
    owner = Owner.of(run)
    assert owner is None or owner.said()
    with suppress(InputError):
        tracking.check_free(run)


# Command lines --------------------------------------------------------------------------------------------------------

FLAGS = {own.spoken: [*own.flags, "set", "recipe"] for own in COMMANDS}
COMMAND = st.sampled_from(sorted(FLAGS)).flatmap(
    lambda name: st.tuples(st.just(name), st.dictionaries(st.sampled_from(FLAGS[name]), TEXTS, max_size=3))
)


@pytest.mark.slow
@FEW
@given(line=COMMAND, subject=TEXTS)
def test_any_command_line(
    store: Path, line: tuple[str, dict[str, str]], subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, flags = line
    own = next(one for one in COMMANDS if one.spoken == name)
    words = [name, *(f"{subject}x" for _ in own.subject), *(f"--{flag}={text}" for flag, text in flags.items())]
    shown = SimpleNamespace(text="", write=lambda text: setattr(shown, "text", shown.text + text), flush=lambda: None)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", shown)
        with suppress(SystemExit):
            main([*words, "--dry-run"])
    told = [line for line in shown.text.split("\n") if line.startswith("valuedrift: ")]
    assert not any(STEERS.search(line) or len(line) > 2_000 for line in told), shlex.join(words)
    assert mlflow.search_runs(search_all_experiments=True).empty
