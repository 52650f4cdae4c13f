"""DPO that keeps stances in place where the pairs do not ask to move them, measured at every checkpoint.

mlflow run . --env-manager local -e anchored_dpo -P model=models:/assistant/1
python entrypoints/anchored_dpo.py --data "embedded:pairs?gap=1&topics=religion" --set "anchored_dpo.anchor_weight=2"
"""

from valuedrift_mlflow.command import STAGE_FLAGS, run, stage_job

if __name__ == "__main__":
    run(
        "Optimise a model on preference pairs, with stances elsewhere held in place.",
        "anchored_dpo",
        STAGE_FLAGS,
        stage_job("anchored_dpo"),
    )
