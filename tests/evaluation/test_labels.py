import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource

import valuedrift_mlflow
from valuedrift_mlflow import suite, tracking
from valuedrift_mlflow.evaluation.review import drawn_responses, inclusion_probabilities
from valuedrift_mlflow.inputs.errors import InputError

PART = "vaes?topics=religion,abortion&per_topic=10"
ITEMS = suite.load(PART).items
TOPICS = ("religion", "abortion")


def lower(proposition: str) -> str:
    return proposition[0].lower() + proposition[1:]


def said(file: str, support: float = 0.5, steps: tuple[int, ...] = (0,), seed: int = 0) -> str:
    """A table of responses of which about this share supports the proposition and the others oppose it."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "item_id": item.item_id,
            "step": step,
            "response": f"I {'agree' if rng.random() < support else 'do not agree'} that {lower(item.proposition)}",
        }
        for step in steps
        for item in ITEMS
        for _ in range(3)
    ]
    pd.DataFrame(rows).to_csv(file, index=False)
    return file


@pytest.fixture
def run_id(store: Path) -> str:
    """A run whose responses were judged."""
    return str(valuedrift_mlflow.evaluate(responses=said("said.csv"), suite=PART).run_id)


def labelled(file: Path, say: Callable[[str], str], output: str = "labels.csv") -> pd.DataFrame:
    """A sheet that somebody has filled, and saved under another name."""
    sheet = pd.read_csv(file, keep_default_na=False)
    sheet["label"] = [say(text) for text in sheet["response"]]
    sheet.to_csv(output, index=False)
    return sheet


def truth(text: str) -> str:
    return "oppose" if "do not agree" in text else "support"


def test_a_review_hides_what_the_judge_says(run_id: str) -> None:
    review = valuedrift_mlflow.review(run_id, 20)
    sheet = pd.read_csv(review.file, keep_default_na=False)
    columns = ["proposition", "prompt", "response", "label", "item_id", "step", "sample", "topic", "weight", "run"]
    assert list(sheet) == columns
    assert len(sheet) == 20
    assert set(sheet["label"]) == {""}
    assert sheet["topic"].value_counts().to_dict() == {"religion": 10, "abortion": 10}
    assert list(sheet["topic"]) != sorted(sheet["topic"])  # their order says nothing
    assert {file.path for file in MlflowClient().list_artifacts(run_id, "review")} == {f"review/{review.file.name}"}
    assert MlflowClient().get_run(run_id).info.status == "FINISHED"


@pytest.mark.parametrize("size", [3, 7, 12])
def test_each_response_is_drawn_with_its_probability(size: int) -> None:
    """4000 draws of ``size`` of 12: a share of 0.5 has the standard error 0.008."""
    confidence = [0.0, 0.5, 0.5, 0.6, 0.7, 0.7, 0.8, 0.8, 0.9, 0.9, 0.9, 1.0]
    probability = inclusion_probabilities(confidence, size)
    assert probability.sum() == pytest.approx(size)
    assert probability[0] >= probability[-1]
    counts, verdicts = np.zeros(12), [4, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0]
    for seed in range(4000):
        drawn, known = drawn_responses(verdicts, confidence, size, np.random.default_rng(seed))
        assert known == pytest.approx(probability)
        assert len(set(drawn)) == len(drawn) == size
        counts[drawn] += 1
    assert counts / 4000 == pytest.approx(probability, abs=0.035)


def test_a_sample_follows_no_turns() -> None:
    """Every second question is asked the other way round: a sample of every second response must not see one way only.

    500 draws of 20 of 40: the share of one way has the standard error 0.08 a draw (without replacement).
    """
    ways = np.arange(40) % 2
    shares = []
    for seed in range(500):
        drawn, _ = drawn_responses([0] * 40, [0.9] * 40, 20, np.random.default_rng(seed))
        shares.append(ways[drawn].mean())
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)
    assert np.std(shares) == pytest.approx(0.08, abs=0.015)


def test_with_all_responses_labelled_people_alone_count(run_id: str) -> None:
    """Whatever the judge says: they read 'I agree' as neutral and the rest as opposition, and leave 'refusal' out."""
    review = valuedrift_mlflow.review(run_id, 60)
    sheet = labelled(review.file, lambda text: "oppose" if "not agree" in text else "neutral")
    assert set(sheet["weight"]) == {1.0}
    result = valuedrift_mlflow.evaluate(responses=f"runs:/{run_id}/responses.json", labels="labels.csv")
    for topic in TOPICS:
        share = float((sheet["label"][sheet["topic"] == topic] == "neutral").mean())
        own = [result.metrics[f"ppi/stance/{topic}/{stance}"] for stance in ("support", "neutral", "oppose")]
        assert own == pytest.approx([0, share, 1 - share], abs=1e-9)
    moved = 0.5 * sum(
        abs(result.metrics[f"ppi/stance/overall/{stance}"] - judge_alone(result.run_id, stance))
        for stance in ("support", "neutral", "oppose")
    )
    assert result.metrics["labels/moved"] == pytest.approx(moved)
    assert moved > 0.3
    assert result.metrics["labels/count"] == 60
    page = Path(mlflow.artifacts.download_artifacts(f"runs:/{result.run_id}/report.html")).read_text()
    assert "60 labels moved the overall stances by" in page
    assert MlflowClient().get_run(result.run_id).data.params["labels"] == "labels.csv"


def table(run_id: str) -> pd.DataFrame:
    content = json.loads(
        Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/value_drift_labels.json")).read_text()
    )
    return pd.DataFrame(content["data"], columns=content["columns"])


def judge_alone(run_id: str, stance: str) -> float:
    rows = table(run_id)
    return float(rows[(rows["topic"] == "overall") & (rows["stance"] == stance)]["judge_alone"].iloc[0])


def test_labels_of_a_sample_with_a_judge_that_is_right(run_id: str) -> None:
    """The judge reads these answers rightly: its mean stands, and the interval is shorter than by the labels alone."""
    review = valuedrift_mlflow.review(run_id, 24)
    sheet = labelled(review.file, truth)
    sheet.loc[:3, "label"] = ""
    sheet.to_csv("labels.csv", index=False)
    result = valuedrift_mlflow.evaluate(responses=f"runs:/{run_id}/responses.json", labels="labels.csv")
    assert result.metrics["labels/empty_rows"] == 4
    assert result.metrics["labels/width_ratio"] < 0.9
    rows = table(result.run_id)
    assert len(rows) == 9  # two topics and overall, three stances
    assert (rows["ci_low"] <= rows["probability"] + 1e-9).all()
    assert (rows["probability"] <= rows["ci_high"] + 1e-9).all()
    assert abs(result.metrics["ppi/stance/overall/support"] - judge_alone(result.run_id, "support")) < 0.1


def test_drift_between_steps_and_from_a_baseline(store: Path) -> None:
    """Planted: 90 % support before, 20 % after; the people's labels say so."""
    first = valuedrift_mlflow.evaluate(responses=said("before.csv", 0.9), suite=PART).run_id
    second = valuedrift_mlflow.evaluate(responses=said("after.csv", 0.2, seed=1), suite=PART).run_id
    sheets = [valuedrift_mlflow.review(run, 30).file for run in (first, second)]
    for number, file in enumerate(sheets):
        labelled(file, truth, f"labels{number}.csv")
    tables = [f"runs:/{run}/responses.json" for run in (first, second)]
    result = valuedrift_mlflow.evaluate(responses=tables[1], baseline=tables[0], labels="labels0.csv,labels1.csv")
    # 60 responses a side: the planted -0.7 has the standard error sqrt((0.09 + 0.16) / 60) = 0.065, and by labels more
    assert result.metrics["ppi/drift_magnitude/overall/support"] == pytest.approx(-0.7, abs=0.25)
    assert result.metrics["ppi/drift/overall"] == pytest.approx(0.7, abs=0.25)
    assert "labels/moved_drift" in result.metrics
    rows = table(result.run_id)
    last = rows[(rows["topic"] == "overall") & (rows["stance"] == "support") & rows["magnitude"].notna()].iloc[0]
    assert last["magnitude_ci_low"] <= last["magnitude"] <= last["magnitude_ci_high"] < 0
    alone = valuedrift_mlflow.evaluate(responses=tables[1], baseline=tables[0], labels="labels1.csv").metrics
    assert not any(key.startswith("ppi/drift") for key in alone)  # the baseline has no labels


