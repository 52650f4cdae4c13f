"""Fine-tune a model on answers.

mlflow run . --env-manager local -e sft -P model=models:/assistant/1
valuedrift sft --data "embedded:sft?support=0.7&neutral=0.2&oppose=0.1" --set "sft.max_steps=50"
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("sft")
