import json
import threading
from collections.abc import Sequence
from pathlib import Path

import mlflow
import pytest
from datasets import Dataset
from mlflow import MlflowClient
from read_pages import described
from transformers import TrainerCallback, TrainerState
from trl import SFTConfig, SFTTrainer

import valuedrift_mlflow
from valuedrift_mlflow import models
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.evaluation.beside import Beside
from valuedrift_mlflow.evaluation.callback import TrainingLog
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.stances import Answer, Verdict

SUITE = "vaes?topics=religion,abortion&per_topic=3"


class Agreeing:
    """Reads support in everything."""

    name = "agreeing"

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        return [Verdict.of((1.0, 0.0, 0.0)) for _ in answers]


def own_script(folder: Path, scratch: Path, callback: object, steps: int = 4, save: str = "no") -> SFTTrainer:
    """A training script as anybody might have it: TRL's trainer, and the callback added in one line."""
    loaded = models.load_model(str(folder))
    rows = [{"messages": row["messages"]} for row in corpus.rows("embedded:sft?size=40")]
    arguments = SFTConfig(
        output_dir=str(scratch),
        max_steps=steps,
        per_device_train_batch_size=4,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy=save,
        save_steps=2,
        disable_tqdm=True,
    )
    return SFTTrainer(
        model=loaded.model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=loaded.tokenizer,
        callbacks=[callback],
    )


