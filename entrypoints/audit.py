"""What a dataset will do to values: the stances of its responses and, of preference pairs, their value gap.

mlflow run . --env-manager local -e audit -P data=pairs.jsonl
mlflow run . --env-manager local -e audit -P data=hh.jsonl.gz -P set="dpo.data.on_bad_row=skip"
"""

from valuedrift_mlflow.command import audit_job, run

FLAGS = {"data": "URI of the data, in place of those of the recipe's one stage", "judge": "judge URI"}

if __name__ == "__main__":
    run("Audit a dataset.", "audit", FLAGS, audit_job)
