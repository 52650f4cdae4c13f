import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import torch
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from valuedrift_mlflow import models
from valuedrift_mlflow.evaluation.metrics import analyse_measurements
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.pipeline import processes
from valuedrift_mlflow.pipeline.pipeline import run_single_stage
from valuedrift_mlflow.pipeline.plan import StageResult, prepare
from valuedrift_mlflow.recipe import read, recipe
from valuedrift_mlflow.report.display import Display

ROOT = Path(__file__).parents[2]
PAIRS = "embedded:pairs?gap=1&chosen=oppose&rejected=support&size=80"
STAGES: dict[str, dict[str, Any]] = {
    "sft": {"algorithm": "sft", "data": "embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=80"},
    "dpo": {"algorithm": "dpo", "data": PAIRS, "lora": {"rank": 8}},
    "simpo": {"algorithm": "simpo", "data": PAIRS},
}


def settings(base: str, stage: dict[str, Any], processes: int, batch: int) -> recipe.Recipe:
    common = {
        "max_steps": 4,
        "checkpoint_every": 2,
        "warmup_ratio": 0.0,
        "max_length": 256,
        "learning_rate": 5e-4,
        "batch_size": batch,
    }
    return read.validate(
        {
            "base": {"model": base},
            "suite": "vaes?topics=religion,abortion&per_topic=4",
            "samples": 2,
            "checkpoint_samples": 1,
            "max_new_tokens": 24,
            "generation_batch_size": 30,
            "stages": [{"name": stage["algorithm"], "launch": {"processes": processes}} | common | stage],
        }
    )


def trained(base: str, stage: dict[str, Any], processes: int, batch: int) -> StageResult:
    result = run_single_stage(prepare(settings(base, stage, processes, batch), "tiny"), Display())
    assert isinstance(result, StageResult)
    return result


def runs() -> list[Run]:
    return list(MlflowClient().search_runs([mlflow.get_experiment_by_name("tests").experiment_id]))


def steps(run_id: str, key: str) -> list[int]:
    return [metric.step for metric in MlflowClient().get_metric_history(run_id, key)]


@pytest.mark.parametrize("name", ["sft", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dpo", "simpo"))])
def test_two_processes_come_to_what_one_comes_to(store: Path, base: str, name: str) -> None:
    """Two processes with batches of 4 take the same rows a step as one with batches of 8, and the same means of them.

    So the weights differ by rounding alone. The prompts are shared between the two: before the first step the
    responses are those of one process to the letter.
    """
    two = trained(base, STAGES[name], processes=2, batch=4)
    [run] = runs()
    assert run.info.status == "FINISHED"
    assert run.data.params[f"{name}.launch.processes"] == "2"
    assert steps(two.run_id, "drift/overall") == steps(two.run_id, "reference_kl") == [0, 2, 4]
    assert steps(two.run_id, "train/loss") == [1, 2, 3, 4]
    assert not (store / ".valuedrift").exists()
    one = trained(base, STAGES[name], processes=1, batch=8)
    assert [r.response for r in two.measurements[0].responses] == [r.response for r in one.measurements[0].responses]
    assert two.measurements[0].values == pytest.approx(one.measurements[0].values, nan_ok=True)
    ours, theirs = models.load_model(two.model_uri).model, models.load_model(one.model_uri).model
    start = models.load_model(base).model
    moved = [(a - b).abs().max() for a, b in zip(ours.parameters(), start.parameters(), strict=True)]
    apart = [(a - b).abs().max() for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)]
    assert max(moved) > 5e-4
    assert max(apart) < 0.05 * max(moved)
    assert two.drift.overall_probability[-1] == pytest.approx(one.drift.overall_probability[-1], abs=0.15)


REWARDED = {"reward": "valuedrift_mlflow.embedded.rewards:opposes", "response_length": 24}


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["copies", "split"])
@pytest.mark.parametrize(
    "stage",
    [
        {"algorithm": "simpo"},
        {"algorithm": "orpo"},
        {"algorithm": "kto"},
        {"algorithm": "anchored_dpo", "anchors": "embedded:anchors?except=", "anchor_batch_size": 2},
        {"algorithm": "ppo", "lora": {"rank": 4}, **REWARDED},
        {"algorithm": "grpo", "generations": 2, **REWARDED},
        {"algorithm": "rloo", "generations": 2, **REWARDED},
    ],
    ids=lambda stage: str(stage["algorithm"]),
)
def test_every_algorithm_is_trained_by_two_processes(
    store: Path, base: str, stage: dict[str, Any], sharded: bool
) -> None:
    """That they train together and end with equal weights, each stage makes sure of itself."""
    split = {"launch": {"processes": 2, "sharded": True}, "lora": {"rank": 4}} if sharded else {}
    two = trained(base, stage | split | {"data": PAIRS}, processes=2, batch=4)
    [run] = runs()
    assert run.info.status == "FINISHED"
    assert steps(two.run_id, "drift/overall") == [0, 2, 4]
    assert steps(two.run_id, "train/loss") == [1, 2, 3, 4]
    ours, start = models.load_model(two.model_uri).model, models.load_model(base).model
    assert not all(mine.equal(other) for mine, other in zip(ours.parameters(), start.parameters(), strict=True))


