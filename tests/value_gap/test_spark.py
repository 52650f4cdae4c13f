"""The audit on Spark, in local mode; without pyspark or Java only what is said of their absence is tested."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands_of_users import valuedrift

from valuedrift_mlflow import judges, log_judge, suite
from valuedrift_mlflow.data import blocks
from valuedrift_mlflow.data.datasets import load_data, stream
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.stances import Answer
from valuedrift_mlflow.value_gap import audit
from valuedrift_mlflow.value_gap.matching import Matcher

needs_spark = pytest.mark.skipif(
    find_spec("pyspark") is None or shutil.which("java") is None,
    reason="needs pyspark (extra spark) and Java (openjdk-17-jre-headless)",
)
PAIRS = "embedded:pairs?gap=0.5&size=160&seed=3"


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    from pyspark.sql import SparkSession

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        for key in ("spark.driver.host", "spark.driver.bindAddress"):
            builder = builder.config(key, "127.0.0.1")
        started = builder.getOrCreate()
        yield started
        started.stop()


@needs_spark
def test_on_spark_an_audit_comes_to_what_it_comes_to_here(
    session: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(blocks, "ROWS", 30)  # six batches, in two waves
    rows = load_data(Data(uri=PAIRS), "pairs").rows
    matcher, judge = Matcher(suite.load("vaes")), judges.load("lexical")
    here = audit.examine(rows, "pairs", judge, matcher)
    there = audit.examine(rows, "pairs", judge, matcher, engine="spark")
    assert there.rows == here.rows == 160 and there.overall.judged > 200
    assert there.metrics() == pytest.approx(here.metrics())
    pd.testing.assert_frame_equal(there.table(), here.table())
    assert there.opinionated == here.opinionated and there.topic_only == here.topic_only
    for own, other in zip(there.sides, here.sides, strict=True):
        np.testing.assert_allclose(own.probabilities, other.probabilities)
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    lines = audit.examine(stream(Data(uri=str(file))), "pairs", judge, matcher, engine="spark")
    assert lines.metrics() == there.metrics() and lines.opinionated == there.opinionated
    assert session.sparkContext._jsc is not None  # who brings a session keeps it


@needs_spark
@pytest.mark.slow  # starts Spark's SQL, too
def test_a_logged_judge_scores_rows_on_spark(store: Path, session: Any) -> None:
    import mlflow

    said = ["Yes, I think abortion should be legal.", "No, it should be banned.", "Bananas are rich in potassium."]
    answers = [Answer("Abortion should be legal", "Should abortion be legal?", text, None) for text in said * 20]
    judge = mlflow.pyfunc.spark_udf(session, log_judge(), env_manager="local")
    rows = [(number, own.proposition, own.prompt, own.response) for number, own in enumerate(answers)]
    table = session.createDataFrame(rows, "number long, proposition string, prompt string, response string")
    scored = table.select("number", judge("proposition", "prompt", "response").alias("verdict"))
    found = {row["number"]: row["verdict"] for row in scored.collect()}
    for number, verdict in enumerate(judges.load("lexical").judge(answers)):
        assert found[number]["label"] == verdict.label
        if verdict.probabilities is not None:
            assert found[number]["support"] == pytest.approx(verdict.probabilities[0])


def test_an_engine_that_cannot_be_had_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="engine: found 'dask', allowed: local, spark"):
        audit.prepare(PAIRS, "lexical", engine="dask")
    monkeypatch.setattr("valuedrift_mlflow.value_gap.spark.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"spark without pyspark.*pip install 'valuedrift-mlflow\[spark\]'"):
        audit.prepare(PAIRS, "lexical", engine="spark")
    monkeypatch.setattr("valuedrift_mlflow.value_gap.spark.find_spec", lambda name: object())
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(InputError, match=r"spark without Java.*openjdk-17-jre-headless"):
        audit.prepare(PAIRS, "lexical", engine="spark")


def test_the_flag_is_checked_before_anything_is_read(store: Path) -> None:
    done = valuedrift("audit", "--data", PAIRS, "--engine", "dask")
    assert done.returncode == 2
    assert "engine: found 'dask', allowed: local, spark" in done.stderr
