"""The real `transformers serve` on loopback: as the model that is evaluated, and as a judge."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from served_model import Served

from valuedrift_mlflow import judges, models, suite
from valuedrift_mlflow.evaluation import measurement
from valuedrift_mlflow.evaluation.measurement import Measurement, no_progress
from valuedrift_mlflow.evaluation.metrics import analyse_measurements
from valuedrift_mlflow.models.generation import Sampling
from valuedrift_mlflow.stages import embedded_base
from valuedrift_mlflow.stances import Answer, Label

SLICE = "vaes?topics=religion,abortion,immigration&per_topic=10"
SAMPLING = Sampling(samples=3, temperature=0.8, max_new_tokens=68)


@pytest.fixture(scope="module")
def servers(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Served]]:
    """Two servers of the embedded base model, started side by side."""
    logs = tmp_path_factory.mktemp("serve")
    copied = logs / "judge"
    shutil.copytree(embedded_base.base_folder(), copied)
    both = (Served(embedded_base.base_folder(), logs / "model.log"), Served(copied, logs / "judge.log"))
    try:
        for served in both:
            served.wait()
        yield both
    finally:
        for served in both:
            served.stop()


@pytest.fixture(scope="module")
def measured(servers: tuple[Served, Served]) -> Measurement:
    """The slice of the suite, asked of the first server; one request at a time, so that its seeds hold."""
    generator = servers[0].generator(in_flight=1)
    found = measurement.measure(generator, suite.load(SLICE), judges.load("lexical"), SAMPLING)
    assert generator.failures == 0
    return found


def deviations(found: Measurement, truth: Measurement) -> NDArray[np.float64]:
    """Mean difference of each stance over its standard error, shape (3,).

    Both measurements asked the same 30 prompts: the standard error is that of the mean of 30 paired differences.
    """
    differences = found.values - truth.values
    differences = differences[~np.isnan(differences).any(axis=1)]
    assert len(differences) >= 25
    error: NDArray[np.float64] = differences.std(axis=0, ddof=1) / np.sqrt(len(differences))
    return np.abs(differences.mean(axis=0)) / error


def test_a_served_model_has_the_stances_of_the_same_model_in_memory(measured: Measurement, base: str) -> None:
    def local(sampling: Sampling) -> Measurement:
        return measurement.measure(models.load_generator(base), measured.suite, judges.load("lexical"), sampling)

    truth = local(replace(SAMPLING, samples=12))
    assert measured.rate(Label.UNSCORED) < truth.rate(Label.UNSCORED) + 0.05
    assert not analyse_measurements([truth, measured]).topic_significant[-1].any()
    assert (deviations(measured, truth) < 3).all()
    # The bound tells other sampling apart: greedy, which is what the server does where temperature does not reach it.
    assert (deviations(local(replace(SAMPLING, temperature=0)), truth) > 3).any()


def test_temperature_length_and_seed_reach_the_server(servers: tuple[Served, Served]) -> None:
    prompts, keys = ["Should abortion be legal?"], ["a"]

    def ask(sampling: Sampling) -> list[str]:
        return servers[0].generator(in_flight=1).generate(prompts, keys, sampling, no_progress)[0]

    drawn = ask(Sampling(4, 1.0, 24))
    assert len(set(drawn)) == 4
    assert ask(Sampling(2, 1.0, 24)) == drawn[:2]
    assert ask(Sampling(4, 1.0, 24, seed=1)) != drawn
    peer = models.load_generator("embedded:base")
    assert ask(Sampling(2, 0.0, 24)) == peer.generate(prompts, keys, Sampling(2, 0.0, 24), no_progress)[0]
    assert ask(Sampling(1, 0.0, 3)) == peer.generate(prompts, keys, Sampling(1, 0.0, 3), no_progress)[0]


@pytest.mark.parametrize("answer", ["logprobs", "votes", "structured"])
def test_a_model_that_cannot_judge_leaves_everything_unscored(
    servers: tuple[Served, Served], measured: Measurement, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = [
        Answer(judged.item.proposition, judged.item.prompt, judged.response, judged.item.polarity)
        for judged in measured.responses[:12]
    ]
    verdicts = judges.load(servers[1].uri(f"&answer={answer}&votes=2")).judge(asked)
    assert {verdict.label for verdict in verdicts} == {Label.UNSCORED}
    for verdict in verdicts:
        assert "not an offered label" in verdict.reason
        assert not verdict.failed
        assert verdict.spent.calls == 2
        # Each prompt holds the rubric, and each completion has at most 8 tokens (32 in a JSON object).
        assert verdict.spent.tokens > 2 * 100
