"""Ablations: data doses x algorithms x seeds, stages left out, or a key over a list of values; each cell a nested run.

mlflow run . --env-manager local -e ablate -P design=algorithms
python entrypoints/ablate.py --recipe embedded --design stages --set "samples=2"
python entrypoints/ablate.py --design algorithms --resume RUN_ID
"""

from valuedrift_mlflow.command import RESUME_FLAG, ablate_job, run

FLAGS = {"design": "algorithms, beta, data or stages, or a YAML file (cells, axes, leave_out, seeds)", **RESUME_FLAG}

if __name__ == "__main__":
    run("Compare what changes the stances, one thing at a time.", "ablate", FLAGS, ablate_job)
