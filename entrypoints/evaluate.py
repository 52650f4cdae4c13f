"""Measure the stances of a model.

mlflow run . --env-manager local -e evaluate -P model=models:/assistant/2 -P baseline=models:/assistant/1
valuedrift evaluate --responses runs:/RUN_ID/responses.json --judge lexical,openai:/gpt-4o
valuedrift evaluate --model embedded:base --suite "vaes?topics=religion" --samples 3
valuedrift evaluate --responses runs:/RUN_ID/responses.json --labels review-RUN_ID.csv
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("evaluate")
