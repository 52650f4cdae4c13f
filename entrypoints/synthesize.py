"""Preference pairs at a requested value gap, or SFT rows with a requested mix of stances, from any model.

mlflow run . --env-manager local -e synthesize -P gap=0.5 -P size=1000 -P output=pairs.parquet
mlflow run . --env-manager local -e synthesize -P model=openai:/qwen2.5-72b -P preset=support-aligned
python entrypoints/synthesize.py --preset "bimodal?support=0.6&oppose=0.4" --topics religion,abortion --output mixed
"""

from valuedrift_mlflow.command import SYNTHESIZE_FLAGS, run, synthesize_job

if __name__ == "__main__":
    run("Make a dataset with a value gap.", "synthesize", SYNTHESIZE_FLAGS, synthesize_job)
