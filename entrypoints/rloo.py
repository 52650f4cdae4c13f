"""REINFORCE leave-one-out on any model against a reward model or a Python function.

mlflow run . --env-manager local -e rloo -P model=models:/assistant/1 -P reward=models:/m-...
python entrypoints/rloo.py --data "embedded:pairs?size=500" --reward my_rewards:politeness --set "rloo.beta=0.1"
"""

from valuedrift_mlflow.command import ONLINE_FLAGS, run, stage_job

if __name__ == "__main__":
    run("Optimise a model against a reward by RLOO.", "rloo", ONLINE_FLAGS, stage_job("rloo"))
