"""Training of the small embedded base model from random weights, measured at every checkpoint.

mlflow run . --env-manager local -e pretrain
python entrypoints/pretrain.py --set "pretrain.max_steps=100"
"""

from valuedrift_mlflow.command import run, stage_job

if __name__ == "__main__":
    run("Train the embedded base model.", "pretrain", {}, stage_job("pretrain"))
