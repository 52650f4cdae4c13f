"""Train the embedded base model.

mlflow run . --env-manager local -e pretrain
valuedrift pretrain --set "pretrain.max_steps=100"
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("pretrain")
