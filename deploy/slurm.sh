#!/usr/bin/env bash
# A recipe's stages, or a training script of your own with `ValueDriftCallback`, on every GPU of several machines:
#   sbatch --nodes=2 deploy/slurm.sh main --recipe llama-3.1-70b --set "sft.launch.processes=8 dpo.launch.processes=8"
#   sbatch --nodes=2 deploy/slurm.sh train.py --its-own flags
#SBATCH --job-name=valuedrift
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
set -euo pipefail

: "${1:?name a command of valuedrift or a training script}"
: "${MLFLOW_TRACKING_URI:?set it to a server: machines share no database file}"
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((SLURM_CPUS_PER_TASK / SLURM_GPUS_ON_NODE))}

# One task a machine: it starts the processes of its own, and they find each other at the first machine.
if [[ "$1" != *.py ]]; then
  exec srun --kill-on-bad-exit=1 valuedrift "$@" --nodes "$SLURM_NNODES" --rendezvous "$first:${PORT:-29500}"
fi
srun --kill-on-bad-exit=1 python -m torch.distributed.run \
  --nnodes="$SLURM_NNODES" \
  --nproc-per-node="$SLURM_GPUS_ON_NODE" \
  --rdzv-id="$SLURM_JOB_ID" \
  --rdzv-backend=c10d \
  --rdzv-endpoint="$first:${PORT:-29500}" \
  "$@"