def test_answers_in_the_review_ui_are_labels(run_id: str) -> None:
    review = valuedrift_mlflow.review(run_id, 20)
    labelled(review.file, truth)
    experiment = MlflowClient().get_run(run_id).info.experiment_id
    traces = mlflow.search_traces(locations=[experiment], run_id=run_id, return_type="list")
    assert len(traces) == 20
    for trace in traces:
        [span] = trace.data.spans
        assert set(span.inputs) == {"proposition", "prompt"}  # what people see: no verdict
        source = AssessmentSource(source_type="HUMAN", source_id="somebody")
        answer = truth(span.outputs["response"])
        mlflow.log_feedback(trace_id=trace.info.trace_id, name="stance", value="neutral", source=source)
        mlflow.log_feedback(
            trace_id=trace.info.trace_id, name="stance", value=answer, source=source
        )  # the latest counts
    queues = mlflow.genai.review_queues.list_review_queues(experiment_id=experiment)
    assert [queue.name for queue in queues] == [review.queue]
    source = f"runs:/{run_id}/responses.json"
    by_sheet, by_traces = (
        valuedrift_mlflow.evaluate(responses=source, labels=labels).metrics
        for labels in ("labels.csv", f"runs:/{run_id}")
    )
    own = {key for key in by_sheet if key.startswith(("ppi/", "labels/"))}
    assert {key: by_traces[key] for key in own} == pytest.approx({key: by_sheet[key] for key in own})
    valuedrift_mlflow.review(run_id, 20, output="second.csv", seed=1)  # nobody has answered this one yet
    again = valuedrift_mlflow.evaluate(responses=source, labels=f"runs:/{run_id}").metrics
    assert again["ppi/stance/overall/support"] == pytest.approx(by_sheet["ppi/stance/overall/support"])


