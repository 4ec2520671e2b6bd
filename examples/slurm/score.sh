#!/bin/bash
# cxr score of one or several runs, a task of the array each: the table in FOLDER.txt, the page in FOLDER.html.
#
#     sbatch score.sh predictions/                                   # a folder of parts, as parts.sh leaves it
#     sbatch --array=0-2 score.sh predictions-base/ predictions-sft/ predictions-rl/

#SBATCH --partition=cpu                                        # yours
#SBATCH --cpus-per-task=1 --mem=8G --time=02:00:00
#SBATCH --job-name=cxr-score --output=%x-%j.log --open-mode=append --requeue
set -euo pipefail
source "${CXR_ACTIVATE:-$HOME/cxr/.venv/bin/activate}"         # where cxr is installed
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}  # srun has not taken it over from sbatch since Slurm 22.05

folders=("$@")
folder=${folders[${SLURM_ARRAY_TASK_ID:-0}]%/}
srun cxr score "$folder"/part-*.jsonl --html "$folder.html" --force > "$folder.txt.partial"
mv "$folder.txt.partial" "$folder.txt"
cat "$folder.txt"
