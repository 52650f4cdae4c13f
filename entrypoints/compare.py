"""Compare models, checkpoints, runs and tables of responses.

mlflow run . --env-manager local -e compare -P targets=models:/assistant/1,models:/assistant@champion
valuedrift compare --targets RUN_ID,OTHER_RUN_ID --baseline embedded:base
valuedrift compare --targets before.csv,after.csv --judge openai:/gpt-4o
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("compare")
