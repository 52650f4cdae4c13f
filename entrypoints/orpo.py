"""Odds-ratio preference optimisation of any model on any preference pairs, without a reference model.

mlflow run . --env-manager local -e orpo -P model=models:/assistant/1
python entrypoints/orpo.py --data "embedded:pairs?gap=1&chosen=oppose&rejected=support" --set "orpo.beta=0.5"
"""

from valuedrift_mlflow.command import STAGE_FLAGS, run, stage_job

if __name__ == "__main__":
    run("Optimise a model on preference pairs by ORPO.", "orpo", STAGE_FLAGS, stage_job("orpo"))
