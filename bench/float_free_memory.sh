#!/bin/sh
# Peak memory of training, measured: a wide MLP with fp32 latents and AdamW, and float-free with r1 and r2, into
# bench/results/float-free-memory-NAME.jsonl. What a run of a network of width 1 holds (program, libraries) is taken
# off: the rest is weights, state, gradients and scratch, and of a batch of 16 samples the activations. The data are
# 160 images of noise, so that reading them leaves no peak of its own in what is taken off.
#
#   sh bench/float_free_memory.sh NAME      NAME says which machine, such as spr-2c
set -eu
. "$(dirname "$0")/begin.sh"
begin "NAME" "$@"
take_folder
out=bench/results/float-free-memory-$1.jsonl
common="--data $dir/data --set depth=2 --set batch=16 --set threads=1 --set steps=1000 --set evaluate_every=1000 --stop-at 20"

mkdir "$dir/data"
for split in train t10k; do
    { printf '\0\0\10\3\0\0\0\240\0\0\0\34\0\0\0\34' && head -c $((160 * 784)) /dev/urandom; } > "$dir/data/$split-images-idx3-ubyte"
    { printf '\0\0\10\1\0\0\0\240' && for i in $(seq 16); do printf '\0\1\2\3\4\5\6\7\10\11'; done; } > "$dir/data/$split-labels-idx1-ubyte"
done

run() { # WIDTH PRESET SETTING ...: the result as JSON
    width=$1 preset=$2
    shift 2
    train "$preset" --set width=$width $common "$@" --out "$dir/run"
    cat "$dir/json"
}
field() { echo "$2" | sed "s/.*\"$1\":\([0-9.]*\).*/\1/"; }

: > "$out"
latent=
for kind in "ste-adamw mnist-mlp" "r1 mnist-mlp-trit --set update=r1" "r2 mnist-mlp-trit --set update=r2"; do
    name=${kind%% *}
    small=$(run 1 ${kind#* })
    wide=$(run 4096 ${kind#* })
    base=$(field peak_bytes "$small") peak=$(field peak_bytes "$wide") weights=$(field trained_weights "$wide")
    : "${latent:=$((peak - base))}"
    awk "BEGIN { printf \"{\\\"weights\\\":\\\"$name\\\",\\\"width\\\":4096,\\\"depth\\\":2,\\\"trained_weights\\\":$weights,\" \
        \"\\\"state_bytes\\\":$(field state_bytes "$wide"),\\\"state_bits_per_weight\\\":$(field state_bits_per_weight "$wide"),\" \
        \"\\\"baseline_bytes\\\":$base,\\\"peak_bytes\\\":$peak,\\\"training_bytes\\\":%d,\\\"bytes_per_weight\\\":%.2f,\" \
        \"\\\"times_less\\\":%.2f,\\\"date\\\":\\\"$today\\\",\\\"revision\\\":\\\"$revision\\\"}\\n\", \
        $peak - $base, ($peak - $base) / $weights, $latent / ($peak - $base) }" | tee -a "$out"
done
