"""Judges of a known quality on the shipped answers of real models: what a run says of each."""

import json
from collections.abc import Sequence
from pathlib import Path

import mlflow
import pandas as pd
import pytest

import valuedrift_mlflow
from valuedrift_mlflow import models, suite
from valuedrift_mlflow.evaluation import reliability
from valuedrift_mlflow.evaluation.evaluate import Config, opened, run_evaluation
from valuedrift_mlflow.evaluation.subjects import Asked
from valuedrift_mlflow.judges import labelled
from valuedrift_mlflow.models.generation import FunctionGenerator
from valuedrift_mlflow.stances import REFUSAL, UNSCORED, Answer, Label, Verdict

SHORT = ["I think that this is right, and I would say so to anybody."] * 4
LONG = [" ".join(SHORT) * 8]
TRUTH = {entry.answer.response: entry.label for entry in labelled.load_answers("real")}


def verdict(label: Label) -> Verdict:
    if label in (Label.REFUSAL, Label.UNSCORED):
        return {Label.REFUSAL: REFUSAL, Label.UNSCORED: UNSCORED}[label]
    return Verdict.of([float(label.value == name) for name in ("support", "neutral", "oppose")])


class Planted:
    """Knows the labels; ``wrong`` says support to everything instead, ``blind`` scores nothing."""

    name = "planted"

    def __init__(self, how: str, version: str = "") -> None:
        self.how, self.version, self.calls = how, version, 0

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        self.calls += 1
        wanted = {"wrong": Label.SUPPORT, "blind": Label.UNSCORED}.get(self.how)
        return [verdict(wanted or TRUTH.get(answer.response, Label.SUPPORT)) for answer in answers]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_judge_that_is_right_a_judge_that_is_not_and_one_that_sees_nothing() -> None:
    right, wrong, blind = (reliability.of(Planted(how), SHORT) for how in ("right", "wrong", "blind"))
    assert right is not None and wrong is not None and blind is not None
    assert right.kappa is not None and wrong.kappa is not None
    assert (right.kappa.value, right.coverage.value, right.doubts) == (1.0, 1.0, [])
    assert (wrong.kappa.value, wrong.coverage.value) == (0.0, 1.0)
    assert "0.00, under 0.4" in wrong.doubts[0] and "Cannot tell" in wrong.sentence
    assert (blind.kappa, blind.coverage.value) == (None, 0.0)
    assert "scores none of 122" in blind.doubts[0]
    assert right.metrics()["judge/kappa"] == 1.0
    assert "judge/kappa" not in blind.metrics() and blind.metrics()["judge/coverage"] == 0.0


def test_long_texts_are_held_against_long_labelled_ones() -> None:
    short, long = reliability.of(Planted("right"), SHORT), reliability.of(Planted("right"), LONG)
    assert short is not None and long is not None
    assert (short.kind, short.answers) == ("answer", 122)
    assert (long.kind, long.answers) == ("essay", 228)


@pytest.mark.parametrize("strange", ["слово " * 50, "word " * 5_000])
def test_texts_that_no_labelled_one_is_like(strange: str) -> None:
    """One in ten is too many; one in twenty is not."""
    tenth = reliability.of(Planted("right"), SHORT[:1] * 9 + [strange])
    few = reliability.of(Planted("right"), SHORT[:1] * 19 + [strange])
    assert tenth is not None and few is not None
    assert tenth.doubts == ["10% of the texts are unlike those that people labelled"]
    assert few.doubts == []


def test_a_version_is_checked_once_and_damage_costs_another_check(cache: Path) -> None:
    judge = Planted("right", version="1")
    first = reliability.of(judge, SHORT)
    assert reliability.of(judge, SHORT) == first
    assert judge.calls == 1
    [file] = cache.rglob("judge-checks/*.json")
    assert json.loads(file.read_text().partition("\n")[2])["judge"] == "planted@1"  # below a hash of it
    file.write_text(file.read_text()[:20])
    assert reliability.of(judge, SHORT) == first
    assert judge.calls == 2
    newer = Planted("wrong", version="2")
    assert reliability.of(newer, SHORT) != first
    assert newer.calls == 1


def test_no_texts_no_check() -> None:
    judge = Planted("right")
    assert reliability.of(judge, ["", "  "]) is None
    assert judge.calls == 0


def test_an_evaluation_says_how_far_its_judge_can_be_trusted(store: Path) -> None:
    ready = opened(
        Config(judge="lexical", samples=1),
        Asked("somebody's", lambda: FunctionGenerator(lambda prompts: SHORT[:1] * len(prompts))),
        suite="vaes?topics=religion&per_topic=3",
    )
    _, evaluation = run_evaluation(ready)
    assert evaluation.trust is not None
    [run] = mlflow.search_runs(output_format="list")
    assert run.data.metrics["judge/coverage"] == evaluation.trust.coverage.value
    page = Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/report.html")).read_text()
    assert f"122 answers of real models that people labelled: kappa <b>{evaluation.trust.kappa}" in page


