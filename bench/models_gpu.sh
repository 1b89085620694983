#!/bin/sh
# Deployed networks on a GPU, of freshly trained presets: that they compute the same (`tern parity`, into
# bench/results/cuda-parity-NAME.jsonl) and what packing saves (`tern bench model`, into bench/results/cuda-models-NAME.jsonl),
# each result behind its command. Both files begin anew, also where only some presets are measured.
#
#   TERN=build/release/tern sh bench/models_gpu.sh NAME [PRESET ...]
set -eu
. "$(dirname "$0")/begin.sh"
begin "NAME [PRESET ...]" "$@"
take_folder
models=bench/results/cuda-models-$1.jsonl
parity=bench/results/cuda-parity-$1.jsonl
shift
[ $# -gt 0 ] || set -- mnist-mlp mnist-cnn cifar10-fast cifar10-simple charlm mnist-cnn-trit charlm-trit
about="# $(of_gpu name,driver_version), $today, revision $revision"

# Appends a command of tern's and its result to a file, the folder of the checkpoints left out.
keep() { # FILE ARGUMENTS...
    file=$1
    shift
    echo "# tern $*" | sed "s|$dir/||g" >> "$file"
    "$tern" "$@" >> "$file"
}

echo "$about; inputs and outputs in device memory, CUDA-graph replays, medians" > "$models"
echo "$about; presets trained by tern train PRESET --device cuda, exported with t2; int_wrong: docs/numerics.md" > "$parity"
for preset in "$@"; do
    train "$preset" --device cuda --set evaluate_every=1000000 --out "$dir/run"
    mv "$dir/run/checkpoint.safetensors" "$dir/$preset.safetensors"
    rm -rf "$dir/run"
    "$tern" export "$dir/$preset.safetensors" -o "$dir/$preset.tern" > "$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
    keep "$parity" parity "$dir/$preset.safetensors" "$dir/$preset.tern" --samples 200 --device cuda --json
    case $preset in *-trit) continue ;; esac
    for batch in 1 256; do keep "$models" bench model "$dir/$preset.safetensors" --batch $batch --device cuda --json --seconds 0.2; done
done
