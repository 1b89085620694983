#!/bin/sh
# Measures the kernels of a GPU as the README quotes them, with cuBLAS in the same run, into
# bench/results/cuda-kernels-NAME.jsonl; `python3 bench/kernels_gpu_table.py < FILE` prints the README's table of it.
#
#   TERN=build/release/tern sh bench/kernels_gpu.sh NAME        NAME says which card, such as h200
set -eu
. "$(dirname "$0")/begin.sh"
begin "NAME" "$@"
bench=$(dirname "$tern")/tern_gpu_bench
[ -x "$bench" ] || { echo "$script: there is no $bench: it takes a build with CUDA" >&2; exit 1; }
out=bench/results/cuda-kernels-$1.jsonl
few=2560x2560,3840x2560,2560x6912,13824x2560,8192x8192
all=$few,5120x27648,55296x5120

# What a tuner found on this machine stays out: the rules that every user starts with choose.
TERN_CACHE=off
export TERN_CACHE
run() {
    echo "# tern_gpu_bench $*" >> "$out"
    "$bench" --json "$@" >> "$out"
}

echo "# $(of_gpu name,driver_version), $today, revision $revision" > "$out"
run --m 1,8 --packing t2,t5 --shape $all
run --m 1 --acts f16 --packing t2,t5 --shape $all
run --m 32 --packing t5 --shape $few
run --m 32,128,512,2048 --packing t2 --shape $few --peers
run --m 512,2048 --acts bf16 --packing t2 --shape 8192x8192,2560x2560
echo "$out"
