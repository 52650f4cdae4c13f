"""Train a reward model on preference pairs.

mlflow run . --env-manager local -e reward -P model=models:/assistant/1
valuedrift reward --data "embedded:pairs?gap=1&chosen=oppose&rejected=support" --set "reward.held_out=0.2"
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("reward")