@pytest.mark.slow
def test_a_failure_in_the_processes_is_the_stages_own(store: Path, base: str) -> None:
    with pytest.raises(FloatingPointError, match="the loss is"):
        trained(base, STAGES["sft"] | {"learning_rate": 1e30}, processes=2, batch=2)
    [run] = runs()
    assert run.info.status == "FAILED"
    assert "the loss is" in run.data.tags["mlflow.note.content"]


def test_a_recipe_that_asks_for_two_is_not_trained_by_one(random_folder: Path, tmp_path: Path) -> None:
    """As happens where a launcher starts one process in silence."""
    from valuedrift_mlflow.data import datasets
    from valuedrift_mlflow.stages.job import build_trainer
    from valuedrift_mlflow.stages.stage import Job

    stage = settings(str(random_folder), STAGES["sft"], processes=2, batch=2).stages[0]
    loaded = models.load_model(str(random_folder))
    rows = datasets.load_data(stage.data, "sft")
    trainer = build_trainer(Job(stage, loaded.model, loaded.tokenizer, rows, tmp_path, seed=0))
    with pytest.raises(RuntimeError, match=r"trained in 1 processes, but launch\.processes is 2"):
        processes.check_processes(stage, trainer)


def test_an_entry_point_inside_torchrun_is_refused(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        InputError, match=r"sft\.launch\.processes: found '1, inside one of 2 processes'.*without torch"
    ):
        prepare(settings(base, STAGES["sft"], processes=1, batch=2), "tiny")


def test_an_epoch_has_fewer_steps_the_more_processes_there_are() -> None:
    stage = settings("embedded:base", STAGES["sft"] | {"max_steps": None, "epochs": 2}, processes=3, batch=4).stages[0]
    assert stage.steps(rows=100) == 18  # ceil(100 / 12) = 9 steps an epoch


def test_the_checksum_sees_any_change_of_any_weight() -> None:
    def model() -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(3, 2))

    first, second = model(), model()
    assert processes.checksum(first) == processes.checksum(second)
    with torch.no_grad():
        second[1].bias[0] = torch.nextafter(second[1].bias[0], torch.tensor(9.0))
    assert processes.checksum(first) != processes.checksum(second)
    swapped = torch.nn.Sequential(first[1], first[0])
    assert processes.checksum(swapped) != processes.checksum(first)