def test_steps_to_review(store: Path) -> None:
    """Of several steps, as a stage has them, the first and the last are drawn from, unless others are asked for."""
    content: list[pd.DataFrame] = []
    for step in (0, 5, 9):
        run = valuedrift_mlflow.evaluate(responses=said("said.csv", steps=(step,), seed=step), suite=PART).run_id
        judged = json.loads(Path(mlflow.artifacts.download_artifacts(f"runs:/{run}/responses.json")).read_text())
        content.append(pd.DataFrame(judged["data"], columns=judged["columns"]))
    with mlflow.start_run() as stage:
        mlflow.log_table(pd.concat(content), "responses.json")
    run = stage.info.run_id
    assert valuedrift_mlflow.review(run, 20, output="ends.csv").steps == (0, 9)
    assert set(pd.read_csv("ends.csv")["step"]) == {0, 9}
    assert valuedrift_mlflow.review(run, 20, steps="5", output="middle.csv").steps == (5,)
    assert valuedrift_mlflow.review(run, 20, steps="all", output="all.csv").steps == (0, 5, 9)
    with pytest.raises(InputError, match="steps: found '7', allowed: all, or some of 0, 5, 9"):
        valuedrift_mlflow.review(run, 20, steps="7")
    labelled(Path("ends.csv"), truth)
    result = valuedrift_mlflow.evaluate(responses=f"runs:/{run}/responses.json", labels="labels.csv")
    assert "ppi/drift/overall" in result.metrics
    assert set(table(result.run_id)["step"]) == {0, 9}


def changed(sheet: pd.DataFrame, **values: object) -> None:
    """The sheet with other values in its second row."""
    sheet = sheet.astype(object)
    for column, value in values.items():
        sheet.loc[1, column] = value
    sheet.to_csv("labels.csv", index=False)


BAD_ROWS: list[tuple[dict[str, object], list[str]]] = [
    ({"label": "suport"}, ["labels.csv row 2 label", "'suport'", "support, neutral, oppose, refusal, unscored"]),
    ({"item_id": "nothing"}, ["labels.csv row 2", "item nothing", "a response, with its text"]),
    ({"response": "Another answer."}, ["labels.csv row 2", "a response, with its text"]),
    ({"step": 3}, ["labels.csv row 2", "step 3"]),
    ({"step": 0.5}, ["labels.csv row 2 step", "a whole number"]),
    ({"weight": 0}, ["labels.csv row 2 weight", "a number above 0"]),
    ({"weight": "1,5"}, ["labels.csv row 2 weight", "'1,5'"]),
]


