#!/bin/sh
# Measures the kernels of this machine as the README quotes them, into bench/results/cpu-kernels-NAME.{txt,jsonl}.
#
#   sh bench/kernels.sh NAME        NAME says which machine, such as spr-2c
set -eu
. "$(dirname "$0")/begin.sh"
begin "NAME" "$@"
out=bench/results/cpu-kernels-$1

run() {
    echo "\$ tern bench kernels $*" >>"$out.txt"
    "$tern" bench kernels --json "$@" | tee -a "$out.jsonl" | python3 bench/table.py >>"$out.txt"
    echo >>"$out.txt"
}

: >"$out.jsonl"
{
    echo "date      $today"
    echo "revision  $revision"
    echo "compiler  $(cc --version | head -n 1)"
    echo "processor $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) processors"
    "$tern" machine
    echo
} >"$out.txt"
shapes=2560x2560,13824x2560,2560x6912,8192x8192
run --shape $shapes --m 1,8,128
run --shape 6912x2560 --threads 2
run --shape $shapes --acts f32 --m 1
if "$tern" machine --json | grep -q '"amx":true'; then
    run --tier avx512 --m 128 --shape $shapes --packing t2
    run --tier avx512 --m 32,512 --shape 6912x2560 --threads 2
fi
run --tier avx2,scalar --m 128 --shape 2560x2560 --packing t2
echo "$out.txt"
