"""Optimise a model on preference pairs by SimPO.

mlflow run . --env-manager local -e simpo -P model=models:/assistant/1
valuedrift simpo --data "embedded:pairs?gap=1&size=500" --set "simpo.gamma_beta_ratio=0.3"
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("simpo")
