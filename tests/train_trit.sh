# Float-free training on the command line: the same bits with any number of threads, after a stop and after being
# killed; deployed as it was trained; and refused what it cannot do. On Fashion-MNIST of Debian's package.
set -eu
. "${SOURCE:?}/tests/common/fashion_mnist.sh"
small='mnist-mlp-trit --set data=fashion-mnist --set width=32 --set batch=32 --set steps=200 --set evaluate_every=100
--set log_every=50'
train() { "$PROGRAM" train $small "$@" > /dev/null; }
same() { cmp a/checkpoint.safetensors "$1"/checkpoint.safetensors || fail "$2"; }

# ---- the same bits
train --out a --set threads=1
train --out c --set threads=1 --stop-at 117
train --out c --set threads=1 --resume
same c 'a resumed run leaves another checkpoint'
# Killed between a save and the next, wherever that is.
for round in 1 2 3; do
    "$PROGRAM" train $small --out k --set threads=1 --set save_every=3 > /dev/null 2>&1 &
    pid=$! tries=0
    until [ -e k/checkpoint.safetensors ] || [ $tries = 500 ]; do sleep 0.02; tries=$((tries + 1)); done
    sleep 0.0$round
    kill -9 $pid 2> /dev/null || echo 'note: too fast here to be killed'
    wait $pid 2> /dev/null || true
    train --out k --set threads=1 --resume
    same k 'killed and resumed, it leaves another checkpoint'
    rm -rf k
done
tensors() { "$PROGRAM" export "$1"/checkpoint.safetensors -o "$1".tern > /dev/null && cksum < "$1".tern; }
train --out b --set threads=2
[ "$(tensors a)" = "$(tensors b)" ] || fail 'one and two threads train different models'

# ---- deployed
parity() {
    "$PROGRAM" parity "$1"/checkpoint.safetensors "$2" --samples 100 --json > parity.json || fail "no parity of $2"
    grep -q '"int_mismatches":0' parity.json || { cat parity.json >&2; fail "integers of $2 differ"; }
}
parity a a.tern
"$PROGRAM" export a/checkpoint.safetensors -o t5.tern --pack t5 --skip fc2 > /dev/null
parity a t5.tern
"$PROGRAM" export a/checkpoint.safetensors -o fold.tern --fold > /dev/null
expect 0 '' "$PROGRAM" eval fold.tern --samples 100
expect 0 '' "$PROGRAM" inspect a.tern
expect 0 '' "$PROGRAM" inspect a/checkpoint.safetensors
train --out g --set granularity=T8 --set slow_exponents=1 --set update=vote
"$PROGRAM" export g/checkpoint.safetensors -o g.tern --pack t5 > /dev/null
parity g g.tern

# ---- refused
expect 1 'not r1' "$PROGRAM" train $small --out a --resume --set update=r1
expect 2 "one of r1|r2|vote|seed-corr|ortho; did you mean 'r1'" "$PROGRAM" train $small --out e --set update=r3
expect 2 "did you mean 'vote'" "$PROGRAM" train $small --out e --set update=votes
expect 2 "one of tensor|row|T4|T6|T8|T16|T32|T64|T96; did you mean" "$PROGRAM" train $small --out e --set granularity=T5
expect 1 'not groups' "$PROGRAM" train $small --out e --set update=seed-corr --set granularity=T8
expect 1 'for weights=trit' "$PROGRAM" train $small --out e --set weights=ternary --set granularity=T8
expect 2 "did you mean 'mnist-mlp'" "$PROGRAM" train mnist-mpl-trit
echo 'float-free training: reproducible, resumable, deployed, and refused what is wrong'
