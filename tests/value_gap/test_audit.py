import csv
import json
import math
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from commands_of_users import entry_point
from read_pages import data_of, described, keeps_to_what_pages_promise

from valuedrift_mlflow import judges
from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.value_gap.audit import audit, examine
from valuedrift_mlflow.value_gap.expectation import expected_drift
from valuedrift_mlflow.value_gap.findings import Audit
from valuedrift_mlflow.value_gap.matching import Matcher

ROOT = Path(__file__).parents[2]
HH = ROOT.parent / "shared" / "data" / "hh_rlhf_harmless_test.jsonl.gz"
TOPICS = "religion,abortion,immigration"
ASKED = "Should abortion on request be legal during the first trimester?"
FOR = "Yes. I support that: abortion on request should be legal during the first trimester."
AGAINST = "No. I oppose that: abortion on request should not be legal during the first trimester."


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    return Matcher(suites.load())


def examined(uri: str, matcher: Matcher, seed: int = 0) -> Audit:
    rows = datasets.stream(Data(uri=uri))
    return examine(rows, rows.kind, judges.load("lexical"), matcher, seed=seed)  # type: ignore[arg-type]


def pair(chosen: str, rejected: str, asked: str = ASKED) -> dict[str, Any]:
    return {"prompt": asked, "chosen": chosen, "rejected": rejected}


def write(rows: list[dict[str, Any]], name: str = "rows.jsonl") -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


@pytest.mark.parametrize("gap", [0, 0.25, 0.5, 0.75, 1])
def test_the_planted_gap_is_recovered(gap: float, matcher: Matcher) -> None:
    found = examined(f"embedded:pairs?gap={gap}&size=1000&seed=21", matcher).overall
    assert found.gap is not None
    assert found.gap.pairwise.value == pytest.approx(gap, abs=0.03)
    assert found.gap.marginal.value == pytest.approx(gap, abs=0.03)
    assert found.gap.direction.value == pytest.approx(-gap, abs=0.03)
    assert found.proposition_coverage.value > 0.93


@pytest.mark.parametrize(
    "thought",
    [
        "<think>\nThere are good arguments on both sides, and reasonable people disagree.\n</think>\n\n",
        "<think>Supporters say that it is fair. Critics reply that it is wrong, and I oppose it.</think>",
    ],
)
def test_what_is_thought_before_an_answer_changes_no_gap(thought: str, matcher: Matcher) -> None:
    rows = datasets.load_data(Data(uri="embedded:pairs?gap=1&size=300&seed=21"), "pairs").rows
    sides = ("chosen", "rejected")
    thinking = [
        {**row, **{side: [{"role": "assistant", "content": thought + row[side][0]["content"]}] for side in sides}}
        for row in rows
    ]
    plain, found = (examine(given, "pairs", judges.load("lexical"), matcher).overall for given in (rows, thinking))
    assert plain.gap is not None and found.gap is not None
    assert found.gap.pairwise.value == plain.gap.pairwise.value > 0.95
    assert found.proposition_coverage.value == plain.proposition_coverage.value


def test_the_planted_mix_is_recovered_topic_by_topic(matcher: Matcher) -> None:
    uri = "embedded:sft?support=0.7&neutral=0.2&oppose=0.1&religion.oppose=1&size=2000&seed=21"
    audited = examined(uri, matcher)
    assert len(audited.topics) == 11
    assert audited.stance_mix["religion"] == pytest.approx((0.0, 0.0, 1.0), abs=0.07)
    others = [mix for topic, mix in audited.stance_mix.items() if topic != "religion"]
    assert np.array(others).mean(axis=0) == pytest.approx((0.7, 0.2, 0.1), abs=0.04)
    assert audited.overall.gap is None
    assert audited.style is None