# Run by each of two processes: how the weights of a stage's start are kept when it is split over them, then whether
# they notice that theirs differ. Both in one program, because two interpreters take long to start.
TWO = """
import sys
import torch, torch.distributed as dist
from torch.distributed.tensor import DTensor
from valuedrift_mlflow.pipeline import processes
from valuedrift_mlflow.recipe import read
stage = read.load_recipe(sys.argv[1]).stages[0]
model = processes.load_sharded(stage, sys.argv[2]).model
parts = [(isinstance(w, DTensor), w.to_local().numel(), w.numel()) for w in model.parameters()]
print(all(split for split, _, _ in parts), sum(own for _, own, _ in parts) * 2 == sum(whole for _, _, whole in parts))
model = torch.nn.Linear(2, 2)
with torch.no_grad():
    model.weight.fill_(1.0), model.bias.fill_(0.0)
processes.check_equal_weights(model)
with torch.no_grad():
    model.weight.fill_(1.0 + dist.get_rank())
try:
    processes.check_equal_weights(model)
except RuntimeError as error:
    print(error)
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def said_by_two(tmp_path_factory: pytest.TempPathFactory, random_folder: Path) -> list[str]:
    """The lines that two processes write."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "two.py").write_text(TWO)
    tree = settings(str(random_folder), STAGES["sft"], processes=2, batch=4).model_dump(mode="json", by_alias=True)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [str(folder / "two.py"), str(folder / "tiny.yaml"), str(random_folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_the_weights_of_a_split_stage_are_in_parts(said_by_two: list[str]) -> None:
    assert "".join(said_by_two).count("True True") == 2
    assert "False" not in "".join(said_by_two)


def test_processes_with_different_weights_are_noticed(said_by_two: list[str]) -> None:
    # Counted in the whole: two processes may write into one line.
    assert "".join(said_by_two).count("the processes have different weights") == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_a_split_stage_comes_to_what_one_process_comes_to(store: Path, base: str, name: str) -> None:
    """What it logs is whole: it loads in one process, and its weights are those of a stage that is not split."""
    stage = STAGES[name] | {"max_steps": 2, "checkpoint_every": 1}
    split = trained(base, stage | {"launch": {"processes": 2, "sharded": True}}, processes=2, batch=4)
    [run] = runs()
    assert run.info.status == "FINISHED"
    one = trained(base, stage, processes=1, batch=8)
    assert [r.response for r in split.measurements[0].responses] == [r.response for r in one.measurements[0].responses]
    start, ours, theirs = (models.load_model(uri).model for uri in (base, split.model_uri, one.model_uri))
    ids = torch.tensor([range(5, 60)])
    with torch.no_grad():
        before, here, there = (model(ids).logits for model in (start, ours, theirs))
    assert (here - before).abs().max() > 1e-2
    assert (here - there).abs().max() < 0.1 * (here - before).abs().max()
    inner = models.load_model(f"runs:/{split.run_id}/checkpoints/step-000001")
    assert inner.model(ids).logits.shape == here.shape


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"launch": {"processes": 1, "sharded": True}}, r"sft\.launch\.sharded.*more than one process"),
        (
            {"name": "dpo", "algorithm": "dpo", "data": PAIRS, "launch": {"processes": 2, "sharded": True}},
            r"dpo\.lora\.rank.*at least 1 with launch\.sharded",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(base: str, stage: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        prepare(settings(base, STAGES["sft"] | {"name": "sft"} | stage, processes=2, batch=4), "tiny")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "status"), [(signal.SIGKILL, -9, "RUNNING"), (signal.SIGTERM, 143, "KILLED")]
)
def test_stopped_processes_leave_nothing_running_and_are_taken_up(
    store: Path, base: str, number: int, code: int, status: str
) -> None:
    stage = STAGES["dpo"] | {"max_steps": 8}
    plan = prepare(settings(base, stage, processes=2, batch=4), "tiny")
    (store / "tiny.yaml").write_text(yaml.safe_dump(plan.recipe.model_dump(mode="json", by_alias=True)))
    command = [sys.executable, "-m", "entrypoints.dpo", "--recipe", str(store / "tiny.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_EXPERIMENT_NAME": "tests"}
    environment["VALUEDRIFT_GRACE"] = "3600"  # no test is timed
    with subprocess.Popen(command, cwd=store, env=environment) as running:
        while not list(store.glob(".valuedrift/*/checkpoint-*/complete")):
            assert running.poll() is None
            time.sleep(0.1)
        children = psutil.Process(running.pid).children(recursive=True)
        assert len(children) >= 3  # torchrun and two processes
        running.send_signal(number)
    assert running.returncode == code
    gone, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert len(gone) == len(children)
    [stopped] = runs()
    assert stopped.info.status == status
    resumed = run_single_stage(plan, Display(), stopped.info.run_id)
    assert isinstance(resumed, StageResult)
    assert steps(resumed.run_id, "train/loss") == list(range(1, 9))
    assert steps(resumed.run_id, "drift/overall") == [0, 2, 4, 6, 8]
    whole = trained(base, stage, processes=2, batch=4)
    ours, theirs = models.load_model(resumed.model_uri).model, models.load_model(whole.model_uri).model
    assert all(a.equal(b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.slow
def test_ppo_in_two_processes_moves_stances_as_in_one(store: Path, base: str) -> None:
    """Each process draws responses of its own, so the two trainings agree within sampling error."""
    rewarded = {"algorithm": "ppo", "data": PAIRS, "reward": "valuedrift_mlflow.embedded.rewards:opposes"}
    stage = rewarded | {"max_steps": 8, "checkpoint_every": 8, "response_length": 24}
    two, one = trained(base, stage, processes=2, batch=4), trained(base, stage, processes=1, batch=8)
    last = [two.measurements[-1], replace(one.measurements[-1], step=99)]
    assert analyse_measurements(last).topic_significant[-1].sum() == 0
    assert two.drift.overall[-1] > 0


@pytest.mark.parametrize(("rank", "first"), [("0", True), ("1", False)])
def test_one_process_writes_also_before_they_have_found_each_other(
    monkeypatch: pytest.MonkeyPatch, rank: str, first: bool
) -> None:
    """A stage logs what it starts from first of all: each process would log it, and one find the other's half done."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # as torchrun sets both
    monkeypatch.setenv("RANK", rank)
    assert processes.is_first() is first
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")  # a cluster may number what trains alone
    assert processes.is_first()