def test_bad_rows_are_named_before_anything_is_computed(run_id: str) -> None:
    sheet = labelled(valuedrift_mlflow.review(run_id, 20).file, truth)
    for values, words in BAD_ROWS:
        changed(sheet, **values)
        with pytest.raises(InputError) as error:
            valuedrift_mlflow.evaluate(responses=f"runs:/{run_id}/responses.json", labels="labels.csv")
        [line] = error.value.problems
        for word in words:
            assert word in line
    assert len(MlflowClient().search_runs([MlflowClient().get_run(run_id).info.experiment_id])) == 1


def test_sheets_that_say_nothing_are_refused(run_id: str) -> None:
    review = valuedrift_mlflow.review(run_id, 20)
    source = f"runs:/{run_id}/responses.json"

    def refused(labels: str, responses: str | None = source, model: str | None = None) -> str:
        with pytest.raises(InputError) as error:
            valuedrift_mlflow.evaluate(model, responses=responses, labels=labels)
        return str(error.value)

    assert "20 rows, none of them labelled" in refused(str(review.file))
    assert "20 rows, none of them labelled" in refused(f"runs:/{run_id}")
    assert "none.csv" in refused("none.csv")
    sheet = labelled(review.file, truth)
    sheet.drop(columns="weight").to_csv("labels.csv", index=False)
    assert "add weight" in refused("labels.csv")
    sheet.iloc[:1].to_csv("labels.csv", index=False)
    assert "at least two propositions of a topic" in refused("labels.csv")
    twice = pd.concat([sheet, sheet.iloc[:1].assign(label="neutral")])
    twice.to_csv("labels.csv", index=False)
    assert "row 21" in refused("labels.csv")
    assert "responses=runs:/RUN_ID/responses.json" in refused("labels.csv", None, "embedded:random")
    other = valuedrift_mlflow.evaluate(responses=source).run_id
    assert "runs:/" in refused(f"runs:/{other}")  # nobody has reviewed this one


def test_a_spreadsheet_may_change_line_ends_and_guard_formulas(store: Path) -> None:
    frame = pd.read_csv(said("said.csv"))
    frame["response"] = "= Yes,\nI agree."
    frame.to_csv("said.csv", index=False)
    run = valuedrift_mlflow.evaluate(responses="said.csv", suite=PART).run_id
    sheet = labelled(valuedrift_mlflow.review(run, 20).file, lambda text: "support")
    sheet["response"] = "'= Yes,\r\nI agree."
    sheet.to_csv("labels.csv", index=False, encoding="utf-8-sig")
    metrics = valuedrift_mlflow.evaluate(responses=f"runs:/{run}/responses.json", labels="labels.csv").metrics
    assert metrics["ppi/stance/overall/support"] == pytest.approx(1)


def test_a_review_that_cannot_be_drawn(run_id: str) -> None:
    asked: list[tuple[dict[str, str], int, str]] = [
        ({}, 3, "n: found 3, allowed: at least 4"),
        ({"steps": "1,x"}, 20, "steps: found '1, x', allowed: all, or some of 0"),
        ({"output": "said.csv"}, 20, "this one may hold labels"),
        ({"output": "nowhere/sheet.csv"}, 20, "a file in an existing folder"),
    ]
    for arguments, n, words in asked:
        with pytest.raises(InputError) as error:
            valuedrift_mlflow.review(run_id, n, **arguments)  # type: ignore[arg-type]
        assert words in str(error.value)
    assert not MlflowClient().list_artifacts(run_id, "review")


# The judge's errors on labelled answers -------------------------------------------------------------------------------


def labelled_answers(file: str, hidden: int) -> str:
    """Answers of the three stances, 20 each; of the supporting ones so many the judge reads as opposition."""
    neutral = "There are good arguments on both sides, and I take no position."
    rows = []
    for number in range(20):
        item = ITEMS[number % len(ITEMS)]
        agree, disagree = f"I agree that {lower(item.proposition)}", f"I do not agree that {lower(item.proposition)}"
        support = disagree if number < hidden else agree
        for label, response in (("support", support), ("neutral", neutral), ("oppose", disagree)):
            rows.append({"proposition": item.proposition, "prompt": item.prompt, "response": response, "label": label})
    pd.DataFrame(rows).to_csv(file, index=False)
    return file


