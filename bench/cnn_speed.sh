#!/bin/sh
# Images per second of training CNNs on a GPU, steady state: of two runs of different length the difference, so that neither
# the start nor the evaluation counts. Into bench/results/cnn-speed-NAME.jsonl, an object a preset.
#
#   TERN=build/release/tern sh bench/cnn_speed.sh NAME
set -eu
. "$(dirname "$0")/begin.sh"
begin "NAME" "$@"
take_folder
out=bench/results/cnn-speed-$1.jsonl
gpu=$(of_gpu)

seconds() { # PRESET BATCH STEPS: of training alone
    train "$1" --device cuda --set "batch=$2" --set "steps=$3" --set evaluate_every=1000000 --out "$dir/run"
    rm -rf "$dir/run"
    sed 's/.*"train_seconds":\([0-9.e+-]*\).*/\1/' "$dir/json"
}

rm -f "$out"
while read -r preset batch few many; do
    short=$(seconds "$preset" "$batch" "$few")
    long=$(seconds "$preset" "$batch" "$many")
    awk -v short="$short" -v long="$long" -v few="$few" -v many="$many" -v batch="$batch" -v preset="$preset" -v gpu="$gpu" \
        -v date="$today" -v revision="$revision" 'BEGIN {
            each = (long - short) / (many - few)
            printf "{\"preset\":\"%s\",\"batch\":%d,\"steps\":\"%d to %d\",\"us_per_step\":%.1f,\"images_per_second\":%.0f,",
                   preset, batch, few, many, 1e6 * each, batch / each
            printf "\"device\":\"%s\",\"date\":\"%s\",\"revision\":\"%s\"}\n", gpu, date, revision
        }' | tee -a "$out"
done << ROWS
cifar10-simple 1024 300 1500
cifar10-fast 500 200 800
ROWS
