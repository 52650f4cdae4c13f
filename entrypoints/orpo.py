"""Optimise a model on preference pairs by ORPO.

mlflow run . --env-manager local -e orpo -P model=models:/assistant/1
valuedrift orpo --data "embedded:pairs?gap=1&chosen=oppose&rejected=support" --set "orpo.beta=0.5"
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("orpo")
