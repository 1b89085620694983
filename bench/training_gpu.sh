#!/bin/sh
# Presets on a GPU as the README quotes them, into bench/results/training-NAME.jsonl: an object a run, with what was set, the
# device and the revision in front. Evaluated at the end alone. A line below is: seeds, preset, settings.
#
#   TERN=build/release/tern sh bench/training_gpu.sh NAME [ROWS]      ROWS: lines to run instead, such as "3 charlm steps=500"
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { echo "usage: sh bench/training_gpu.sh NAME [ROWS]" >&2; exit 2; }
tern=${TERN:-build/release/tern}
out=bench/results/training-$1.jsonl
rows=${2:-"10 cifar10-fast
10 cifar10-fast width=128 width_later=384 epochs=24
3 cifar10-large
1 cifar10-fast-fp
1 cifar10-simple batch=1024
2 charlm
1 charlm-fp
1 charlm-large
1 charlm-large-fp"}
[ -x "$tern" ] || { echo "bench/training_gpu.sh: build first: cmake --preset release && cmake --build --preset release" >&2; exit 1; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1)
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1)
revision=${REVISION:-$(git rev-parse --short HEAD)}

echo "$rows" | while read -r seeds preset settings; do
    set --
    for one in $settings; do set -- "$@" --set "$one"; done
    seed=1
    while [ "$seed" -le "$seeds" ]; do
        "$tern" train "$preset" --device cuda "$@" --set "seed=$seed" --set evaluate_every=1000000 --out "$dir/run" --json \
            > "$dir/json" 2> "$dir/log" || { cat "$dir/log" >&2; exit 1; }
        head="\"preset\":\"$preset\",\"settings\":\"$settings\",\"seed\":$seed,\"device\":\"$gpu\",\"driver\":\"$driver\""
        sed "s|^{|{$head,\"date\":\"$(date -u +%Y-%m-%d)\",\"revision\":\"$revision\",|; s|,\"checkpoint\":\"[^\"]*\"||" "$dir/json" | tee -a "$out"
        rm -rf "$dir/run"
        seed=$((seed + 1))
    done
done
