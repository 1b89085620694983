#!/bin/sh
# Presets on a GPU as the README quotes them, into bench/results/training-NAME.jsonl: an object a run, with what was set, the
# device and the revision in front. Evaluated at the end alone. A line below is: seeds, preset, settings.
#
#   TERN=build/release/tern sh bench/training_gpu.sh NAME [ROWS]      ROWS: lines to run instead, such as "3 charlm steps=500"
set -eu
. "$(dirname "$0")/begin.sh"
begin "NAME [ROWS]" "$@"
take_folder
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
gpu=$(of_gpu)
driver=$(of_gpu driver_version)

echo "$rows" | while read -r seeds preset settings; do
    set --
    for one in $settings; do set -- "$@" --set "$one"; done
    seed=1
    while [ "$seed" -le "$seeds" ]; do
        train "$preset" --device cuda "$@" --set "seed=$seed" --set evaluate_every=1000000 --out "$dir/run"
        head="\"preset\":\"$preset\",\"settings\":\"$settings\",\"seed\":$seed,\"device\":\"$gpu\",\"driver\":\"$driver\""
        sed "s|^{|{$head,\"date\":\"$today\",\"revision\":\"$revision\",|; s|,\"checkpoint\":\"[^\"]*\"||" "$dir/json" | tee -a "$out"
        rm -rf "$dir/run"
        seed=$((seed + 1))
    done
done
