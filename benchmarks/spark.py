"""How long an audit takes on Spark, with one core and with two, and whether it comes to the same as without.

python benchmarks/spark.py
python benchmarks/spark.py --rows 4000

Needs the extra ``spark`` and Java. Pairs are those of the embedded world. The sessions are in local mode; starting one
and its Python workers is not counted: a small audit goes before.
"""

import argparse
import os
import sys
import time

from valuedrift_mlflow import judges, suite
from valuedrift_mlflow.data import blocks
from valuedrift_mlflow.data.datasets import load_data
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.value_gap import audit
from valuedrift_mlflow.value_gap.findings import Audit
from valuedrift_mlflow.value_gap.matching import Matcher
from valuedrift_mlflow.value_gap.spark import Engine


def audited(rows: int, engine: Engine) -> tuple[Audit, float]:
    """An audit and the seconds that it took."""
    data = load_data(Data(uri=f"embedded:pairs?gap=0.5&size={rows}"), "pairs")
    matcher, judge = Matcher(suite.load("vaes")), judges.load("lexical")
    start = time.perf_counter()
    found = audit.examine(data.rows, "pairs", judge, matcher, engine=engine)
    return found, time.perf_counter() - start


def main() -> None:
    from pyspark.sql import SparkSession

    parser = argparse.ArgumentParser(description="Seconds of an audit on Spark.")
    parser.add_argument("--rows", type=int, default=20_000, help="pairs")
    rows = parser.parse_args().rows
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    blocks.ROWS = max(1, min(blocks.ROWS, rows // 8))  # enough of them for every core
    local, seconds = audited(rows, "local")
    cells = [["this process and its cores", f"{seconds:.1f}", ""]]
    for cores in (1, 2):
        builder = SparkSession.builder.master(f"local[{cores}]").config("spark.driver.host", "127.0.0.1")
        session = builder.config("spark.ui.enabled", "false").getOrCreate()
        audited(blocks.ROWS * cores, "spark")
        found, seconds = audited(rows, "spark")
        session.stop()
        same = found.metrics() == local.metrics() and found.table().equals(local.table())
        cells.append([f"Spark, {cores} cores", f"{seconds:.1f}", "yes" if same else "NO"])
    Display().table(f"Audit of {rows:,} pairs", ("where", "seconds", "same figures"), cells)


if __name__ == "__main__":
    main()
