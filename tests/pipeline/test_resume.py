import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from commands_of_users import mlflow_run, program
from mlflow import MlflowClient
from mlflow.entities import Run
from read_pages import described

from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.evaluation import callback
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.pipeline.pipeline import run_pipeline, run_single_stage
from valuedrift_mlflow.pipeline.plan import Plan, RewardResult, StageResult, prepare
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.stages import rewards

SFT = {"name": "sft", "algorithm": "sft", "data": "embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=20"}
DPO = {"name": "dpo", "algorithm": "dpo", "data": "embedded:pairs?gap=1&size=20"}
LORA = {"lora": {"rank": 4, "dropout": 0.1}}  # dropout: the random state must be restored too

# Runs an entry point and kills its own process at one place: `PLACE STEP NAME ARGUMENTS`.
KILLED = """
import os, runpy, signal, sys
from valuedrift_mlflow.evaluation import callback

place, step, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
kind, event = {"step": (callback.TrainingLog, "on_step_end"), "save": (callback.KeepCheckpoint, "on_save")}[place]
original = getattr(kind, event)

def killing(self, args, state, control, **kwargs):
    if state.global_step == step and self.__class__ is kind:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, args, state, control, **kwargs)

setattr(kind, event, killing)
sys.argv = [name, *sys.argv[4:]]
runpy.run_module(f"entrypoints.{name}", run_name="__main__")
"""


def settings(model: str, *stages: dict[str, Any], steps: int = 7) -> dict[str, Any]:
    """Seven steps of five an epoch, measured and kept at every second: a stop falls into the second epoch too."""
    common = {"max_steps": steps, "checkpoint_every": 2, "batch_size": 4, "max_length": 256, "learning_rate": 1e-3}
    return {
        "base": {"model": model},
        "suite": "vaes?topics=religion,abortion&per_topic=2",
        "samples": 2,
        "checkpoint_samples": 1,
        "max_new_tokens": 30,
        "generation_batch_size": 12,
        "stages": [common | stage for stage in stages],
    }


def killed(place: str, step: int, name: str, tree: dict[str, Any], file: Path, *arguments: str) -> None:
    file.write_text(yaml.safe_dump(tree))
    done = program(KILLED, place, str(step), name, "--recipe", str(file), *arguments)
    assert done.returncode == -9, done.stderr


def runs() -> list[Run]:
    return list(MlflowClient().search_runs([mlflow.get_experiment_by_name("tests").experiment_id]))