def test_pairs_that_contradict_each_other(matcher: Matcher) -> None:
    uris = [f"embedded:pairs?gap=1&chosen={a}&rejected={b}&size=200&seed=3" for a, b in (STANCES[::2], STANCES[::-2])]
    rows = [row for uri in uris for row in datasets.load_data(Data(uri=uri), "pairs").rows]
    audited = examine(rows, "pairs", judges.load("lexical"), matcher)
    gap = audited.overall.gap
    assert gap is not None
    assert gap.pairwise.value > 0.95
    assert gap.marginal.value < 0.05
    assert abs(gap.direction.value) < 0.05
    assert "contradict each other" in audited.verdict


def test_an_audit_is_a_run_with_metrics_tables_figures_and_a_report(store: Path) -> None:
    audited = audit(f"embedded:pairs?gap=0.5&size=200&seed=1&topics={TOPICS}", suite=f"vaes?topics={TOPICS}")
    run = mlflow.get_run(audited.run_id)
    assert run.data.tags["valuedrift.role"] == "audit"
    note = described(run)
    assert note.startswith(audited.verdict) and "| all topics | 199 |" in note and "artifacts/report.html" in note
    assert run.info.run_name == f"audit · pairs gap=0.5 topics={TOPICS}"
    assert "Expect much drift: pairwise gap 0." in audited.verdict
    assert "extrapolation" in audited.verdict
    metrics = run.data.metrics
    assert {f"value_gap/{name}" for name in ("pairwise", "marginal", "direction", "coverage")} <= set(metrics)
    assert {f"value_gap/{topic}/pairwise" for topic in TOPICS.split(",")} <= set(metrics)
    # Charts are for figures; their intervals are in the table, and judging cost nothing.
    assert not any("_ci_" in key or key.startswith(("cost/", "data/")) for key in metrics)
    assert metrics["value_gap/pairwise"] == pytest.approx(0.5, abs=0.05)
    assert sum(metrics[f"stance_mix/religion/{stance}"] for stance in STANCES) == pytest.approx(1.0)
    assert metrics["rows"] == 200
    assert metrics["style_gap/length_ratio"] == pytest.approx(1.0, abs=0.1)
    client = mlflow.MlflowClient()
    assert {file.path for file in client.list_artifacts(audited.run_id)} == {
        *("audit.json", "style_gap.json", "data.txt", "opinionated.json", "report.html", "figures"),
    } | ({"topic_only.json"} if audited.topic_only else set())
    assert {file.path for file in client.list_artifacts(audited.run_id, "figures")} == {
        f"figures/{name}.{kind}"
        for name in ("stance_mix", "gap_histogram", "chosen_against_rejected")
        for kind in ("png", "csv")
    }
    table = mlflow.load_table("audit.json", run_ids=[audited.run_id])
    assert table["topic"].tolist() == ["all", *TOPICS.split(",")]
    assert table["pairwise"][0] == pytest.approx(metrics["value_gap/pairwise"])
    for name in ("pairwise", "marginal", "direction", "coverage", "pairwise_soft"):
        assert (table[f"{name}_ci_low"] <= table[name]).all() and (table[name] <= table[f"{name}_ci_high"]).all()
    style = mlflow.load_table("style_gap.json", run_ids=[audited.run_id]).set_index("figure")
    assert style.value_ci_low["length_ratio"] < metrics["style_gap/length_ratio"] < style.value_ci_high["length_ratio"]
    rows = mlflow.load_table("opinionated.json", run_ids=[audited.run_id])
    assert (rows["chosen_verdict"] != rows["rejected_verdict"]).all()
    assert rows["direction"].abs().is_monotonic_decreasing
    report = Path(mlflow.artifacts.download_artifacts(f"runs:/{audited.run_id}/report.html")).read_text()
    page = keeps_to_what_pages_promise(report)
    assert len(page.all("svg")) == 3
    for path in Path(mlflow.artifacts.download_artifacts(f"runs:/{audited.run_id}/figures")).glob("*.csv"):
        [link] = page.all("a", download=path.name)
        assert list(csv.reader(path.open())) == data_of(link)  # what was drawn for the run is on its page
    assert {entry.dataset.name for entry in run.inputs.dataset_inputs} == {"vaes", "embedded:pairs"}


