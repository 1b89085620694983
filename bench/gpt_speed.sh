#!/bin/sh
# Tokens per second and device memory of training the GPT-2-124M shape (12 blocks of 768, context 1024, batch 32, 50304 tokens)
# on a GPU: Tern's, ternary and full precision, and PyTorch's compiled BitLinear, in one run, into
# bench/results/gpt-speed-NAME.jsonl. Steady state: the steps after the first 20, without evaluation.
#
#   TERN=build/release/tern PYTHON=python3 sh bench/gpt_speed.sh NAME
#
# Tern reads a text: what `tern data text` brings, or the file that TEXT names. PYTHON=: leaves PyTorch out.
set -eu
. "$(dirname "$0")/begin.sh"
begin "NAME" "$@"
take_folder
out=bench/results/gpt-speed-$1.jsonl
gpu=$(of_gpu)

# Tern's settings of a row of model=gpt.
measure() { # ENGINE PRESET
    train "$2" --device cuda ${TEXT:+--data "$TEXT"} --out "$dir/run" --stop-at 120 \
        --set width=768 --set depth=12 --set heads=12 --set context=1024 --set batch=32 --set vocabulary=50304 \
        --set dropout=0 --set lr=1e-3 --set log_every=20 --set steps=100000 --set evaluate_every=100000
    bytes=$(sed 's/.*"device_bytes":\([0-9]*\).*/\1/' "$dir/json")
    # images_per_second counts samples since the start: seconds so far are samples over it.
    awk -v bytes="$bytes" -v name="$1" -v gpu="$gpu" '
        /"images_per_second"/ {
            match($0, /"step":[ ]*[0-9]+/); step = substr($0, RSTART + 7, RLENGTH - 7) + 0
            match($0, /"images_per_second":[ ]*[0-9.e+]+/); rate = substr($0, RSTART + 20, RLENGTH - 20) + 0
            if (step == 20) first = 20 * 32 / rate
            if (step == 120) last = 120 * 32 / rate
        }
        END {
            each = (last - first) / 100
            printf "{\"engine\": \"Tern\", \"weights\": \"%s\", \"device\": \"%s\", \"width\": 768, \"depth\": 12, ", name, gpu
            printf "\"heads\": 12, \"context\": 1024, \"batch\": 32, \"vocabulary\": 50304, \"ms_per_step\": %.3f, ", 1000 * each
            printf "\"tokens_per_second\": %.0f, \"device_bytes\": %s}\n", 32 * 1024 / each, bytes
        }' "$dir/run/metrics.jsonl"
    rm -rf "$dir/run"
}
{
    measure W1.58A8 charlm
    ${PYTHON:-python3} bench/torch_gpt.py
    measure float charlm-fp
} | tee "$out"