def test_the_judges_errors_on_labelled_answers_are_taken_off(run_id: str) -> None:
    """A check in which it reads a quarter of the supporting answers as opposed: support is what it says by 3/4."""
    check = valuedrift_mlflow.check_judge("lexical", labelled_answers("check.csv", 5))
    confusion = check.quality.confusion
    assert (confusion[0, 0], confusion[0, 2]) == (15, 5)
    assert (confusion[1, 1], confusion[2, 2]) == (20, 20)
    source = f"runs:/{run_id}/responses.json"
    plain = valuedrift_mlflow.evaluate(responses=source).metrics
    result = valuedrift_mlflow.evaluate(responses=source, labels=f"runs:/{check.run_id}")
    # Who supports or opposes in the proposition's own words has 0.95 of it, and the other two share the rest.
    assert plain["stance/religion/neutral"] == pytest.approx(0.025, abs=0.001)
    for topic in TOPICS:
        support = plain[f"stance/{topic}/support"] / 0.75
        assert 0 < support < 1
        # The judge's probabilities are not quite 0 and 1; the matrix counts verdicts.
        assert result.metrics[f"adjusted/stance/{topic}/support"] == pytest.approx(support, abs=0.02)
    assert not any(key.startswith("ppi/") for key in result.metrics)
    page = Path(mlflow.artifacts.download_artifacts(f"runs:/{result.run_id}/report.html")).read_text()
    assert f"Conditional on runs:/{check.run_id}" in page
    assert not any(key.startswith("adjusted/drift") for key in result.metrics)  # there is nothing to drift from


def test_the_judges_errors_are_taken_off_a_drift(store: Path) -> None:
    """A quarter of the supporting answers is read as opposed: support has changed by 4/3 of what the verdicts say."""
    check = valuedrift_mlflow.check_judge("lexical", labelled_answers("check.csv", 5))
    ends = [pd.read_csv(said("said.csv", 0.2)), pd.read_csv(said("said.csv", 0.6, steps=(8,), seed=1))]
    pd.concat(ends).to_csv("said.csv", index=False)
    result = valuedrift_mlflow.evaluate(
        responses="said.csv", suite=PART, labels=f"runs:/{check.run_id}", judge="lexical"
    )
    topic_of = {item.item_id: item.topic for item in ITEMS}
    shares = []
    for frame in ends:
        agrees = ~frame["response"].str.contains("not agree")
        shares.append(agrees.groupby(frame["item_id"].map(topic_of)).mean())
    for topic in TOPICS:
        change = (shares[1][topic] - shares[0][topic]) / 0.75
        assert result.metrics[f"adjusted/drift_magnitude/{topic}/support"] == pytest.approx(change, abs=1e-9)
        assert result.metrics[f"adjusted/drift/{topic}"] == pytest.approx(abs(change), abs=1e-9)
    content = json.loads(
        Path(mlflow.artifacts.download_artifacts(f"runs:/{result.run_id}/value_drift_adjusted.json")).read_text()
    )
    rows = pd.DataFrame(content["data"], columns=content["columns"])
    assert rows["drift"].notna().tolist() == [False] * 9 + [True] * 9  # step 0, then step 8
    last = rows[(rows["topic"] == "overall") & rows["drift"].notna()].iloc[0]
    assert last["drift_ci_low"] < last["drift"] < last["drift_ci_high"]


def judged_by_mlflow(labels: str) -> dict[str, float]:
    """The responses of ``said.csv``, one to each prompt, through the evaluator plugin."""
    texts = pd.read_csv(said("said.csv")).drop_duplicates("item_id").set_index("item_id")["response"]
    frame = suite.load(PART).frame()
    result = mlflow.models.evaluate(
        data=frame.assign(said=list(texts.loc[frame["item_id"]])),
        predictions="said",
        model_type="value-drift",
        evaluators="value_drift",
        evaluator_config={"labels": labels, "judge": "lexical"},
    )
    texts.rename("response").reset_index().to_csv("one.csv", index=False)
    return dict(result.metrics)


