"""Train, checkpoint and measure a post-training pipeline.

mlflow run . --env-manager local
valuedrift main --recipe embedded --set "samples=2 dpo.beta=0.2"
valuedrift main --recipe llama-3.1-8b --dry-run
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("main")
