"""Simple preference optimisation of any model on any preference pairs, without a reference model.

mlflow run . --env-manager local -e simpo -P model=models:/assistant/1
python entrypoints/simpo.py --data "embedded:pairs?gap=1&size=500" --set "simpo.gamma_beta_ratio=0.3"
"""

from valuedrift_mlflow.command import STAGE_FLAGS, run, stage_job

if __name__ == "__main__":
    run("Optimise a model on preference pairs by SimPO.", "simpo", STAGE_FLAGS, stage_job("simpo"))