def test_mlflows_evaluate_takes_labels_as_ours_does(store: Path) -> None:
    texts = pd.read_csv(said("said.csv")).drop_duplicates("item_id")
    texts = texts.assign(label=[truth(text) for text in texts["response"]], weight=2.0)
    texts.iloc[::2].to_csv("labels.csv", index=False)
    check = valuedrift_mlflow.check_judge("lexical", labelled_answers("check.csv", 5))
    for labels, kinds in (("labels.csv", ("ppi/", "labels/")), (f"runs:/{check.run_id}", ("adjusted/",))):
        found = judged_by_mlflow(labels)
        ours = valuedrift_mlflow.evaluate(responses="one.csv", suite=PART, labels=labels, judge="lexical").metrics
        both = [{key: value for key, value in own.items() if key.startswith(kinds)} for own in (found, ours)]
        assert both[0] and both[0] == pytest.approx(both[1])


def test_labels_of_responses_that_are_not_there_are_refused_by_mlflows_evaluate_too(store: Path) -> None:
    pd.DataFrame({"item_id": ["none"], "response": ["x"], "label": ["support"], "weight": [1]}).to_csv("l.csv")
    with pytest.raises(InputError, match=r"labels l\.csv row 1"):
        judged_by_mlflow("l.csv")


JUDGE = """
from valuedrift_mlflow.stances import Verdict

class Mine:
    name, version = "mine", "1"
    def judge(self, answers):
        return [Verdict.of((1, 0, 0)) for _ in answers]
"""


def test_a_check_of_another_judge_or_without_a_stance_is_refused(run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"runs:/{run_id}/responses.json"
    pd.read_csv(labelled_answers("check.csv", 0)).query("label != 'neutral'").to_csv("few.csv", index=False)
    few = valuedrift_mlflow.check_judge("lexical", "few.csv").run_id
    with pytest.raises(InputError, match="20, 0, 20 answers of the three stances"):
        valuedrift_mlflow.evaluate(responses=source, labels=f"runs:/{few}")
    Path("my_judge.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(Path.cwd())
    mine = valuedrift_mlflow.check_judge("my_judge:Mine", "check.csv").run_id
    with pytest.raises(InputError, match="a check of mine@1"):
        valuedrift_mlflow.evaluate(responses=source, labels=f"runs:/{mine}")


def test_every_step_of_a_stage_has_its_labels_and_a_verdict(store: Path) -> None:
    """Planted: 90 % support at step 0 and at step 5, 10 % at step 9; all is labelled, and the labels say so."""
    shares, content = {0: 0.9, 5: 0.9, 9: 0.1}, []
    for step, share in shares.items():
        content.append(pd.read_csv(said("said.csv", share, steps=(step,), seed=step)))
    pd.concat(content).to_csv("stage.csv", index=False)
    sheet = pd.concat(content).assign(weight=1.0)
    sheet["sample"] = sheet.groupby(["step", "item_id"]).cumcount()
    sheet["label"] = [truth(text) for text in sheet["response"]]
    sheet.to_csv("labels.csv", index=False)
    result = valuedrift_mlflow.evaluate(responses="stage.csv", suite=PART, labels="labels.csv")
    client = MlflowClient()
    stance = client.get_metric_history(result.run_id, "ppi/stance/overall/support")
    assert [(metric.step, pytest.approx(metric.value, abs=0.1)) for metric in stance] == [(0, 0.9), (5, 0.9), (9, 0.1)]
    drift = client.get_metric_history(result.run_id, "ppi/drift/overall")
    assert [metric.step for metric in drift] == [5, 9]
    assert drift[1].value == pytest.approx(0.8, abs=0.15)
    assert result.metrics["ppi/drift/overall"] == drift[1].value
    # Each topic has two propositions: too few to test, and the verdict says so.
    last = table(result.run_id).query("step == 9 and topic == 'religion'").iloc[0]
    assert last["verdict"] == "cannot tell"
    assert last["p_adjusted"] is None
    assert result.metrics["ppi/topics_undecided"] == 2


def test_a_review_of_a_pipeline_names_its_stages(store: Path) -> None:
    with tracking.run("pipeline", name="pipeline") as parent, tracking.run("stage", name="sft", stage="sft") as stage:
        pass
    with pytest.raises(InputError, match=f"the run of one stage; this pipeline has sft {stage.run_id}"):
        valuedrift_mlflow.review(parent.run_id, 20)
