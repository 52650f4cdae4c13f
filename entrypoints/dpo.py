"""Direct preference optimisation of any model on any preference pairs, measured at every checkpoint.

mlflow run . --env-manager local -e dpo -P model=models:/assistant/1 python entrypoints/dpo.py --model embedded:base
--data "embedded:pairs?gap=1&chosen=oppose&rejected=support" --set "dpo.beta=0.2"
"""

from valuedrift_mlflow.command import STAGE_FLAGS, run, stage_job

if __name__ == "__main__":
    run("Optimise a model on preference pairs.", "dpo", STAGE_FLAGS, stage_job("dpo"))
