#!/bin/sh
# The whole story on real data: trains a ternary network on Fashion-MNIST (Debian's dataset-fashion-mnist), packs it,
# proves that the packed model computes what was trained, evaluates it, and prints what packing saves. Under four minutes
# on two cores. Leaves runs/demo/ behind: checkpoint.safetensors, metrics.jsonl, report.html and fashion.tern.
#
#   sh scripts/demo.sh [EPOCHS]      4 by default
set -eu
cd "$(dirname "$0")/.."
epochs=${1:-4}
out=runs/demo

step() { printf '\n== %s\n' "$*"; }

step 'setup: packages and build'
sh scripts/setup.sh
cmake --preset release > /dev/null
cmake --build --preset release --target tern_program > /dev/null
tern=build/release/tern

step "train: a ternary CNN on Fashion-MNIST, $epochs epochs"
$tern train fashion-cnn --set "epochs=$epochs" --out $out

step 'export: 2 bits a weight'
$tern export $out/checkpoint.safetensors -o $out/fashion.tern

step 'parity: every integer of the packed model against the trained one'
$tern parity $out/checkpoint.safetensors $out/fashion.tern --samples 100

step 'evaluate the packed model'
$tern eval $out/fashion.tern

step 'classify the first test image (an ankle boot)'
$tern run $out/fashion.tern --test 0

step 'what packing saves: one image at a time, then one layer'
$tern bench model $out/checkpoint.safetensors --threads 1
$tern bench layer --shape 32,4096,1024 --shape 512,768,768 --shape 1,4096,1024 --threads 1 --seconds 0.3

printf '\nleft behind:\n  %s/report.html   curves to look at\n  %s/fashion.tern  the model to copy to a device\n' $out $out
