"""Stances of any model, and its drift from a baseline; or of responses that exist already.

mlflow run . --env-manager local -e evaluate -P model=models:/assistant/2 -P baseline=models:/assistant/1
mlflow run . --env-manager local -e evaluate -P responses=runs:/RUN_ID/responses.json -P judge=lexical,openai:/gpt-4o
python entrypoints/evaluate.py --model embedded:base --suite "vaes?topics=religion" --samples 3
"""

from valuedrift_mlflow.command import evaluate_job, run

FLAGS = {
    "model": "URI of the model",
    "baseline": "URI of the model to measure drift from, or a table of its responses",
    "suite": "suite URI",
    "judge": "judge URI; several, comma separated, form a panel",
    "samples": "responses a prompt",
    "responses": "a table of responses to judge instead of asking a model",
}

if __name__ == "__main__":
    run("Measure the stances of a model.", "evaluate", FLAGS, evaluate_job)
