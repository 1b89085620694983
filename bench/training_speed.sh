#!/bin/sh
# Steps per second beside PyTorch doing the same fake-quantised step, in turn, three rounds, into
# bench/results/training-speed-NAME.jsonl. PYTHON: an interpreter that has torch (python3).
#
#   PYTHON=python3 sh bench/training_speed.sh NAME
set -eu
. "$(dirname "$0")/begin.sh"
begin "NAME" "$@"
take_folder
out=bench/results/training-speed-$1.jsonl
: > "$out"

# Steps per second after the first steps, which make primitives: of two runs, the difference.
seconds() {
    train "$1" --stop-at "$2" --set evaluate_every=1000000 --out "$dir/run"
    sed 's/.*"seconds":\([0-9.]*\).*/\1/' "$dir/json"
}
for round in 1 2 3; do
    for preset in fashion-cnn charlm; do
        ${PYTHON:-python3} bench/torch_step.py $preset 8 | tee -a "$out"
        few=$(seconds $preset 50)
        many=$(seconds $preset 350)
        awk "BEGIN { printf \"{\\\"preset\\\": \\\"$preset\\\", \\\"engine\\\": \\\"Tern\\\", \\\"threads\\\": $(nproc), \\\"steps_per_second\\\": %.2f}\\n\", 300 / ($many - $few) }" |
            tee -a "$out"
    done
done
