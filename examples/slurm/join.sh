#!/bin/bash
# The parts of an array as one file, if all of them are there; those that aren't are named.
#
#     sbatch --dependency=afterany:ARRAY join.sh FOLDER HOW-MANY FILE
#     bash join.sh FOLDER HOW-MANY FILE                              # takes a moment, so a login node will do

#SBATCH --partition=cpu                                        # yours
#SBATCH --mem=1G --time=01:00:00
#SBATCH --job-name=cxr-join --output=%x-%j.log --open-mode=append --requeue
set -euo pipefail

folder=$1 count=$2 file=$3
parts=() missing=()
for ((i = 0; i < count; i++)); do
  part=$(printf '%s/part-%05d.jsonl' "$folder" "$i")
  if [[ -e $part ]]; then parts+=("$part"); else missing+=("$i"); fi
done
if ((${#missing[@]})); then
  echo "$folder: of $count parts there is no ${missing[*]}. Their logs say why; they are made again by the" \
    "same command with CXR_SHARDS=$count and --array=$(IFS=, && echo "${missing[*]}")" >&2
  exit 1
fi
cat "${parts[@]}" > "$file.partial"
mv "$file.partial" "$file"
