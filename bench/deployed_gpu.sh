#!/bin/sh
# What packing saves on a GPU, and that it computes the same: `tern bench layer` and `bench model` into
# bench/results/cuda-layers-NAME.jsonl, `tern parity` of freshly trained presets into bench/results/cuda-parity-NAME.jsonl,
# each result behind its command. bench/deployed_table.py makes docs/deployment.md's table of the first.
#
#   TERN=build/release/tern sh bench/deployed_gpu.sh NAME
set -eu
. "$(dirname "$0")/begin.sh"
begin "NAME" "$@"
take_folder
layers=bench/results/cuda-layers-$1.jsonl
parity=bench/results/cuda-parity-$1.jsonl
about="# $(of_gpu name,driver_version), $today, revision $revision"

# Appends a command of tern's and its result to a file, the folder of the checkpoints left out.
keep() { # FILE ARGUMENTS...
    file=$1
    shift
    echo "# tern $*" | sed "s|$dir/||g" >> "$file"
    "$tern" "$@" >> "$file"
}

echo "$about; inputs and outputs in device memory, CUDA-graph replays, medians" > "$layers"
echo "# peak memory is all that a plan keeps: with products of floats 32 MiB of cuBLASLt's, with bf16 the fp32 weights too, in training gradients" >> "$layers"
keep "$layers" bench layer --device cuda --json --seconds 0.3
keep "$layers" bench layer --device cuda --json --cold --seconds 0.3 --shape 1,2560,2560 --shape 1,3840,2560 --shape 1,2560,6912 \
    --shape 1,13824,2560 --shape 1,8192,8192
echo "$about; presets trained by tern train PRESET --device cuda, exported with t2; int_wrong: docs/numerics.md" > "$parity"
for preset in mnist-mlp mnist-cnn cifar10-fast cifar10-simple charlm mnist-cnn-trit charlm-trit; do
    train $preset --device cuda --set evaluate_every=1000000 --out "$dir/run"
    mv "$dir/run/checkpoint.safetensors" "$dir/$preset.safetensors"
    rm -rf "$dir/run"
    "$tern" export "$dir/$preset.safetensors" -o "$dir/$preset.tern" > "$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
    keep "$parity" parity "$dir/$preset.safetensors" "$dir/$preset.tern" --samples 200 --device cuda --json
    case $preset in *-trit) continue ;; esac
    for batch in 1 256; do keep "$layers" bench model "$dir/$preset.safetensors" --batch $batch --device cuda --json --seconds 0.2; done
done