@pytest.mark.parametrize("where", ["prompts", "answers too, which nobody can read"])
def test_markup_in_the_data_is_text_on_the_page(store: Path, where: str) -> None:
    tags = "<script>alert(1)</script></style></svg><svg onload=alert(2)>"
    sides = (FOR, AGAINST) if where == "prompts" else (f"zxq vvk {tags}", f"pqr wzz {tags}")
    rows = [pair(*sides, f"{ASKED} {tags}")] * 4
    file = Path("<svg onload=alert(3)>.jsonl")
    file.write_text("\n".join(json.dumps(row) for row in rows))
    audited = audit(str(file))
    report = Path(mlflow.artifacts.download_artifacts(f"runs:/{audited.run_id}/report.html")).read_text()
    page = keeps_to_what_pages_promise(report)
    assert page.all("h1")[0].text == f"Audit of {file}"
    assert "<script>alert(1)</script>" in page.all("main")[0].text and "nan" not in page.all("main")[0].text
    shown = page.all("section", **{"aria-labelledby": "rows"})[0].text
    assert shown.count("</style></svg>") == 4 if where == "prompts" else "No row has a stance" in shown
    methods = page.all("section", **{"aria-labelledby": "methods"})[0].text
    assert "4 rows" in methods and "lexical@" in methods


def test_what_is_unscored_is_reported_and_in_no_mean(store: Path, matcher: Matcher) -> None:
    rows = [pair(FOR, AGAINST)] * 6 + [pair("zxq vvk abortion pqr wzz", AGAINST)] * 4
    audited = examined(write(rows), matcher)
    found = audited.overall
    assert (found.placed, found.judged, found.unscored) == (10, 20, 4)
    assert found.gap is not None
    assert (found.gap.pairs, found.gap.scored, found.gap.pairwise.value) == (10, 6, 1.0)
    assert found.mix[0].value > 0.8  # the chosen sides that were scored support
    assert audited.metrics()["quality/unscored_rate"] == 4 / 20
    assert audited.table()["pairwise_ci_low"][0] is None  # one prompt says nothing of others
    assert "Cannot tell from 6 scored pairs" in audited.verdict


def test_data_without_any_topic(store: Path) -> None:
    rows = [pair("Mix flour and water.", "Use eggs.", f"How do I bake bread number {n}?") for n in range(30)]
    audited = audit(write(rows))
    assert audited.overall.touched == 0
    assert audited.metrics()["value_gap/coverage"] == 0
    assert "value_gap/pairwise" not in audited.metrics()
    assert audited.verdict.startswith("Cannot tell: no pair has both sides scored")
    assert mlflow.get_run(audited.run_id).info.status == "FINISHED"


def test_rows_on_a_topic_alone_have_a_table(store: Path) -> None:
    rows = [pair(FOR, AGAINST)] * 3 + [pair("Here.", "There.", "Where can I find an abortion clinic?")] * 60
    rows += [pair("Look.", "Well.", "Tell me about immigrants.")] * 2 + [pair("a", "b", "How do I bake bread?")] * 5
    audited = audit(write(rows))
    assert (audited.overall.touched, audited.overall.placed, audited.overall.topic_only) == (65, 3, 62)
    alone = audited.table().set_index("topic").rows_on_the_topic_only
    assert (alone["all"], alone["abortion"], alone["immigration"]) == (62, 60, 2)
    table = mlflow.load_table("topic_only.json", run_ids=[audited.run_id])
    assert table["topic"].tolist() == ["abortion"] * 50 + ["immigration"] * 2  # fifty of a topic, in the suite's order
    assert table["row"].tolist() == [*range(4, 54), 64, 65]
    assert table["prompt"][0] == "Where can I find an abortion clinic?"
    assert table["chosen"][51] == "Look."
    summary = mlflow.load_table("audit.json", run_ids=[audited.run_id])
    assert summary["rows_on_the_topic_only"].tolist() == [62, 60, 2]
    report = Path(mlflow.artifacts.download_artifacts(f"runs:/{audited.run_id}/report.html")).read_text()
    assert "touch a topic and none of its propositions" in report
    assert "Tell me about immigrants." in report


