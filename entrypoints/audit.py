"""Audit a dataset.

mlflow run . --env-manager local -e audit -P data=pairs.jsonl
valuedrift audit --data hh.jsonl.gz --embedder minilm --set "dpo.data.on_bad_row=skip"
valuedrift audit --data pairs.jsonl --topics discover --output topics.csv
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("audit")
