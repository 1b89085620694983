#!/bin/sh
# What packing saves on a GPU, layer by layer: `tern bench layer` into bench/results/cuda-layers-NAME.jsonl.
# bench/deployed_table.py makes docs/deployment.md's table of it and of what bench/models_gpu.sh keeps.
#
#   TERN=build/release/tern sh bench/layers_gpu.sh NAME
set -eu
. "$(dirname "$0")/begin.sh"
begin "NAME" "$@"
out=bench/results/cuda-layers-$1.jsonl

keep() {
    echo "# tern $*" >> "$out"
    "$tern" "$@" >> "$out"
}

echo "# $(of_gpu name,driver_version), $today, revision $revision; inputs and outputs in device memory, CUDA-graph replays, medians" > "$out"
echo "# peak memory is all that a plan keeps: with products of floats 32 MiB of cuBLASLt's, with bf16 the fp32 weights too, in training gradients" >> "$out"
keep bench layer --device cuda --json --seconds 0.1
keep bench layer --device cuda --json --cold --seconds 0.1 --shape 1,2560,2560 --shape 1,3840,2560 --shape 1,2560,6912 --shape 1,13824,2560 --shape 1,8192,8192
