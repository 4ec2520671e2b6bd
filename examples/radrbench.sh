#!/bin/bash
# RadRBench-CXR, as it is published, through a model and the score: one table of its nine tasks.
#
#   examples/radrbench.sh BENCHMARK OUT --ckpt MODEL --image-root FILMS [further options of cxr infer]
#
# BENCHMARK is a folder of its files, a task each: mimic_binary_gt_reasoning.json and so on, JSON arrays of items. Their
# films come from MIMIC-CXR and CheXpert, which --image-root holds. OUT gets the questions, the predictions, the details
# of every judgement and table.txt. The model is loaded once for all; a run that was killed goes on where it stopped
# when the same command is given again.
set -euo pipefail

(($# >= 2)) && [[ -d $1 ]] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
benchmark=$1 out=$2
shift 2
mkdir -p "$out"

# All files as one, each item with the task that its file's name tells.
python3 - "$benchmark" > "$out/questions.jsonl" << 'END'
import json, pathlib, sys

for path in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
    task = path.stem.removesuffix("_gt_reasoning")
    for number, item in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        # Some files have no ids, and others share them.
        print(json.dumps({**item, "item_id": f"{task}-{number}", "benchmark": task}))
END

cxr infer "$out/questions.jsonl" -o "$out/predictions.jsonl" --rejects "$out/rejected.jsonl" "$@"

# A figure of a task is the mean over the items of its file, as published.
tasks=$(python3 -c 'import json, sys; print(*dict.fromkeys(json.loads(line)["benchmark"] for line in sys.stdin))' \
  < "$out/predictions.jsonl")
for task in $tasks; do
  python3 -c 'import json, sys
for line in sys.stdin:
    if json.loads(line)["benchmark"] == sys.argv[1]: sys.stdout.write(line)' "$task" < "$out/predictions.jsonl" |
    cxr score -q --json --details "$out/$task.details.jsonl" --force > "$out/$task.score.json"
done

# shellcheck disable=SC2086 - a task a word
python3 - "$out" $tasks << 'END' | tee "$out/table.txt"
import json, pathlib, sys

PARTS = "accuracy factuality completeness effectiveness radrscore balanced_radrscore".split()
rows = []
for task in sys.argv[2:]:
    told = json.loads((pathlib.Path(sys.argv[1]) / f"{task}.score.json").read_text(encoding="utf-8"))
    rows.append((task, told["items"], [told["all_items"][part]["value"] for part in PARTS]))
width = max(map(len, ["mean over tasks", *(row[0] for row in rows)]))
print(f"{'task':{width}}  items", *(f"{part:>18}" for part in PARTS), sep="  ")
for task, items, values in rows:
    print(f"{task:{width}}  {items:5}", *("-".rjust(18) if v is None else f"{v:18.3f}" for v in values), sep="  ")
means = [[v for v in column if v is not None] for column in zip(*(row[2] for row in rows))]
shown = (f"{sum(told) / len(told):18.3f}" if told else "-".rjust(18) for told in means)
print(f"{'mean over tasks':{width}}  {sum(row[1] for row in rows):5}", *shown, sep="  ")
END
