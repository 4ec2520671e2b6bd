#!/bin/bash
# cxr rl with completions from a vLLM server on a node of its own: the last one. What follows is the command of rl.
#
#     sbatch --nodes=3 rl-server.sh --ckpt sft/ --recipe chestx-reasoner -o rl/
#
# The server has the checkpoint's weights at first and gets the trained ones over NCCL at every step.

#SBATCH --partition=gpu                                        # yours
#SBATCH --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=64 --mem=0 --time=24:00:00
#SBATCH --job-name=cxr-rl --output=%x-%j.log --open-mode=append --requeue --signal=B:USR1@600
set -euo pipefail
source "${CXR_ACTIVATE:-$HOME/cxr/.venv/bin/activate}"         # where cxr is installed
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}  # srun has not taken it over from sbatch since Slurm 22.05

checkpoint=
for ((i = 1; i < $#; i++)); do
  if [[ ${!i} == --ckpt ]]; then i=$((i + 1)) && checkpoint=${!i}; fi
done

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${nodes[0]} last=${nodes[-1]} trained=$((${#nodes[@]} - 1))
port=$((20000 + SLURM_JOB_ID % 10000))

again() {
  trap '' USR1
  scancel --signal=TERM "$SLURM_JOB_ID.1"  # the training; the server is step 0
  wait "$training" || true
  scontrol requeue "$SLURM_JOB_ID"
}

# Weights are exchanged through the server's development routes, which ask for no key: on the cluster's own network alone.
VLLM_SERVER_DEV_MODE=1 srun --nodes=1 --ntasks=1 --nodelist="$last" vllm serve "${checkpoint:?--ckpt is missing}" \
  --host "$last" --port $((port + 1)) --tensor-parallel-size "${SLURM_GPUS_ON_NODE:-1}" \
  --weight-transfer-config '{"backend": "nccl"}' --logprobs-mode processed_logprobs --max-logprobs -1 &
until curl --silent --fail "http://$last:$((port + 1))/health"; do
  kill -0 $! || exit 1
  sleep 5
done

srun --nodes="$trained" --ntasks="$trained" --exclude="$last" --kill-on-bad-exit=0 \
  torchrun --nnodes="$trained" --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" --rdzv-backend=c10d \
  --rdzv-endpoint="$first:$port" --rdzv-id="$SLURM_JOB_ID" --shutdown-timeout=540 \
  -m cxr_reason rl "$@" --vllm server --set vllm_server_base_url="http://$last:$((port + 1))" &
training=$!
trap again USR1
wait $training
