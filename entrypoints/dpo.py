"""Optimise a model on preference pairs.

mlflow run . --env-manager local -e dpo -P model=models:/assistant/1
valuedrift dpo --data "embedded:pairs?gap=1&chosen=oppose&rejected=support" --set "dpo.beta=0.2"
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("dpo")
