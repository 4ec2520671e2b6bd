#!/bin/bash
# cxr sft or rl on all GPUs of one or several nodes; what follows is the command as you would type it.
#
#     sbatch train.sh sft chains.jsonl --model Qwen/Qwen2-VL-7B-Instruct --recipe chestx-reasoner -o sft/
#     sbatch --nodes=4 train.sh rl --ckpt sft/ --recipe chestx-reasoner -o rl/
#
# The folder after -o must lie where all nodes see it. The same command goes on where an earlier one stopped.

#SBATCH --partition=gpu                                        # yours
#SBATCH --nodes=1 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=64 --mem=0 --time=24:00:00
#SBATCH --job-name=cxr-train --output=%x-%j.log --open-mode=append --requeue --signal=B:USR1@600
set -euo pipefail
source "${CXR_ACTIVATE:-$HOME/cxr/.venv/bin/activate}"         # where cxr is installed
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}  # srun has not taken it over from sbatch since Slurm 22.05

# Ten minutes before the time is up this script gets SIGUSR1. It asks for a checkpoint, waits until all processes have
# saved and ended, and goes back into the queue.
again() {
  trap '' USR1
  scancel --signal=TERM "$SLURM_JOB_ID"
  wait || true
  scontrol requeue "$SLURM_JOB_ID"
}
trap again USR1

# One launch a node: torchrun starts a process a GPU, and they find each other at the first node.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --kill-on-bad-exit=0 torchrun --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" \
  --rdzv-backend=c10d --rdzv-endpoint="$first:$((20000 + SLURM_JOB_ID % 10000))" --rdzv-id="$SLURM_JOB_ID" \
  --shutdown-timeout=540 -m cxr_reason "$@" &
wait $!
