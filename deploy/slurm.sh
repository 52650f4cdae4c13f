#!/usr/bin/env bash
# A training script of your own with `ValueDriftCallback`, on every GPU of several machines:
#   sbatch --nodes=2 deploy/slurm.sh train.py --its-own flags
#SBATCH --job-name=valuedrift
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
set -euo pipefail

: "${1:?name a training script}"
: "${MLFLOW_TRACKING_URI:?set it to a server: machines share no database file}"
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((SLURM_CPUS_PER_TASK / SLURM_GPUS_ON_NODE))}

# One task a machine: torchrun starts the processes of its own, and they find each other at the first machine.
srun --kill-on-bad-exit=1 python -m torch.distributed.run \
  --nnodes="$SLURM_NNODES" \
  --nproc-per-node="$SLURM_GPUS_ON_NODE" \
  --rdzv-id="$SLURM_JOB_ID" \
  --rdzv-backend=c10d \
  --rdzv-endpoint="$first:${PORT:-29500}" \
  "$@"
