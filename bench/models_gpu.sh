#!/bin/sh
# Deployed networks on a GPU, of freshly trained presets: that they compute the same (`tern parity`, into
# bench/results/cuda-parity-NAME.jsonl) and what packing saves (`tern bench model`, into bench/results/cuda-models-NAME.jsonl),
# each result behind its command.
#
#   TERN=build/release/tern sh bench/models_gpu.sh NAME
set -eu
cd "$(dirname "$0")/.."
[ $# -eq 1 ] || { echo "usage: sh bench/models_gpu.sh NAME" >&2; exit 2; }
tern=${TERN:-build/release/tern}
[ -x "$tern" ] || { echo "bench/models_gpu.sh: build first: cmake --preset release && cmake --build --preset release" >&2; exit 1; }
models=bench/results/cuda-models-$1.jsonl
parity=bench/results/cuda-parity-$1.jsonl
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
about="# $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -1), $(date -u +%F), revision ${REVISION:-$(git describe --always --dirty)}"

# Appends a command of tern's and its result to a file, the folder of the checkpoints left out.
keep() { # FILE ARGUMENTS...
    file=$1
    shift
    echo "# tern $*" | sed "s|$dir/||g" >> "$file"
    "$tern" "$@" >> "$file"
}

echo "$about; inputs and outputs in device memory, CUDA-graph replays, medians" > "$models"
echo "$about; presets trained by tern train PRESET --device cuda, exported with t2; int_wrong: docs/numerics.md" > "$parity"
for preset in mnist-mlp mnist-cnn cifar10-fast cifar10-simple charlm mnist-cnn-trit charlm-trit; do
    "$tern" train $preset --device cuda --set evaluate_every=1000000 --out "$dir/run" > "$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
    mv "$dir/run/checkpoint.safetensors" "$dir/$preset.safetensors"
    rm -rf "$dir/run"
    "$tern" export "$dir/$preset.safetensors" -o "$dir/$preset.tern" > "$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
    keep "$parity" parity "$dir/$preset.safetensors" "$dir/$preset.tern" --samples 200 --device cuda --json
    case $preset in *-trit) continue ;; esac
    for batch in 1 256; do keep "$models" bench model "$dir/$preset.safetensors" --batch $batch --device cuda --json --seconds 0.2; done
done
