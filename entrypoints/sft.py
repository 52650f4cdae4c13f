"""Supervised fine-tuning of any model on any data, measured at every checkpoint.

mlflow run . --env-manager local -e sft python entrypoints/sft.py --model embedded:base --data
"embedded:sft?support=0.7&neutral=0.2&oppose=0.1" --set "sft.max_steps=50"
"""

from valuedrift_mlflow.command import STAGE_FLAGS, run, stage_job

if __name__ == "__main__":
    run("Fine-tune a model on answers.", "sft", STAGE_FLAGS, stage_job("sft"))
