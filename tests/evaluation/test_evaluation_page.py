"""The page of an evaluation, read as a person reads it: models that say what they are told, and say it with markup."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import mlflow
import pandas as pd
from read_pages import Element, data_of, keeps_to_what_pages_promise, table_of

from valuedrift_mlflow.evaluation.evaluate import Config, Opened, opened, run_evaluation
from valuedrift_mlflow.evaluation.subjects import Asked
from valuedrift_mlflow.judges.panel import Panel
from valuedrift_mlflow.models.generation import FunctionGenerator
from valuedrift_mlflow.stances import STANCES, UNSCORED, Answer, Verdict
from valuedrift_mlflow.suite import load

TAGS = "<script>alert(1)</script></style></svg><svg onload=alert(2)><img src=//evil.example/x>"
LONG = " And so on and on." * 60


class FirstWord:
    """Takes an answer's first word for its stance."""

    name, version = "FirstWord", "3"

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        words = [answer.response.split()[0] for answer in answers]
        return [Verdict.of([word == stance for stance in STANCES]) if word in STANCES else UNSCORED for word in words]


def answers(stance: str) -> Callable[[Sequence[str]], list[str]]:
    """To every prompt the same stance, with markup in it."""
    return lambda prompts: [f"{stance} {TAGS}{LONG}" for _ in prompts]


def hostile_suite() -> Path:
    """Two topics of eight propositions, whose wording has markup too."""
    rows = load("vaes?topics=religion,abortion").frame().groupby("proposition_id", sort=False).head(1)
    rows = rows.groupby("topic", sort=False).head(8).copy()
    rows["prompt"] = [f"{prompt} {TAGS}" for prompt in rows["prompt"]]
    rows["proposition"] = [f"{proposition} </style>" for proposition in rows["proposition"]]
    rows.to_csv("suite.csv", index=False)
    return Path("suite.csv")


def evaluated(before: str | None, after: str) -> Opened:
    subject = Asked(f"somebody's {TAGS}", lambda: FunctionGenerator(answers(after)))
    ready = opened(Config(judge="lexical", samples=1), subject, suite=str(hostile_suite()))
    ready = replace(ready, judge=FirstWord())
    if before is None:
        return ready
    start = Asked(f"start {TAGS}", lambda: FunctionGenerator(answers(before)))
    return replace(ready, config=ready.config.model_copy(update={"baseline": start.uri}), baseline=start)


def page_of(ready: Opened) -> tuple[Element, str]:
    run_evaluation(ready)
    [run] = mlflow.search_runs(output_format="list")
    return logged_page(run.info.run_id), run.info.run_id


def logged_page(run_id: str) -> Element:
    """The page of a run, which keeps to what pages promise."""
    html = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/report.html")).read_text()
    return keeps_to_what_pages_promise(html)


def test_a_comparison_says_first_what_moved_and_shows_answers_of_both_sides(store: Path) -> None:
    page, run_id = page_of(evaluated("oppose", "support"))
    lead = page.all("ul", **{"class": "lead"})[0].text
    assert "moved" in lead and "2 topics moved" in lead
    headings = [heading.text for heading in page.all("h2")]
    assert headings == [
        *("Where it stands, and what moved", "How sure", "How far the judge can be trusted"),
        *("Answers before and after", "Methods"),
    ]
    changes = page.all("div", **{"class": "change"})
    assert changes
    for change in changes:
        before, after = change.all("div", **{"class": "side"})
        assert before.text.startswith("Before: oppose") and after.text.startswith("After: support")
        assert "<script>alert(1)</script>" in before.text  # text, no element
        assert after.all("details")  # long answers are folded
    methods = page.all("section", **{"aria-labelledby": "methods"})[0].text
    for setting in ("FirstWord@3", "1 response to each", "temperature 0.7", "256 new tokens", "seed 0", "within 0.1"):
        assert setting in methods
    for name in ("axis_shifts", "stances"):
        [link] = page.all("a", download=f"{name}.csv")
        file = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/figures/{name}.csv")
        assert pd.read_csv(file, dtype=str, keep_default_na=False).to_numpy().tolist() == data_of(link)[1:]


def test_a_single_model_says_where_it_stands(store: Path) -> None:
    page, _ = page_of(evaluated(None, "support"))
    lead = page.all("ul", **{"class": "lead"})[0].text
    assert lead.startswith("Over all topics: support 1.00")
    assert not page.all("section", **{"aria-labelledby": "sure"})
    said = next(table for table in page.all("table") if table.attributes["aria-label"].startswith("Answers"))
    assert {row[-1] for row in table_of(said)[1:]} == {"support"}


def test_a_panel_shows_where_its_members_disagree(store: Path) -> None:
    class Contrary(FirstWord):
        name = "Contrary"

        def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
            return [Verdict.of((0, 0, 1)) for _ in answers]

    page, _ = page_of(replace(evaluated(None, "support"), judge=Panel([FirstWord(), Contrary()])))
    told = page.all("section", **{"aria-labelledby": "judge"})[0]
    assert "Do the judges agree?" in told.text and "Responses that they disagree on (16)" in told.text
    pairs, disputed = (table_of(table) for table in told.all("table"))
    assert pairs[1][2] == "0.000"  # never the same label
    assert {tuple(row[-2:]) for row in disputed[1:]} == {("support", "oppose")} and len(disputed) == 17


def test_nothing_that_can_be_read_is_said(store: Path) -> None:
    page, _ = page_of(evaluated("hm", "hm"))
    assert "nothing can be told" in page.all("ul", **{"class": "lead"})[0].text.lower()
