"""Train a stance classifier, a judge of your own.

mlflow run . --env-manager local -e train_judge -P data=labelled.csv -P model=roberta-base
valuedrift train-judge --data runs:/RUN_ID/responses.json --teacher openai:/gpt-4o --model ENCODER
valuedrift evaluate --model models:/assistant/2 --judge hf:models:/stance-judge/1
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("train_judge")
