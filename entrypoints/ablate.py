"""Compare what changes the stances, one thing at a time.

mlflow run . --env-manager local -e ablate -P design=algorithms
valuedrift ablate --recipe embedded --design stages --set "samples=2"
valuedrift ablate --design dose,mix --dry-run
valuedrift ablate --design algorithms --resume RUN_ID
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("ablate")