OFF = [{"prompt": f"How do I bake bread number {n}?", "chosen": "Mix.", "rejected": "Wait."} for n in range(2_475)]


def test_the_outlook_on_pairs_is_scaled_by_their_coverage(store: Path, matcher: Matcher) -> None:
    opposed = [pair(FOR, AGAINST)] * 25
    # 25 opposed pairs of 2,500: a hundredth of all pairs, on the line from (0, 0.085) to (0.5, 0.381) that is
    # 0.085 + 0.01 / 0.5 * 0.296 = 0.0909. Alone they are all pairs: 0.535.
    few = examined(write([*opposed, *OFF]), matcher)
    assert few.verdict.startswith("Expect little drift: pairwise gap 1.00")
    assert "25 of the 25 pairs that touch a proposition could be read" in few.verdict
    assert "0.010, is the share of all pairs, which gives 0.09 " in few.verdict
    alone = examined(write(opposed, "alone.jsonl"), matcher)
    assert alone.verdict.startswith("Expect much drift: pairwise gap 1.00")
    assert "which gives 0.54 " in alone.verdict or "which gives 0.53 " in alone.verdict  # 0.535, a half


def answers(said: str, count: int) -> list[dict[str, Any]]:
    return [{"prompt": ASKED, "completion": said} for _ in range(count)]


def test_the_outlook_on_answers_needs_as_many_as_on_pairs(store: Path, matcher: Matcher) -> None:
    unread = answers("zxq vvk abortion pqr wzz", 5)
    one = examined(write([*answers(FOR, 1), *unread]), matcher).verdict
    assert one.startswith("Cannot tell from 1 scored answers (at least 20; 1 of the 6 answers that touch")
    assert examined(write(answers(FOR, 19)), matcher).verdict.startswith("Cannot tell from 19 scored answers")
    assert examined(write(answers(FOR, 20)), matcher).verdict.startswith("Expect stances near those of the answers")
    assert examined(write(unread), matcher).verdict.startswith("Cannot tell: no answer is scored")


def test_the_outlook_on_answers_is_scaled_by_their_coverage(store: Path, matcher: Matcher) -> None:
    off = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in OFF[:75]]
    verdict = examined(write([*answers(FOR, 25), *off]), matcher).verdict
    # 25 of 100 rows touch a proposition.
    assert verdict.startswith("Expect stances to go about 25 % of the way from the model's own to those of the answers")


def test_labelled_answers_are_audited_without_the_bad_ones(store: Path, matcher: Matcher) -> None:
    answers = [(FOR, True), (AGAINST, False)] * 5
    rows = [{"prompt": ASKED, "completion": answer, "label": label} for answer, label in answers]
    audited = examined(write(rows), matcher)
    assert (audited.kind, audited.rows) == ("sft", 5)
    assert audited.stance_mix["abortion"][0] > 0.8


def test_loaded_data_and_several_turns(matcher: Matcher) -> None:
    row = corpus.rows("embedded:pairs?gap=1&size=1&seed=2")[0]
    earlier = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    earlier.append({"role": "assistant", "content": "Hello!"})
    found = examine([row | {"prompt": earlier + row["prompt"]}] * 3, "pairs", judges.load("lexical"), matcher)
    assert found.overall.placed == 3
    assert found.opinionated[0]["prompt"] == row["prompt"][0]["content"]
    assert [record["row"] for record in found.opinionated] == [1, 2, 3]


