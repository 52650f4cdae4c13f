"""Optimise a model on preference pairs, with stances elsewhere held in place.

mlflow run . --env-manager local -e anchored_dpo -P model=models:/assistant/1
valuedrift anchored-dpo --data "embedded:pairs?gap=1&topics=religion" --set "anchored_dpo.anchor_weight=2"
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("anchored_dpo")
