#!/bin/sh
# The study of docs/float-free.md: every rule on three networks, beside fp32 latents (STE) and the full-precision twin at
# equal steps, an object a run into bench/results/float-free-NAME.jsonl; the curves into docs/float-free-*.svg. Minutes
# on a GPU; hours on a CPU, for which SHORT=1 takes 10 epochs of mnist-mlp and 4 of cifar10-fast.
#
#   sh bench/float_free.sh NAME [PRESET ...]      NAME says which machine, such as h200
#
# SEEDS="1 2 3" chooses the seeds, RULES="r1 r2" some of the rows, TERN=PROGRAM another build. Calls with different seeds
# or rules may run side by side, on a CPU with THREADS=1.
set -eu
. "$(dirname "$0")/begin.sh"
begin "NAME [PRESET ...]" "$@"
out=bench/results/float-free-$1.jsonl
shift
[ $# -gt 0 ] || set -- mnist-mlp charlm cifar10-fast

# What each preset's run changes; the same for all of its rows.
common() {
    case ${SHORT:+$1} in
    mnist-mlp) echo "--set epochs=10" ;;
    cifar10-fast) echo "--set epochs=4" ;;
    esac
}

# run PRESET LABEL SEED ARGUMENT ...
run() {
    preset=$1 label=$2 seed=$3
    shift 3
    dir=runs/float-free-$preset-$label-$seed
    "$tern" train "$@" $(common "$preset") --set threads="${THREADS:-0}" --set seed="$seed" --out "$dir" --json > "$dir.json"
    sed "s/^{/{\"network\":\"$preset\",\"rule\":\"$label\",\"seed\":$seed,\"date\":\"$today\",\"revision\":\"$revision\",/
         s/,\"checkpoint\":\"[^\"]*\"//" "$dir.json" | tee -a "$out"
}

# How each rule is run; the rates are the best of those tried.
arguments() {
    case $2 in
    fp) echo "$1-fp" ;;
    ste) echo "$1" ;;
    ortho) echo "$1-trit --set update=ortho --set lr=$([ "$1" = charlm ] && echo 1.7 || echo 1)" ;;
    r2) echo "$1-trit --set update=r2 --set lr=1" ;;
    r1) echo "$1-trit --set update=r1 --set lr=3" ;;
    vote) echo "$1-trit --set update=vote --set lr=2" ;;
    seed-corr) echo "$1-trit --set update=seed-corr" ;;
    *) echo "$script: $2 is none of $rules" >&2; exit 2 ;;
    esac
}

rules="fp ste ortho r2 r1 vote seed-corr"
mkdir -p runs
for preset in "$@"; do
    for seed in ${SEEDS:-1 2 3}; do
        for rule in ${RULES:-$rules}; do
            run "$preset" "$rule" "$seed" $(arguments "$preset" "$rule")
        done
    done
    python3 bench/float_free_curves.py "$preset" > "docs/float-free-$preset.svg"
done
