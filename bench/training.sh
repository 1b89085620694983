#!/bin/sh
# Trains presets as the README quotes them, each with several seeds and beside its full-precision twin, into
# bench/results/training-NAME.jsonl: an object a run, "preset" and "seed" added. Hours, all in all.
#
#   sh bench/training.sh NAME [SEEDS [PRESET ...]]      NAME says which machine, such as spr-2c; 3 seeds
set -eu
. "$(dirname "$0")/begin.sh"
begin "NAME [SEEDS [PRESET ...]]" "$@"
out=bench/results/training-$1.jsonl
seeds=${2:-3}
[ $# -lt 2 ] && shift || shift 2
[ $# -gt 0 ] || set -- mnist-mlp mnist-cnn fashion-cnn cifar10-simple cifar10-fast charlm

mkdir -p runs
for preset in "$@"; do
    for run in "$preset" "$preset-fp"; do
        seed=1
        while [ $seed -le "$seeds" ]; do
            dir=runs/bench-$run-$seed
            "$tern" train "$run" --set seed=$seed --out "$dir" --json > "$dir.json"
            sed "s/^{/{\"preset\":\"$run\",\"seed\":$seed,\"date\":\"$today\",\"revision\":\"$revision\",/" \
                "$dir.json" | tee -a "$out"
            seed=$((seed + 1))
        done
    done
done