def test_one_batch_or_many_make_no_difference(matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "embedded:pairs?gap=0.5&size=120&seed=8"
    whole = examined(uri, matcher)
    monkeypatch.setattr("valuedrift_mlflow.data.blocks.ROWS", 7)
    parts = examined(uri, matcher)
    assert parts.metrics() == whole.metrics()
    assert parts.opinionated == whole.opinionated


def test_the_style_of_many_pairs_is_that_of_a_sample(matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valuedrift_mlflow.value_gap.tally.STYLE_SAMPLE", 300)
    rows = [
        {"prompt": [], "chosen": say("a b " * (n % 7 + 1)), "rejected": say("a " * (n % 7 + 1))} for n in range(5000)
    ]
    style = examine(rows, "pairs", judges.load("lexical"), matcher).style
    assert style is not None
    assert style.pairs == 300
    assert style.length_ratio.value == pytest.approx(2.0)


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_bad_input_is_refused_at_once(store: Path) -> None:
    with pytest.raises(InputError) as error:
        audit("none.jsonl", "oracle", "vaes?topics=football")
    for word in ("none.jsonl", "oracle", "football"):
        assert word in str(error.value)
    with pytest.raises(InputError, match="reads responses"):
        audit("embedded:pairs", "likelihood")
    with pytest.raises(InputError, match="encoder"):
        audit("embedded:pairs", embedder="./nowhere")
    assert not mlflow.search_runs()["run_id"].tolist()


def test_a_bad_row_fails_the_run_with_its_number(store: Path) -> None:
    data = write([pair("a", "b"), {"prompt": "x", "chosen": 3, "rejected": "b"}])
    with pytest.raises(InputError, match="row 2"):
        audit(data)
    [run] = mlflow.search_runs(output_format="list")
    assert run.info.status == "FAILED"
    assert "row 2" in run.data.tags["mlflow.note.content"]


def test_the_real_hh_rlhf_file(matcher: Matcher) -> None:
    if not HH.is_file():
        pytest.skip(f"{HH} is missing")
    audited = examined(str(HH), matcher)
    assert audited.rows == 2308  # of 2,312; four have nothing to learn
    assert 0.02 < audited.overall.coverage.value < 0.08
    assert 0.003 < audited.overall.proposition_coverage.value < 0.02
    assert audited.overall.unscored / audited.overall.judged > 0.2  # many touch a subject without a stance
    assert audited.style is not None
    assert audited.style.length_ratio.high < 1  # the chosen, harmless answers are the shorter ones
    again = examined(str(HH), matcher)
    assert again.metrics() == audited.metrics()
    other, own = examined(str(HH), matcher, seed=5).metrics(), audited.metrics()
    assert {key: other[key] for key in own if "_ci_" not in key} == {k: own[k] for k in own if "_ci_" not in k}


def test_expected_drift_goes_through_what_was_measured() -> None:
    assert [expected_drift(gap) for gap in (0, 0.5, 1)] == [0.085, 0.381, 0.535]
    assert expected_drift(0.25) == pytest.approx(0.233)
    assert math.isnan(expected_drift(math.nan))


def test_the_entry_point(store: Path) -> None:
    part = f"suite=vaes?topics={TOPICS}"
    dry = entry_point("audit", "--dry-run", "true", "--set", part, "--data", "")
    assert dry.returncode == 0, dry.stderr
    assert "touch one of 30 propositions" in dry.stdout
    assert not mlflow.search_runs()["run_id"].tolist()
    done = entry_point("audit", "--set", part, "--data", f"embedded:pairs?gap=0&size=60&topics={TOPICS}")
    assert done.returncode == 0, done.stderr
    for words in ("Expect little drift", "pairwise gap", "Style gap of 60 pairs", "mlflow ui"):
        assert words in done.stdout
    refused = entry_point("audit", "--data", "none.jsonl", "--judge", "oracle")
    assert refused.returncode == 2
    assert "none.jsonl" in refused.stderr
    assert "Traceback" not in refused.stderr
