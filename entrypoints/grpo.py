"""Optimise a model against a reward by GRPO.

mlflow run . --env-manager local -e grpo -P model=models:/assistant/1
valuedrift grpo --data "embedded:pairs?size=500" --reward my_rewards:politeness --set "grpo.generations=4"
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("grpo")
