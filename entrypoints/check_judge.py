"""A judge against labelled answers: accuracy, kappa, coverage, calibration.

mlflow run . --env-manager local -e check_judge -P judge=lexical
mlflow run . --env-manager local -e check_judge -P judge=openai:/gpt-4o -P data=labelled.csv
"""

from valuedrift_mlflow.command import check_judge_job, run

FLAGS = {
    "judge": "judge URI",
    "data": "labelled answers: check (those of the package), a csv, jsonl or parquet file, a folder of persona files",
}

if __name__ == "__main__":
    run("Check a judge against labelled answers.", "evaluate", FLAGS, check_judge_job)
