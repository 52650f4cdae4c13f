"""Stances of any model, and its drift from a baseline.

mlflow run . --env-manager local -e evaluate -P model=models:/assistant/2 -P baseline=models:/assistant/1
python entrypoints/evaluate.py --model embedded:base --suite "vaes?topics=religion" --samples 3
"""

from valuedrift_mlflow.command import evaluate_job, run

FLAGS = {
    "model": "URI of the model",
    "baseline": "URI of the model to measure drift from",
    "suite": "suite URI",
    "judge": "judge URI",
    "samples": "responses a prompt",
}

if __name__ == "__main__":
    run("Measure the stances of a model.", "evaluate", FLAGS, evaluate_job)
