#!/bin/bash
# cxr mine, refine or infer as a job array: each task takes its part of INPUT and writes FOLDER/part-NNNNN.jsonl.
#
#     sbatch --array=0-7 parts.sh mine reports.csv questions/ --tasks binary,anomaly
#     sbatch --array=0-7 parts.sh refine questions/ chains/          # of a folder of parts each task takes the same part
#     sbatch --array=0-7 --partition=gpu --gpus=1 parts.sh infer test.jsonl predictions/ --ckpt rl/
#     cat chains/part-*.jsonl > chains.jsonl
#
# Parts that are there are not made again, and one that was stopped goes on. Those that failed, once more:
#
#     CXR_SHARDS=8 sbatch --array=3,5 parts.sh mine reports.csv questions/ --tasks binary,anomaly

#SBATCH --partition=cpu                                        # yours
#SBATCH --cpus-per-task=1 --mem=8G --time=08:00:00             # what a task takes; with more processors: … --jobs 8
#SBATCH --job-name=cxr-parts --output=%x-%A_%a.log --open-mode=append --requeue --signal=TERM@120
set -euo pipefail
source "${CXR_ACTIVATE:-$HOME/cxr/.venv/bin/activate}"         # where cxr is installed
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}  # srun has not taken it over from sbatch since Slurm 22.05

command=$1 input=$2 folder=$3
number=$(printf '%05d' "$SLURM_ARRAY_TASK_ID")
part=$folder/part-$number.jsonl
if [[ -e $part ]]; then exit; fi
mkdir -p "$folder"

options=()
if compgen -G "$input/part-*.jsonl" > /dev/null; then
  input=$input/part-$number.jsonl
  options=(--shard 0/1)
fi

# Two minutes before its time is up, a task gets SIGTERM: it saves, ends with 143, and goes back into the queue.
srun cxr "$command" "$input" -o "$part" --rejects "$folder/rejects-$number.jsonl" "${options[@]}" "${@:4}" || {
  (($? == 143)) || exit 1
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
}
