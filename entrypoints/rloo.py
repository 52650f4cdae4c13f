"""Optimise a model against a reward by RLOO.

mlflow run . --env-manager local -e rloo -P model=models:/assistant/1
valuedrift rloo --data "embedded:pairs?size=500" --reward my_rewards:politeness --set "rloo.beta=0.1"
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("rloo")
