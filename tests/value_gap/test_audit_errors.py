"""Audits by a judge that reads 26 % of support as opposition and 21 % of opposition as support."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from working_folder import working_in

from valuedrift_mlflow import judges
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.judges import labelled
from valuedrift_mlflow.stances import Answer, Label, Verdict
from valuedrift_mlflow.value_gap.audit import audit, prepare
from valuedrift_mlflow.value_gap.findings import Audit

TRUTH = {entry.answer.response: entry.label for entry in labelled.load_answers("real")}
READ = {"support": (0.74, 0.0, 0.26), "neutral": (0.05, 0.9, 0.05), "oppose": (0.21, 0.0, 0.79)}
STANCES = tuple(READ)
SIZE = 400


class Erring:
    """Knows the stance of labelled texts, reads that of embedded ones, and errs by a number that the text gives."""

    name = "erring"

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        plain = judges.load("lexical").judge(answers)
        return [self._erred(answer, verdict) for answer, verdict in zip(answers, plain, strict=True)]

    def _erred(self, answer: Answer, verdict: Verdict) -> Verdict:
        true = TRUTH.get(answer.response, verdict.label)
        if true in (Label.REFUSAL, Label.UNSCORED):
            return Verdict(true)
        chance = zlib.crc32(f"{answer.prompt}|{answer.response}".encode()) / 2**32
        support, neutral, _ = READ[true.value]
        said = "support" if chance < support else "neutral" if chance < support + neutral else "oppose"
        return Verdict.of([float(said == stance) for stance in STANCES])


def pairs(gap: float) -> str:
    """Embedded pairs of this gap in a file, which says nothing of their stances."""
    rows = list(datasets.stream(Data(uri=f"embedded:pairs?gap={gap}&size={SIZE}&seed=3")))
    name = f"gap{gap}.jsonl"
    kept = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in kept))
    return name


@pytest.fixture(scope="module")
def agreeing(shared_folder: Path) -> Audit:
    with working_in(shared_folder):
        return audit(pairs(0), Erring())


def test_errors_alone_are_no_gap(agreeing: Audit) -> None:
    """Pairs whose sides agree: about 1 - .74^2 - .26^2 = .38 of support, .33 of opposition, .19 of neutral differ."""
    table = agreeing.table().set_index("topic")
    found = table.loc["all"]
    assert found.pairwise == agreeing.metrics()["value_gap/pairwise"] > 0.2
    assert found.of_error == pytest.approx(found.pairwise, abs=0.12)
    assert found.of_error_ci_low < found.pairwise < found.of_error_ci_high
    assert found.adjusted_ci_low == 0
    assert table.loc["abortion"].adjusted >= 0
    assert agreeing.verdict.startswith(("Cannot tell: the judge's errors alone explain the gap", "Expect little"))


def test_opposed_pairs_are_told_through_the_errors(store: Path) -> None:
    audited = audit(pairs(1), Erring())
    metrics = audited.metrics()
    assert metrics["value_gap/pairwise"] < 0.8
    assert metrics["value_gap/adjusted"] > 0.85
    assert audited.table()["adjusted_ci_low"][0] > 0.3
    assert audited.verdict.startswith(("Expect much drift", "Expect some to much drift"))
    report = Path(mlflow.artifacts.download_artifacts(f"runs:/{audited.run_id}/report.html")).read_text()
    assert "errors off" in report


def filled(run_id: str, label: str = "neutral") -> pd.DataFrame:
    """The sheet of an audit as somebody has filled it: the same stance on both sides of every pair."""
    sheet = pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/to_label.csv"), keep_default_na=False)
    sheet["chosen_label"] = sheet["rejected_label"] = label
    return sheet


def test_labels_of_a_few_rows_say_that_there_is_no_gap(agreeing: Audit, shared_folder: Path) -> None:
    with working_in(shared_folder):
        sheet = filled(agreeing.run_id)
        assert len(sheet) == 100 and sheet["row"].is_unique
        assert not {"verdict", "chosen_verdict"} & set(sheet)
        sheet.to_csv("labels.csv", index=False)
        again = audit("gap0.jsonl", Erring(), labels="labels.csv")
    metrics = again.metrics()
    assert metrics["labels/count"] == 100
    # 100 labels without a gap: what is left is what a hundred rows can miss.
    assert metrics["ppi/value_gap/pairwise"] == pytest.approx(0, abs=0.03)
    assert again.table()["ppi_pairwise_ci_high"][0] < 0.1
    assert metrics["value_gap/pairwise"] == agreeing.metrics()["value_gap/pairwise"]
    assert again.verdict.startswith("Expect little drift")
    assert "with people's labels of 100 rows" in again.verdict


def test_labels_of_answers_mend_their_mix(store: Path) -> None:
    """Answers that all support, of which the judge reads 26 % as opposition: people say support of every one."""
    rows = datasets.stream(Data(uri="embedded:sft?support=1&neutral=0&oppose=0&size=300&seed=4"))
    kept = [{key: row[key] for key in ("prompt", "completion")} for row in rows]
    Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    first = audit("answers.jsonl", Erring())
    assert first.overall.mix[0].value < 0.85
    sheet = pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{first.run_id}/to_label.csv"))
    sheet.assign(completion_label="support").to_csv("labels.csv", index=False)
    second = audit("answers.jsonl", Erring(), labels="labels.csv")
    metrics = second.metrics()
    assert metrics["ppi/stance_mix/overall/support"] == pytest.approx(1, abs=0.03)
    assert metrics["ppi/stance_mix/overall/oppose"] == pytest.approx(0, abs=0.03)
    assert second.table().set_index("topic").loc["abortion"].ppi_support == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"row": SIZE + 7}, f"row {SIZE + 7}, turn 0', allowed: a row of the data"),
        ({"chosen": "Something else."}, "the texts of that row"),
        ({"chosen_label": "perhaps"}, "row 1 chosen_label"),
        ({"weight": -1}, "row 1 weight"),
        ({"weight": 0}, "row 1 weight"),
        ({"rejected_label": ""}, "row 1 rejected_label: found 'nothing', allowed: labels of both sides"),
        ({"row": "x"}, "whole numbers"),
    ],
)
def test_labels_of_other_rows_are_refused(
    change: dict[str, object], told: str, agreeing: Audit, shared_folder: Path
) -> None:
    with working_in(shared_folder):
        sheet = filled(agreeing.run_id).head(3).astype(object)
        for column, value in change.items():
            sheet.loc[0, column] = value
        sheet.to_csv("wrong.csv", index=False)
        with pytest.raises(InputError, match=told):
            prepare("gap0.jsonl", "lexical", labels="wrong.csv")


def test_a_sheet_that_nobody_has_filled_is_refused(agreeing: Audit, shared_folder: Path) -> None:
    with working_in(shared_folder):
        with pytest.raises(InputError, match="none of them labelled"):
            prepare("gap0.jsonl", "lexical", labels=f"runs:/{agreeing.run_id}/to_label.csv")
        with pytest.raises(InputError, match=r"labels: found 'none\.csv'"):
            prepare("gap0.jsonl", "lexical", labels="none.csv")
