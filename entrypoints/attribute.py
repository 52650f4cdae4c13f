"""Find the training rows that moved the stances.

mlflow run . --env-manager local -e attribute -P run=RUN_ID -P topics=abortion
valuedrift attribute --run RUN_ID --topics abortion,axis/gal_tan --drop 0.02
valuedrift attribute --run RUN_ID --stage dpo --dry-run
"""

from valuedrift_mlflow.cli.main import entry_point

if __name__ == "__main__":
    entry_point("attribute")
