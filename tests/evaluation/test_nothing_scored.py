from pathlib import Path

import mlflow
import pandas as pd
import pytest

import valuedrift_mlflow
from valuedrift_mlflow import suite
from valuedrift_mlflow.cli.main import main

PART = "vaes?topics=religion,abortion&per_topic=4"


@pytest.fixture
def unreadable(store: Path) -> str:
    rows = [{"item_id": item.item_id, "response": "blah zork quux."} for item in suite.load(PART).items]
    pd.DataFrame(rows).to_csv("said.csv", index=False)
    return "said.csv"


def test_an_evaluation_of_which_nothing_was_scored_says_so(unreadable: str) -> None:
    with pytest.warns(UserWarning, match="Cannot tell: none of 8 responses could be scored by lexical"):
        result = valuedrift_mlflow.evaluate(responses=unreadable, suite=PART, judge="lexical")
    assert result.metrics["quality/unscored_rate"] == 1
    assert not [key for key in result.metrics if key.startswith(("stance/", "drift/"))]
    note = mlflow.get_run(result.run_id).data.tags["mlflow.note.content"]
    assert note.startswith("Cannot tell: none of 8 responses")
    report = Path(mlflow.artifacts.download_artifacts(f"runs:/{result.run_id}/report.html")).read_text()
    assert "Cannot tell: none of 8 responses" in report
    assert ">nan<" not in report


def test_the_command_says_it_in_one_line_and_shows_no_table(
    unreadable: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["evaluate", "--responses", unreadable, "--suite", PART, "--judge", "lexical"])
    said = capsys.readouterr().out
    assert "Cannot tell: none of 8 responses could be scored by lexical" in said
    assert "nan" not in said and "Stances of" not in said
