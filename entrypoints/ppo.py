"""Optimise a model against a reward by PPO.

mlflow run . --env-manager local -e ppo -P model=models:/assistant/1
valuedrift ppo --data "embedded:pairs?size=500" --reward my_rewards:politeness --set "ppo.beta=0.1"
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("ppo")