def test_responses_that_the_judge_cannot_read_are_said(store: Path) -> None:
    pytest.importorskip("lingua", reason="the extra languages is not installed")
    french = "Je suis tout à fait contre cette idée, et je le dirais à tout le monde."

    def speak(prompts: Sequence[str]) -> list[str]:
        return [french if at % 3 == 0 else SHORT[0] for at in range(len(prompts))]

    ready = opened(
        Config(judge="lexical", samples=1),
        Asked("somebody's", lambda: FunctionGenerator(speak)),
        suite="vaes?topics=religion&per_topic=3",
    )
    _, evaluation = run_evaluation(ready)
    count = len(evaluation.measurement.responses)
    share = sum(at % 3 == 0 for at in range(count)) / count
    assert evaluation.trust is not None
    assert f"French {share:.0%}; {share:.0%} not read by lexical" in evaluation.trust.sentence
    assert "of the texts are in other languages than English" in evaluation.trust.doubts[-1]
    [run] = mlflow.search_runs(output_format="list")
    assert run.data.metrics["quality/language/french"] == share
    page = Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/report.html")).read_text()
    assert f"The languages of {count} responses" in page and "not read by lexical" in page
    reasons = {r.verdict.reason for r in evaluation.measurement.responses if r.response == french}
    assert reasons == {"in French, and this judge reads English"}


def test_the_embedded_world_has_a_check_of_its_own(store: Path) -> None:
    result = valuedrift_mlflow.evaluate("embedded:random", suite="vaes?topics=religion&per_topic=2", samples=1)
    assert not [key for key in result.metrics if key.startswith("judge/")]
    assert reliability.is_embedded(models.load_generator("embedded:random"))
    assert not reliability.is_embedded(FunctionGenerator(lambda prompts: [""] * len(prompts)))


def test_an_audit_of_real_texts_says_it_too(store: Path) -> None:
    items = suite.load("vaes?topics=abortion&per_topic=20").items
    rows = [{"prompt": i.prompt, "chosen": "I fully agree.", "rejected": "I am against it."} for i in items]
    pd.DataFrame(rows).to_json("pairs.jsonl", orient="records", lines=True)
    with pytest.warns(UserWarning, match="of real models that people labelled"):
        audited = valuedrift_mlflow.audit("pairs.jsonl")
    assert audited.trust is not None
    assert ("Cannot tell with the judge" in audited.verdict) == bool(audited.trust.doubts)
    assert mlflow.get_run(audited.run_id).data.metrics["judge/coverage"] == audited.trust.coverage.value
    assert valuedrift_mlflow.audit("embedded:pairs?size=40").trust is None


class Turning(Planted):
    """Knows the labels, and says the contrary of every fourth text of support or opposition."""

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        turned = {Label.SUPPORT: Label.OPPOSE, Label.OPPOSE: Label.SUPPORT}
        seen = dict.fromkeys(Label, 0)
        said = []
        for answer in answers:
            true = TRUTH.get(answer.response, Label.SUPPORT)
            seen[true] += 1
            said.append(verdict(turned.get(true, true) if seen[true] % 4 == 0 else true))
        return said


def test_how_much_of_a_drift_a_judge_shows() -> None:
    """Of 16 texts of support 4 are turned, of 99 of opposition 24, of 7 neutral ones none.

    Rows (.75, 0, .25), (0, 1, 0), (24 / 99, 0, 75 / 99): the trace less one, by two, is 1.508 / 2 = 0.754.
    """
    trust = reliability.of(Turning("right", version="1"), SHORT)
    assert trust is not None and trust.shown is not None
    assert trust.shown.overall.value == pytest.approx((0.75 + 1 + 75 / 99 - 1) / 2)
    assert trust.metrics()["judge/attenuation"] == pytest.approx(0.754, abs=0.001)
    # Between support and oppose: ((.75 - 24 / 99) + (75 / 99 - .25)) / 2.
    found = trust.table().set_index("figure")
    assert found.value["attenuation/support_oppose"] == pytest.approx((0.5 + 51 / 99) / 2)
    assert found.ci_low["attenuation"] <= trust.metrics()["judge/attenuation"] <= found.ci_high["attenuation"]
    low, high = found.ci_low["attenuation"], found.ci_high["attenuation"]
    assert low < 0.754 < high
    assert f"Of a true drift it shows about 75 % [{100 * low:.0f}, {100 * high:.0f}] on texts like the labelled" in (
        trust.sentence
    )
    assert "a net drift of 0.300 stands for 0.398 [" in trust.line(0.3)
    assert trust.errors == ((12, 0, 4, 0), (0, 7, 0, 0), (24, 0, 75, 0))
    # From the file that the first check has left.
    again = reliability.of(Turning("right", version="1"), SHORT)
    assert again is not None and (again.errors, again.sentence) == (trust.errors, trust.sentence)


def test_of_a_stance_that_is_hardly_read_nothing_is_said() -> None:
    blind = reliability.of(Planted("blind"), SHORT)
    assert blind is not None
    assert "judge/attenuation" not in blind.metrics()
    assert "How much of a true drift it shows cannot be told" in blind.sentence
    assert "0 of support, 0 of neutral, 0 of oppose" in blind.line(0.2)
    assert "stands for" not in blind.line(0.2)
