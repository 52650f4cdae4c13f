"""Proximal policy optimisation of any model against a reward model or a Python function.

mlflow run . --env-manager local -e ppo -P model=models:/assistant/1 -P reward=models:/m-...
python entrypoints/ppo.py --data "embedded:pairs?size=500" --reward my_rewards:politeness --set "ppo.beta=0.1"
"""

from valuedrift_mlflow.command import ONLINE_FLAGS, run, stage_job

if __name__ == "__main__":
    run("Optimise a model against a reward by PPO.", "ppo", ONLINE_FLAGS, stage_job("ppo"))