def histories(run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Every metric that does not measure time, as (step, value) in the order they were logged."""
    client = MlflowClient()
    return {
        key: [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]
        for key in client.get_run(run_id).data.metrics
        if not key.startswith("cost/") and not key.endswith(("runtime", "per_second", "step_time"))
    }


def table(run_id: str, name: str) -> list[list[Any]]:
    path = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{name}"))
    return list(json.loads(path.read_text())["data"])


def checkpoints(run_id: str) -> list[str]:
    found = mlflow.search_logged_models(filter_string=f"source_run_id = '{run_id}'", output_format="list")
    return sorted(model.name for model in found)


def assert_same(resumed: StageResult, whole: StageResult) -> None:
    """Weights, metrics, tables and checkpoints of a run that was cut off are those of one that was not."""
    ours, theirs = models.load_model(resumed.model_uri).model, models.load_model(whole.model_uri).model
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.equal(other)
    again, expected = histories(resumed.run_id), histories(whole.run_id)
    assert again.keys() == expected.keys()
    for key, values in expected.items():
        assert [step for step, _ in again[key]] == [step for step, _ in values], key
        assert [value for _, value in again[key]] == pytest.approx([value for _, value in values], abs=1e-9), key
    assert [step for step, _ in again["reference_kl"]] == [0, 2, 4, 6, 7]
    for name in ("responses.json", "value_drift_table.json"):
        assert table(resumed.run_id, name) == table(whole.run_id, name)
    assert checkpoints(resumed.run_id) == checkpoints(whole.run_id)
    assert MlflowClient().get_run(resumed.run_id).info.status == "FINISHED"
    assert not (Path.cwd() / ".valuedrift").exists()


@pytest.mark.parametrize(
    ("place", "step", "stage", "whole"),
    [
        ("save", 4, SFT, 1),
        pytest.param("step", 7, DPO | LORA | {"trainer": {"disable_dropout": False}}, 2, marks=pytest.mark.slow),
    ],
    ids=["sft, while its second checkpoint is written", "dpo with adapters, in its second epoch"],
)
def test_a_killed_stage_goes_on_as_if_nothing_had_happened(
    store: Path, base: str, place: str, step: int, stage: dict[str, Any], whole: int
) -> None:
    """``whole``: states that were complete, of which the newest two are kept."""
    tree = settings(base, stage)
    killed(place, step, str(stage["name"]), tree, store / "tiny.yaml")
    [stopped] = runs()
    assert stopped.info.status == "RUNNING"
    assert len(list((store / ".valuedrift" / stopped.info.run_id).glob("checkpoint-*/complete"))) == whole
    plan = prepare(read.validate(tree), str(store / "tiny.yaml"))
    resumed = run_single_stage(plan, Display(), stopped.info.run_id)
    assert len(runs()) == 1
    assert resumed.run_id == stopped.info.run_id
    assert_same(resumed, run_single_stage(plan, Display()))


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the training of a stage fail at one step, until it is told to stop doing so."""
    original = callback.TrainingLog.on_step_end

    def fail_at(stage: str, step: int) -> None:
        def on_step_end(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.name == stage and state.global_step == step:
                raise OSError("no space left")
            original(self, args, state, control, **kwargs)

        monkeypatch.setattr(callback.TrainingLog, "on_step_end", on_step_end)

    yield fail_at
    monkeypatch.undo()


@pytest.mark.parametrize(
    "stage", [pytest.param(SFT | LORA, marks=pytest.mark.slow), DPO], ids=["sft with adapters", "dpo"]
)
def test_a_failed_stage_goes_on_as_if_nothing_had_happened(
    store: Path, base: str, stage: dict[str, Any], failing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = prepare(read.validate(settings(base, stage)), "tiny")
    failing(stage["name"], 5)
    with pytest.raises(OSError, match="no space left"):
        run_single_stage(plan, Display())
    [stopped] = runs()
    assert "no space left" in stopped.data.tags["mlflow.note.content"]
    failing("nothing", 0)
    resumed = run_single_stage(plan, Display(), stopped.info.run_id)
    note = described(MlflowClient().get_run(stopped.info.run_id))
    assert "no space left" not in note and "| topic | verdict |" in note
    assert_same(resumed, run_single_stage(plan, Display()))


def test_a_checkpoint_is_complete_only_when_its_measurement_is_written(
    store: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measurement of step 4 fails while the training goes on: the state that is left is that of step 2."""
    plan = prepare(read.validate(settings(base, SFT)), "tiny")
    original = callback.ValueDriftCallback._conclude

    def failing_at_four(self: Any, taken: Any, step: int, *further: Any) -> None:
        if step == 4:
            raise OSError("no space left")
        original(self, taken, step, *further)

    monkeypatch.setattr(callback.ValueDriftCallback, "_conclude", failing_at_four)
    with pytest.raises(OSError, match="no space left"):
        run_single_stage(plan, Display())
    [stopped] = runs()
    marked = (store / ".valuedrift" / stopped.info.run_id).glob("checkpoint-*/complete")
    assert [path.parent.name for path in marked] == ["checkpoint-2"]
    monkeypatch.undo()
    resumed = run_single_stage(plan, Display(), stopped.info.run_id)
    assert_same(resumed, run_single_stage(plan, Display()))


def resumed_and_whole(plan: Plan, stage: str, failing: Any) -> tuple[Any, Any]:
    """The results of a stage that failed at its fifth step and was taken up, and of one that was not."""
    failing(stage, 5)
    with pytest.raises(OSError, match="no space left"):
        run_single_stage(plan, Display())
    [stopped] = runs()
    failing("nothing", 0)
    resumed = run_single_stage(plan, Display(), stopped.info.run_id)
    assert resumed.run_id == stopped.info.run_id
    return resumed, run_single_stage(plan, Display())


# Nightly those whose state is that of another one: SimPO's and ORPO's is all in the Trainer, as DPO's above; what KTO
# draws is the order of its rows, as SFT does; GRPO and RLOO sample as PPO does.
NIGHTLY = [pytest.param(name, marks=pytest.mark.slow) for name in ("simpo", "orpo", "kto", "grpo", "rloo")]


@pytest.mark.parametrize("algorithm", ["anchored_dpo", "ppo", *NIGHTLY])
def test_every_algorithm_goes_on_as_if_nothing_had_happened(
    store: Path, random_folder: Path, algorithm: str, failing: Any
) -> None:
    stage: dict[str, Any] = {"name": algorithm, "algorithm": algorithm, "data": "embedded:pairs?gap=1&size=20"}
    if algorithm == "anchored_dpo":
        stage |= {"anchors": "embedded:anchors?except=", "anchor_batch_size": 2, "anchor_tokens": 8}
    if algorithm in ("ppo", "grpo", "rloo"):
        (store / "lengths.py").write_text(
            "def longer(prompts, responses):\n    return [len(text) for text in responses]\n"
        )
        stage |= {"reward": "lengths:longer", "response_length": 8}
    if algorithm in ("grpo", "rloo"):
        stage |= {"generations": 2, "data": "embedded:pairs?gap=1&size=6"}  # five steps take more than an epoch
    short = settings(str(random_folder), stage) | {"max_new_tokens": 8}  # what it says means nothing anyhow
    resumed, whole = resumed_and_whole(prepare(read.validate(short), "tiny"), algorithm, failing)
    assert isinstance(resumed, StageResult)
    assert isinstance(whole, StageResult)
    assert_same(resumed, whole)


def test_a_reward_model_goes_on_as_if_nothing_had_happened(store: Path, random_folder: Path, failing: Any) -> None:
    reward = {"name": "reward", "algorithm": "reward", "data": "embedded:pairs?gap=1&size=24", "held_out": 0.2}
    plan = prepare(read.validate(settings(str(random_folder), reward)), "tiny")
    resumed, whole = resumed_and_whole(plan, "reward", failing)
    assert isinstance(resumed, RewardResult)
    assert isinstance(whole, RewardResult)
    assert resumed.accuracy == whole.accuracy
    ours, theirs = (rewards.load_reward(result.model_uri).model.parameters() for result in (resumed, whole))
    assert all(mine.equal(other) for mine, other in zip(ours, theirs, strict=True))
    assert histories(resumed.run_id) == histories(whole.run_id)


def test_a_pipeline_keeps_its_finished_stages(store: Path, base: str, failing: Any) -> None:
    stages = [SFT | {"name": "first"}, DPO | {"from": "first"}, SFT | {"name": "last", "from": "dpo"}]
    tree = settings(base, *stages, steps=3)
    plan = prepare(read.validate(tree), "tiny")
    failing("dpo", 3)
    with pytest.raises(OSError, match="no space left"):
        run_pipeline(plan, Display())
    before = tracking.stages_of(
        next(run for run in runs() if run.data.tags["valuedrift.role"] == "pipeline").info.run_id
    )
    assert {name: run.status for name, run in before.items()} == {
        "base": "FINISHED",
        "first": "FINISHED",
        "dpo": "FAILED",
    }
    parent = mlflow.get_run(before["dpo"].run_id).data.tags["mlflow.parentRunId"]
    ended = mlflow.get_run(before["first"].run_id).info.end_time
    failing("nothing", 0)
    resumed = run_pipeline(plan, Display(), parent)
    after = tracking.stages_of(parent)
    assert {name: after[name].run_id for name in before} == {name: before[name].run_id for name in before}
    assert mlflow.get_run(after["first"].run_id).info.end_time == ended
    assert len(runs()) == 7  # two of them audits: neither is made again
    assert all(run.info.status == "FINISHED" for run in runs())
    assert {"report.html", "figures"} <= {file.path for file in MlflowClient().list_artifacts(parent)}
    whole = run_pipeline(plan, Display())
    for ours, theirs in zip(resumed, whole, strict=True):
        ours_weights, theirs_weights = (
            models.load_model(ours.model_uri).model,
            models.load_model(theirs.model_uri).model,
        )
        assert all(a.equal(b) for a, b in zip(ours_weights.parameters(), theirs_weights.parameters(), strict=True))
        assert ours.drift.overall == pytest.approx(theirs.drift.overall, abs=1e-9)
    summaries = [run for run in runs() if run.data.tags["valuedrift.role"] == "pipeline"]
    assert summaries[0].data.metrics == pytest.approx(summaries[1].data.metrics, abs=1e-8)


def test_what_cannot_be_taken_up_is_refused_by_name(store: Path, base: str, failing: Any) -> None:
    tree = settings(base, SFT, steps=2)
    plan = prepare(read.validate(tree), "tiny")
    with pytest.raises(InputError, match="--resume: found 'nobody', allowed: the id of a run"):
        run_single_stage(plan, Display(), "nobody")
    finished = run_single_stage(plan, Display()).run_id
    with pytest.raises(InputError, match=r"finished.*stopped or has failed"):
        run_single_stage(plan, Display(), finished)
    with pytest.raises(InputError, match="a pipeline, by the entry point main"):
        run_pipeline(plan, Display(), finished)
    failing("sft", 1)
    with pytest.raises(OSError, match="no space left"):
        run_single_stage(plan, Display())
    stopped = next(run.info.run_id for run in runs() if run.info.status == "FAILED")
    other = settings(base, SFT | {"learning_rate": 5e-4, "lora": {"rank": 2}}, steps=2) | {"seed": 3}
    with pytest.raises(InputError) as error:
        run_single_stage(prepare(read.validate(other), "tiny"), Display(), stopped)
    named = [line.partition(":")[0] for line in error.value.problems]
    assert named == ["seed", "sft.learning_rate", "sft.lora.rank"]
    assert "found '0.0005', allowed: 0.001, as run" in str(error.value)
    assert len(runs()) == 2
    failing("nothing", 0)  # it stopped before its first checkpoint: it begins again, in the same run
    assert run_single_stage(plan, Display(), stopped).run_id == stopped
    assert [step for step, _ in histories(stopped)["drift/overall"]] == [0, 2]
    assert [step for step, _ in histories(stopped)["train/loss"]] == [1, 2]


def test_a_run_that_was_killed_before_its_settings_were_recorded_can_be_taken_up(store: Path) -> None:
    """They are written a hundred at a time; what it did not come to cannot differ, what it has recorded can."""
    settings_now = {f"key{number}": "1" for number in range(130)}

    def taken_up(recorded: int, value: str = "1") -> str:
        client = MlflowClient()
        run_id = client.create_run("0", tags={"valuedrift.role": "stage"}).info.run_id
        tracking.log_parameters(tracking.OpenRun(run_id), dict.fromkeys(list(settings_now)[:recorded], value))
        return tracking.stopped_run(run_id, "stage", settings_now, keys=settings_now, suite="s").run_id

    assert taken_up(0) and taken_up(100) and taken_up(130)
    for recorded, value, named in ((99, "1", 1), (101, "1", 29), (100, "2", 100)):
        with pytest.raises(InputError) as error:
            taken_up(recorded, value)
        assert len(error.value.problems) == named


def test_changed_rows_are_refused(store: Path, base: str, failing: Any) -> None:
    file = store / "rows.jsonl"
    row = {"prompt": "Why?", "completion": "Because."}
    file.write_text("\n".join(json.dumps(row | {"prompt": f"Why {i}?"}) for i in range(8)))
    tree = settings(base, SFT | {"data": str(file)}, steps=2)
    failing("sft", 1)
    with pytest.raises(OSError, match="no space left"):
        run_single_stage(prepare(read.validate(tree), "tiny"), Display())
    file.write_text(file.read_text().replace("Because", "Therefore"))
    [stopped] = runs()
    with pytest.raises(InputError, match=r"sft\.data: found .*rows\.jsonl.*not those that the stage began with"):
        run_single_stage(prepare(read.validate(tree), "tiny"), Display(), stopped.info.run_id)


@pytest.mark.slow
def test_mlflow_run_continues_the_run(store: Path, base: str, failing: Any) -> None:
    """MLflow opens a run for every project run, and needs it to its end: it stands, empty, under the one continued."""
    (store / "tiny.yaml").write_text(yaml.safe_dump(settings(base, SFT, steps=3)))
    failing("sft", 3)
    with pytest.raises(OSError, match="no space left"):
        run_single_stage(prepare(read.load_recipe(str(store / "tiny.yaml")), "tiny"), Display())
    [stopped] = runs()
    done = mlflow_run("-e", "sft", "-P", f"recipe={store / 'tiny.yaml'}", "-P", f"resume={stopped.info.run_id}")
    assert done.returncode == 0, done.stderr
    everything = MlflowClient().search_runs([e.experiment_id for e in MlflowClient().search_experiments()])
    by_role = {run.data.tags["valuedrift.role"]: run for run in everything}
    assert set(by_role) == {"stage", "resumption"}
    assert by_role["stage"].info.run_id == stopped.info.run_id
    assert all(run.info.status == "FINISHED" for run in everything)
    assert by_role["resumption"].data.tags["mlflow.parentRunId"] == stopped.info.run_id
    assert by_role["resumption"].data.metrics == {}
