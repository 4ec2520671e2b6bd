#!/bin/bash
# From reports to a table of scores, as jobs that wait for each other. Run on a login node, where sbatch is:
#
#     examples/slurm/pipeline.sh reports.csv work/
#
# Give it again after any failure, as often as you like: what is in work/ already is not made again, and while jobs of an
# earlier call are waiting or running it only shows them. Reports need a column `split` with a test part, and images,
# whose paths begin at the folder of the reports.
#
#     work/questions/, work/chains/            parts of what is trained on     work/chains.jsonl    all of it
#     work/test-questions/, work/test-chains/  parts of what is asked          work/test.jsonl
#     work/sft/, work/rl/                      the models                      work/predictions/    parts of the answers
#     work/predictions.txt, .html              the scores                      work/logs/            one a job, parts by number
set -euo pipefail

CPU=(--partition=cpu)                                          # yours: for mine, refine and score
GPU=(--partition=gpu --nodes=1 --gpus-per-node=8)              # yours: for sft and rl; infer takes one of them a task
export CXR_ACTIVATE=${CXR_ACTIVATE:-$HOME/cxr/.venv/bin/activate}  # where cxr is installed

PARTS=${PARTS:-8}               # tasks of an array
INFER=("${GPU[@]}" --gpus-per-node=1)
MINE=(--tasks binary,anomaly)   # options of the commands
SFT=(--model Qwen/Qwen2-VL-7B-Instruct --recipe chestx-reasoner)
RL=(--recipe chestx-reasoner)
ANSWER=()
if [[ -e ${CXR_PIPELINE:=/dev/null} ]]; then source "$CXR_PIPELINE"; fi  # a file that sets any of these otherwise

reports=$(realpath "${1:?which reports?}") work=${2:?where to?}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$work/logs"
work=$(realpath "$work")
films=(--image-root "$(dirname "$reports")")

# The same call twice must be about the same reports, and leave alone what the first one has under way.
about="$(stat -c '%n, %s bytes, of %y' "$reports"); parts: $PARTS; ${MINE[*]}"
if [[ -e $work/made-of ]] && [[ $about != "$(< "$work/made-of")" ]]; then
  echo "$work was made of other reports, or in another way: give a new folder, or take it away. There:" >&2
  cat "$work/made-of" >&2
  exit 1
fi
echo "$about" > "$work/made-of"
waiting=$(squeue --noheader --me --format='%i %j %T %r' | grep --fixed-strings " $work: " || true)
if [[ $waiting ]]; then
  echo "still under way:" && echo "$waiting"
  exit
fi

# submit NAME WAITS-FOR OPTIONS… SCRIPT ARGUMENTS…: its number in $job. WAITS-FOR is a dependency or empty.
submit() {
  job=$(CXR_SHARDS=$PARTS sbatch --parsable --job-name="$work: $1" --kill-on-invalid-dep=yes \
    --output="$work/logs/$1.log" ${2:+"--dependency=$2"} "${@:3}")
  job=${job%%;*}  # the name of the cluster follows where there are several
  echo "$job  $1${2:+, after $2}"
}

# array FOLDER WAITS-FOR OPTIONS… SCRIPT ARGUMENTS…: the tasks whose part isn't in FOLDER yet; none, and no $job, if all are.
array() {
  local missing=()
  for ((i = 0; i < PARTS; i++)); do
    [[ -e $(printf '%s/part-%05d.jsonl' "$work/$1" "$i") ]] || missing+=("$i")
  done
  job=
  if ((${#missing[@]})); then
    submit "$1" "$2" --array="$(IFS=, && echo "${missing[*]}")" --output="$work/logs/$1-%a.log" "${@:3}"
  fi
}

# chains PREFIX FILE OPTIONS…: PREFIXquestions/ and PREFIXchains/ to FILE; the number of the job that joins them in $job.
chains() {
  local prefix=$1 file=$2 mined
  job=
  if [[ -e $file ]]; then return; fi
  array "${prefix}questions" '' "${CPU[@]}" "$here/parts.sh" mine "$reports" "$work/${prefix}questions" "${@:3}"
  mined=$job
  array "${prefix}chains" "${mined:+aftercorr:$mined}" "${CPU[@]}" "$here/parts.sh" refine "$work/${prefix}questions" \
    "$work/${prefix}chains"
  submit "${prefix}join" "${job:+afterany:$job}" "${CPU[@]}" "$here/join.sh" "$work/${prefix}chains" "$PARTS" "$file"
}

chains '' "$work/chains.jsonl" "${MINE[@]}"
joined=$job
chains test- "$work/test.jsonl" "${MINE[@]}" --split test
asked=$job

trained=
if [[ ! -e $work/sft/cxr.json ]]; then
  submit sft "${joined:+afterok:$joined}" "${GPU[@]}" "$here/train.sh" sft "$work/chains.jsonl" "${SFT[@]}" \
    "${films[@]}" -o "$work/sft"
  trained=$job
fi
if [[ ! -e $work/rl/cxr.json ]]; then
  submit rl "${trained:+afterok:$trained}" "${GPU[@]}" "$here/train.sh" rl --ckpt "$work/sft" "${RL[@]}" -o "$work/rl"
  trained=$job
fi

if [[ ! -e $work/predictions.txt ]]; then
  waits=${trained:+,afterok:$trained}${asked:+,afterok:$asked}
  array predictions "${waits#,}" "${INFER[@]}" "$here/parts.sh" infer "$work/test.jsonl" "$work/predictions" \
    --ckpt "$work/rl" "${films[@]}" "${ANSWER[@]}"
  submit score "${job:+afterok:$job}" "${CPU[@]}" "$here/score.sh" "$work/predictions"
fi
if [[ -e $work/predictions.txt ]]; then cat "$work/predictions.txt"; fi
