#!/bin/sh
# The study of docs/float-free.md: every rule on three networks, beside fp32 latents (STE) and the full-precision twin at
# equal steps, an object a run into bench/results/float-free-NAME.jsonl; the curves into docs/float-free-*.svg. Hours.
#
#   sh bench/float_free.sh NAME [SEEDS [PRESET ...]]      NAME says which machine, such as spr-2c; 3 seeds
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { echo "usage: sh bench/float_free.sh NAME [SEEDS [PRESET ...]]" >&2; exit 2; }
tern=build/release/tern
out=bench/results/float-free-$1.jsonl
seeds=${2:-3}
[ $# -lt 2 ] && shift || shift 2
[ $# -gt 0 ] || set -- mnist-mlp charlm cifar10-fast
[ -x "$tern" ] || { echo "bench/float_free.sh: build first: cmake --preset release && cmake --build --preset release" >&2; exit 1; }

# What each preset's run changes, so that the whole study ends in a night; the same for all of its rows.
common() {
    case $1 in
    mnist-mlp) echo "--set epochs=10" ;;
    cifar10-fast) echo "--set epochs=4" ;;
    esac
}

# run PRESET LABEL SEED ARGUMENT ...
run() {
    preset=$1 label=$2 seed=$3
    shift 3
    dir=runs/float-free-$preset-$label-$seed
    "$tern" train "$@" $(common "$preset") --set seed="$seed" --out "$dir" --json > "$dir.json"
    sed "s/^{/{\"network\":\"$preset\",\"rule\":\"$label\",\"seed\":$seed,\"date\":\"$(date -u +%Y-%m-%d)\",\"revision\":\"$(git rev-parse --short HEAD)\",/
         s/,\"checkpoint\":\"[^\"]*\"//" "$dir.json" | tee -a "$out"
}

mkdir -p runs
for preset in "$@"; do
    seed=1
    while [ $seed -le "$seeds" ]; do
        run "$preset" fp "$seed" "$preset-fp"
        run "$preset" ste "$seed" "$preset"
        run "$preset" ortho "$seed" "$preset-trit"
        run "$preset" r2 "$seed" "$preset-trit" --set update=r2 --set lr=1
        run "$preset" r1 "$seed" "$preset-trit" --set update=r1 --set lr=3
        run "$preset" vote "$seed" "$preset-trit" --set update=vote --set lr=2
        run "$preset" seed-corr "$seed" "$preset-trit" --set update=seed-corr
        seed=$((seed + 1))
    done
    python3 bench/float_free_curves.py "$preset" > "docs/float-free-$preset.svg"
done
