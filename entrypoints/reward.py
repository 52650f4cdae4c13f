"""A reward model from preference pairs, with its accuracy on pairs held out; ppo, grpo and rloo train against it.

mlflow run . --env-manager local -e reward -P model=models:/assistant/1
python entrypoints/reward.py --data "embedded:pairs?gap=1&chosen=oppose&rejected=support" --set "reward.held_out=0.2"
"""

from valuedrift_mlflow.command import STAGE_FLAGS, run, stage_job

if __name__ == "__main__":
    run("Train a reward model on preference pairs.", "reward", STAGE_FLAGS, stage_job("reward"))