def test_one_line_in_a_script_measures_under_the_active_run(store: Path, random_folder: Path) -> None:
    Path("people.csv").write_text("topic,support,neutral,oppose\nreligion,0.25,0,0.75\nabortion,0.75,0,0.25\n")
    callback = valuedrift_mlflow.ValueDriftCallback(
        suite=SUITE, judge=Agreeing(), every=2, samples=2, max_new_tokens=8, reference="people.csv"
    )
    with mlflow.start_run() as run:
        own_script(random_folder, store / "out", callback).train()
    client = MlflowClient()
    distances = client.get_metric_history(run.info.run_id, "reference_distance/religion")
    assert [(metric.step, metric.value) for metric in distances] == [(0, 0.75), (2, 0.75), (4, 0.75)]
    assert "reference_distance.json" in {file.path for file in client.list_artifacts(run.info.run_id)}
    history = client.get_metric_history(run.info.run_id, "quality/unscored_rate")
    assert [metric.step for metric in history] == [0, 2, 4]
    assert [m.step for m in callback.measurements] == [0, 2, 4]
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id)} >= {
        "figures",
        "responses.json",
        "value_drift_table.json",
    }
    inputs = client.get_run(run.info.run_id).inputs.dataset_inputs
    assert [entry.dataset.name for entry in inputs] == ["vaes"]
    table = json.loads(Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/responses.json")).read_text())
    assert len(table["data"]) == 3 * 6 * 2  # measurements x items x samples
    assert set(table["columns"]) >= {"step", "topic", "item_id", "prompt", "response", "support", "verdict", "judge"}


def test_no_run_is_needed(store: Path, random_folder: Path) -> None:
    callback = valuedrift_mlflow.ValueDriftCallback(suite=SUITE, every=2, samples=1, max_new_tokens=4, kl=False)
    own_script(random_folder, store / "out", callback, steps=2).train()
    assert mlflow.active_run() is None
    run = mlflow.last_active_run()
    assert run is not None and run.info.status == "FINISHED"
    run = MlflowClient().get_run(run.info.run_id)
    assert "cost/responses_per_second" in run.data.metrics
    assert run.info.run_name == f"training · {random_folder.name}"
    assert run.data.tags["valuedrift.role"] == "training"
    assert run.data.params["judge"].startswith("lexical") and run.data.params["samples"] == "1"
    assert "| topic | verdict |" in described(run)


def test_two_trainings_of_a_script_have_a_run_each_and_an_active_one_stays_open(
    store: Path, random_folder: Path
) -> None:
    runs = []
    for name in ("a", "b"):
        callback = valuedrift_mlflow.ValueDriftCallback(suite=SUITE, every=2, samples=1, max_new_tokens=4, kl=False)
        own_script(random_folder, store / name, callback, steps=2).train()
        runs.append(mlflow.last_active_run())
    assert runs[0] is not None and runs[1] is not None and runs[0].info.run_id != runs[1].info.run_id
    with mlflow.start_run() as own:
        callback = valuedrift_mlflow.ValueDriftCallback(suite=SUITE, every=2, samples=1, max_new_tokens=4, kl=False)
        own_script(random_folder, store / "c", callback, steps=2).train()
        assert mlflow.active_run().info.run_id == own.info.run_id


def test_measuring_does_not_change_the_training(store: Path, random_folder: Path) -> None:
    """Weights after training are the same with and without the callback."""
    measured = own_script(
        random_folder,
        store / "a",
        valuedrift_mlflow.ValueDriftCallback(suite=SUITE, every=1, samples=1, max_new_tokens=4),
    )
    measured.train()
    plain = own_script(random_folder, store / "b", TrainingLog(None))
    plain.train()
    for ours, theirs in zip(measured.model.parameters(), plain.model.parameters(), strict=True):
        assert ours.equal(theirs)


def test_a_script_that_is_resumed_goes_on_measuring_in_its_run(store: Path, random_folder: Path) -> None:
    """The start's stances and the reference of the KL are those of the first process, and no step stands twice."""

    class Stop(TrainerCallback):
        def on_step_end(self, args: object, state: TrainerState, control: object, **kwargs: object) -> None:
            if state.global_step == 3:
                raise OSError("no space left")

    def measuring() -> valuedrift_mlflow.ValueDriftCallback:
        return valuedrift_mlflow.ValueDriftCallback(suite=SUITE, every=2, samples=1, max_new_tokens=4)

    stopped = own_script(random_folder, store / "a", measuring(), save="steps")
    stopped.add_callback(Stop())
    with pytest.raises(OSError, match="no space left"):
        stopped.train()
    run_id = mlflow.active_run().info.run_id
    mlflow.end_run("FAILED")
    again = measuring()
    own_script(random_folder, store / "a", again, save="steps").train(resume_from_checkpoint=True)
    assert mlflow.last_active_run().info.run_id == run_id
    assert [m.step for m in again.measurements] == [0, 2, 4]
    whole = measuring()
    own_script(random_folder, store / "b", whole).train()
    client, other = MlflowClient(), mlflow.last_active_run().info.run_id
    for key in ("reference_kl", "quality/unscored_rate"):
        ours, theirs = (client.get_metric_history(run, key) for run in (run_id, other))
        assert [m.step for m in ours] == [m.step for m in theirs] == [0, 2, 4]
        assert [m.value for m in ours] == pytest.approx([m.value for m in theirs], abs=1e-9)
    assert again.drift().probability == pytest.approx(whole.drift().probability, nan_ok=True)


class Waiting(Agreeing):
    """Reads the answers of a later measurement only once the training has gone on without it."""

    def __init__(self) -> None:
        self.calls = 0
        self.went_on = threading.Event()

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        self.calls += 1
        if self.calls == 2:
            assert self.went_on.wait(300), "the training waits for the judge"
        return super().judge(answers)


def test_the_next_steps_run_while_answers_are_judged(store: Path, random_folder: Path) -> None:
    judge = Waiting()

    class Telling(TrainerCallback):
        def on_step_end(self, args: object, state: TrainerState, control: object, **kwargs: object) -> None:
            if state.global_step == 3:
                judge.went_on.set()

    callback = valuedrift_mlflow.ValueDriftCallback(suite=SUITE, judge=judge, every=2, samples=1, max_new_tokens=4)
    trainer = own_script(random_folder, store / "out", callback, steps=5)
    trainer.add_callback(Telling())
    trainer.train()
    assert [m.step for m in callback.measurements] == [0, 2, 4, 5]


def test_what_goes_wrong_beside_the_training_stops_it_at_its_next_step(store: Path, random_folder: Path) -> None:
    class Failing(Agreeing):
        failed = threading.Event()

        def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
            if callback.measurements:
                self.failed.set()
                raise ConnectionError("the judge is gone")
            return super().judge(answers)

    steps: list[int] = []

    class Telling(TrainerCallback):
        def on_step_end(self, args: object, state: TrainerState, control: object, **kwargs: object) -> None:
            steps.append(state.global_step)
            if state.global_step == 3:
                assert judge.failed.wait(300)

    judge = Failing()
    callback = valuedrift_mlflow.ValueDriftCallback(suite=SUITE, judge=judge, every=2, samples=1, max_new_tokens=4)
    trainer = own_script(random_folder, store / "out", callback, steps=40)
    trainer.add_callback(Telling())
    with pytest.raises(ConnectionError, match="the judge is gone"):
        trainer.train()
    assert steps[-1] in (2, 3)  # of 40
    mlflow.end_run()


def test_beside_the_training_comes_out_what_comes_out_where_it_waits(
    store: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last digit: metrics in their order, and the tables."""

    def measured(name: str) -> tuple[dict[str, list[tuple[int, float]]], list[str]]:
        callback = valuedrift_mlflow.ValueDriftCallback(suite=SUITE, every=1, samples=2, max_new_tokens=8)
        own_script(random_folder, store / name, callback, steps=5).train()
        run, client = mlflow.last_active_run(), MlflowClient()
        assert run is not None
        values = {
            key: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
            if not key.startswith("cost/")
        }
        tables = ("responses.json", "value_drift_table.json")
        return values, [mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/{table}") for table in tables]

    beside = measured("a")
    monkeypatch.setattr(Beside, "do", lambda self, work: work())
    assert measured("b") == beside


def test_a_checkpoint_without_measurements_is_refused(store: Path, random_folder: Path) -> None:
    own_script(random_folder, store / "out", TrainingLog(None), save="steps").train()
    callback = valuedrift_mlflow.ValueDriftCallback(suite=SUITE, every=2, samples=1, max_new_tokens=4)
    resumed = own_script(random_folder, store / "out", callback, steps=6, save="steps")
    with pytest.raises(InputError, match=r"checkpoint-4/valuedrift\.json.*measurements of a run that is taken up"):
        resumed.train(resume_from_checkpoint=True)


def test_bad_settings_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="judge: found 'oracle', allowed: auto, lexical"):
        valuedrift_mlflow.ValueDriftCallback(judge="oracle")
    with pytest.raises(InputError, match="every: found 0"):
        valuedrift_mlflow.ValueDriftCallback(every=0)


def test_a_loss_that_is_not_finite_stops_with_its_step(store: Path) -> None:
    from transformers import TrainerControl, TrainingArguments

    state = TrainerState(global_step=7)
    with pytest.raises(FloatingPointError, match="nan at step 7"):
        TrainingLog(None).on_log(TrainingArguments(output_dir="x"), state, TrainerControl(), {"loss": float("nan")})
