"""What the tests share: no network, a fresh tracking store for each test, and small models that are made once."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any library reads it
os.environ.setdefault("MPLBACKEND", "Agg")

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from working_folder import working_in

from valuedrift_mlflow import tracking

tracking.work_offline()
# A shell has what it starts in the background ignore Ctrl-C, and so would every process that a test starts and stops.
signal.signal(signal.SIGINT, signal.default_int_handler)
# How fast a shared machine is says nothing of the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


# The files that take longest, in seconds on one core at the time of writing.
LONGEST = {
    "test_embedded_truth.py": 380,
    "test_resume.py": 250,
    "test_launch.py": 150,
    "test_judge_training.py": 120,
    "test_pipeline.py": 90,
    "test_mlproject.py": 90,
    "test_algorithms.py": 80,
    "test_ablation.py": 70,
    "test_synthesis.py": 70,
    "test_examples.py": 50,
    "test_faults.py": 100,
    "test_ui.py": 90,
    "test_evaluator.py": 50,
}


# Of tests in several forms, those whose forms in CI show as much: they cost minutes together, and are run nightly.
NIGHTLY = (
    "test_intervals_hold_the_planted_shift[0.3]",
    "test_training_on_a_stance_moves_the_choice_towards_it",
    *(f"test_a_stage_learns_the_same_from_rows_on_disk[{name}-" for name in ("kto", "simpo", "reward")),
    *(f"test_the_plan_counts_as_many_steps_as_the_trainer_takes[{epochs}]" for epochs in ("1.1", "0.29")),
    "test_batches_summed_into_a_step_have_the_gradient_of_one_large_batch[pretrain]",
    "test_a_larger_beta_keeps_the_policy_nearer_to_the_reference",
    "test_accumulation_and_checkpointing_of_activations_change_nothing",
    "test_stances_are_measured_on_the_policy[0]",
    "test_a_resumed_training_ends_with_the_same_weights[between rollouts-lora]",
    "test_adapters_on_adapters_name_what_they_were_trained_on[step]",
    *(
        f"test_full_fine_tuning_from_adapters_moves_the_whole_model[{name}]"
        for name in ("grpo", "rloo", "simpo", "orpo", "kto")
    ),
    *(
        f"test_a_model_is_trained_and_its_checkpoint_is_what_was_trained[{name}]"
        for name in ("lora-gpt2", "sft-gpt2", "grpo-gpt2", "dpo-gpt2", "grpo-llama")
    ),
    "test_sampling_stages_learn_what_is_rewarded[rloo]",
    "test_a_stage_trains_against_the_reward_model_of_an_earlier_one[4]",
    *(
        f"test_adapters_alone_are_trained_with_checkpointed_activations[{name}]"
        for name in ("grpo", "rloo", "simpo", "kto", "orpo")
    ),
    "test_trainers_that_would_add_it_silently_do_not[simpo]",
    # `test_faults.py` kills a whole job, which is then taken up, and compares all that it leaves with one that ended.
    "test_what_a_killed_pipeline_has_begun_is_not_begun_again",
    "test_a_pipeline_keeps_its_finished_stages",
    "test_a_failed_stage_goes_on_as_if_nothing_had_happened[dpo]",
    "test_a_killed_stage_goes_on_as_if_nothing_had_happened[sft, while",
    "test_so_they_do_where_a_job_writes_straight_to_the_server",
    # A stage of two processes runs all the same, and an example of an algorithm.
    "test_processes_with_different_weights_are_noticed",
    "test_the_command_of_the_job_can_be_run",
    "test_of_two_that_go_on_the_second_is_refused",  # `test_lease.py` shows it of two owners in one process
    "test_every_algorithm_goes_on_as_if_nothing_had_happened[ppo]",  # so does `test_ppo.py`
    "test_a_resumed_training_ends_with_the_same_weights[within a rollout of the second epoch-lora]",
    *(f"test_a_stage_learns_the_same_from_rows_on_disk[{name}-" for name in ("dpo", "ppo")),
    *(
        f"test_rows_held_out_are_evaluated_before_the_first_step_and_at_the_last[{name}]"
        for name in ("simpo", "kto", "orpo")
    ),
    *(f"test_losses_of_mixtures_start_where_those_of_dense_models_do[{name}]" for name in ("kto-None", "dpo-0.5")),
    "test_trainers_that_would_add_it_silently_do_not[orpo]",
    *(f"test_the_planted_gap_is_recovered[{gap}]" for gap in ("0.25", "0.75")),
    # What they ask of the pipeline, the main job asks, and `test_ablation.py`.
    "test_a_documented_command_runs[README.md-mlflow run . -e ablate",
    'test_a_documented_command_runs[README.md-mlflow run . -P set="dpo.data=pairs.jsonl.gz',
    "test_an_algorithm_is_added_by_its_file_and_its_recipe",
)


@pytest.hookimpl(tryfirst=True)  # before those that are slow are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first: where several workers take one file after another, none waits for it at the end.

    The order of the command line is no way: pytest sorts folders that stand within each other.
    """
    for item in items:
        if item.name.startswith(NIGHTLY):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: -LONGEST.get(item.path.name, 0))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; making one takes seconds, copying it none."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> Iterator[Path]:
    """A tracking store of the test's own in a folder that is also the working folder."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    with working_in(tmp_path):
        yield tmp_path


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A folder with a store for what several tests of a file look at and none changes; see `working_folder`."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copy(empty_database, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a model of the embedded architecture with random weights, as transformers saves it."""
    from valuedrift_mlflow.embedded import corpus, world

    texts = [message["content"] for row in corpus.rows("embedded:sft?size=2000") for message in row["messages"]]
    tokenizer = world.train_tokenizer(texts)
    folder = tmp_path_factory.mktemp("model") / "random"
    world.random_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def base() -> str:
    """The URI of the embedded base model, unpacked where the cache does not have it yet."""
    from valuedrift_mlflow.stages import embedded_base

    embedded_base.base_folder()
    return "embedded:base"


@pytest.fixture
def registered(store: Path, base: str) -> str:
    """The URI of a registered model, as a stage leaves it."""
    import mlflow

    from valuedrift_mlflow import models

    loaded = models.load_model(base)
    with mlflow.start_run() as active:
        run = tracking.OpenRun(active.info.run_id)
        model_id = tracking.log_final_model(
            run, loaded.model, loaded.tokenizer, stage="sft", step=2, max_new_tokens=40, temperature=0.7
        )
    mlflow.register_model(f"models:/{model_id}", "assistant")
    return "models:/assistant/1"
