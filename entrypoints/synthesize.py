"""Make a dataset with a value gap.

mlflow run . --env-manager local -e synthesize -P gap=0.5 -P size=1000 -P output=pairs.parquet
valuedrift synthesize --model openai:/qwen2.5-72b --preset support-aligned
valuedrift synthesize --preset "bimodal?support=0.6&oppose=0.4" --topics religion,abortion --output mixed
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("synthesize")
