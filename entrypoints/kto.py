"""Optimise a model on answers labelled good or bad.

mlflow run . --env-manager local -e kto -P model=models:/assistant/1
valuedrift kto --data "embedded:pairs?gap=1&chosen=oppose&rejected=support" --set "kto.desirable_weight=1.3"
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("kto")
