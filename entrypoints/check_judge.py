"""Check a judge against labelled answers.

mlflow run . --env-manager local -e check_judge -P judge=lexical
valuedrift check-judge --judge openai:/gpt-4o --data labelled.csv
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("check_judge")
