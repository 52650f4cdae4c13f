"""Kahneman-Tversky optimisation of any model on answers labelled good or bad, or on preference pairs.

mlflow run . --env-manager local -e kto -P model=models:/assistant/1
python entrypoints/kto.py --data "embedded:pairs?gap=1&chosen=oppose&rejected=support" --set "kto.desirable_weight=1.3"
"""

from valuedrift_mlflow.command import STAGE_FLAGS, run, stage_job

if __name__ == "__main__":
    run("Optimise a model on answers labelled good or bad.", "kto", STAGE_FLAGS, stage_job("kto"))
