#!/bin/sh
# Measures the kernels of this machine as the README quotes them, into bench/results/cpu-kernels-NAME.{txt,jsonl}.
#
#   sh bench/kernels.sh NAME        NAME says which machine, such as spr-2c
set -eu
cd "$(dirname "$0")/.."
[ $# -eq 1 ] || { echo "usage: sh bench/kernels.sh NAME" >&2; exit 2; }
tern=build/release/tern
out=bench/results/cpu-kernels-$1
[ -x "$tern" ] || { echo "bench/kernels.sh: build first: cmake --preset release && cmake --build --preset release" >&2; exit 1; }

run() {
    echo "\$ tern bench kernels $*" >>"$out.txt"
    "$tern" bench kernels --json "$@" | tee -a "$out.jsonl" | python3 bench/table.py >>"$out.txt"
    echo >>"$out.txt"
}

: >"$out.jsonl"
{
    echo "date      $(date -u +%Y-%m-%d)"
    echo "revision  $(git rev-parse --short HEAD)"
    echo "compiler  $(cc --version | head -n 1)"
    echo "processor $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) processors"
    "$tern" machine
    echo
} >"$out.txt"
run
run --acts f32 --m 1
if "$tern" machine --json | grep -q '"amx":true'; then
    run --tier avx512 --m 1,8,32,128,512 --shape 2560x2560,13824x2560,2560x6912,8192x8192,6912x2560
fi
run --tier avx2,scalar --m 1,128 --shape 2560x2560,6912x2560
echo "$out.txt"
