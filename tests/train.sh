# The main job on the command line: training is reproducible, survives being killed, and is refused what is wrong. On
# Fashion-MNIST of Debian's package, a few steps at a time.
set -eu
. "${SOURCE:?}/tests/common/fashion_mnist.sh"
# A small network on few samples a step: seconds.
small='mnist-mlp --set data=fashion-mnist --set width=32 --set batch=32 --set steps=60 --set evaluate_every=30
--set log_every=10'
train() { "$PROGRAM" train $small "$@"; }

# ---- the same bits: again, with another number of threads, and after a stop
train --out a --json > a.json
train --out b --set threads=1 --json > b.json
grep -q '"finished":true' a.json || fail 'the run has not finished'
tensors() { # what was trained, without the settings that may differ
    "$PROGRAM" export "$1"/checkpoint.safetensors -o "$1".tern --json > "$1".export && cksum < "$1".tern
}
[ "$(tensors a)" = "$(tensors b)" ] || fail 'one and two threads train different models'
train --out c --stop-at 25 > /dev/null
train --out c --resume > /dev/null
[ "$(tensors a)" = "$(tensors c)" ] || fail 'a resumed run trains another model'
cmp a/checkpoint.safetensors c/checkpoint.safetensors || fail 'a resumed run leaves another checkpoint'
[ "$(grep -c '"val_loss"' c/metrics.jsonl)" = "$(grep -c '"val_loss"' a/metrics.jsonl)" ] || fail 'metrics after resuming'
grep -q '</html>' c/report.html || fail 'no report'

# ---- killed at any moment: what was saved goes on to the same bits
killed=0
for delay in 0.4 0.6 0.8 1.0 1.3; do
    "$PROGRAM" train $small --out k --set save_every=5 > /dev/null 2>&1 &
    pid=$!
    sleep $delay
    kill -9 $pid 2> /dev/null || true
    wait $pid 2> /dev/null || true
    [ -e k/checkpoint.safetensors ] || continue
    killed=1
    train --out k --set save_every=5 --resume > /dev/null
    [ "$(tensors a)" = "$(tensors k)" ] || fail "killed after $delay s and resumed, it trains another model"
    rm -rf k
done
[ $killed = 1 ] || echo 'note: too slow here to be killed between saves'

# ---- interrupted: saves and stops cleanly
"$PROGRAM" train $small --out i --set steps=1000000 --set evaluate_every=1000000 > i.txt 2>&1 &
pid=$!
tries=0
until [ -s i/metrics.jsonl ] || [ $tries = 300 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -INT $pid
wait $pid || fail 'an interrupted run has a bad exit code'
grep -q 'resume' i.txt || fail 'an interrupted run does not say how to go on'
[ -e i/checkpoint.safetensors ] || fail 'an interrupted run has not saved'

# ---- a full disk leaves the old checkpoint whole
before=$(cksum < c/checkpoint.safetensors)
( ulimit -f 20; trap '' XFSZ; train --out c --set steps=60 > /dev/null 2> full.txt ) && fail 'a full disk went unnoticed'
[ "$(cksum < c/checkpoint.safetensors)" = "$before" ] || fail 'a full disk has damaged the checkpoint'

# ---- deployed
expect 0 '' "$PROGRAM" parity a/checkpoint.safetensors a.tern --samples 200
grep -q 'trained is deployed' out.txt || fail 'no parity'
"$PROGRAM" parity a/checkpoint.safetensors a.tern --samples 200 --json | grep -q '"int_mismatches":0' || fail 'parity as JSON'
expect 0 '' "$PROGRAM" eval a.tern --json
expect 0 '' "$PROGRAM" eval a/checkpoint.safetensors --json --samples 1000
expect 0 '' "$PROGRAM" inspect a.tern
expect 0 '' "$PROGRAM" run a.tern --test 0
strings -n 4 a.tern | grep -qi 'optimizer\|momentum\|latent' && fail 'the deployed model holds something of training'
"$PROGRAM" export a/checkpoint.safetensors -o skip.tern --skip fc1 --pack t5 > /dev/null
expect 0 '' "$PROGRAM" parity a/checkpoint.safetensors skip.tern --samples 200
"$PROGRAM" export a/checkpoint.safetensors -o fold.tern --fold > /dev/null
expect 0 '' "$PROGRAM" eval fold.tern
# Convolutions, a whitening layer from the data, Muon, six views, statistics taken anew at the end; and a text.
"$PROGRAM" train cifar10-fast --set data=fashion-mnist --set width=8 --set batch=32 --set steps=12 --set recalibrate=3 \
    --set evaluate_every=100 --out f > /dev/null
"$PROGRAM" train cifar10-fast --set data=fashion-mnist --set width=8 --set batch=32 --set steps=12 --set recalibrate=3 \
    --set evaluate_every=100 --set threads=1 --out f1 > /dev/null
[ "$(tensors f)" = "$(tensors f1)" ] || fail 'one and two threads train different convolutions'
expect 0 '' "$PROGRAM" parity f/checkpoint.safetensors f.tern --samples 50
for i in $(seq 400); do echo "line $i of a text to learn"; done > text.txt
"$PROGRAM" train charlm --data text.txt --set width=32 --set depth=1 --set context=16 --set steps=30 --out l > /dev/null
tensors l > /dev/null
expect 0 '' "$PROGRAM" parity l/checkpoint.safetensors l.tern --data text.txt
expect 0 '' "$PROGRAM" run l.tern 'line 7' --tokens 20
grep -q '^line 7' out.txt || fail 'no text'
expect 1 'not in the vocabulary' "$PROGRAM" run l.tern '#'
# Room for more tokens than the text has: they are never drawn.
"$PROGRAM" train charlm --data text.txt --set width=32 --set depth=1 --set context=16 --set steps=6 --set vocabulary=1000 \
    --out wide > /dev/null
tensors wide > /dev/null
"$PROGRAM" inspect wide.tern | grep -q '1024' || fail 'a head without the room that it was to have'
expect 0 '' "$PROGRAM" parity wide/checkpoint.safetensors wide.tern --data text.txt
expect 0 '' "$PROGRAM" run wide.tern 'line 7' --tokens 40 --temperature 5
grep -q '[^ -~]' out.txt && fail 'a token that the text does not have'
# Another training run is another model.
train --out d --set seed=2 > /dev/null
expect 1 '' "$PROGRAM" parity d/checkpoint.safetensors a.tern --samples 200

# The full-precision twin beside it, in folders that are made.
train --out new/t --twin > twin.txt
grep -q 'its full-precision twin' twin.txt && [ -e new/t-fp/report.html ] || fail 'no twin'

# ---- refused
damage() { # a copy with one byte changed
    cp "$1" damaged.tern
    printf '\377' | dd of=damaged.tern bs=1 seek="$2" conv=notrunc 2> /dev/null
    cmp -s "$1" damaged.tern && printf '\001' | dd of=damaged.tern bs=1 seek="$2" conv=notrunc 2> /dev/null
    return 0
}
for place in 3 20 400 9000; do
    damage a.tern $place
    expect 1 'damaged.tern' "$PROGRAM" eval damaged.tern
done
head -c 5000 a.tern > cut.tern
expect 1 'cut.tern' "$PROGRAM" eval cut.tern
expect 1 'no-such.tern' "$PROGRAM" eval no-such.tern
# A device that is not there: said before any work.
expect 1 'no GPU' "$PROGRAM" eval a.tern --device cuda:1000
expect 1 'no GPU' "$PROGRAM" run a.tern --device cuda:1000 --test 0
expect 1 'no GPU' train --out e --device cuda:1000
expect 1 'device tpu is unknown' train --out e --device tpu
[ ! -e e/checkpoint.safetensors ] || fail "a refused device left a checkpoint"
expect 1 'width=32, not 48' train --out c --resume --set width=48
expect 1 'no-such-place' train --out e --data no-such-place
expect 2 "did you mean 'mnist-mlp'" "$PROGRAM" train mnist-mpl
expect 2 "did you mean 'epochs'" train --out e --set epoch=3
expect 2 'one of sgd|adamw|muon' train --out e --set optimizer=adam
expect 2 'lr=fast' train --out e --set lr=fast
expect 2 'skip: there is no ternary layer' sh -c '"$0" export a/checkpoint.safetensors -o e.tern --skip fc9 || exit 2' "$PROGRAM"
printf '{"preset": "mnist-mlp", "widht": 3}' > wrong.json
expect 2 "did you mean 'width'" "$PROGRAM" train wrong.json
mkdir short
cp $data/* short/
head -c 100000 $data/train-images-idx3-ubyte.gz > short/train-images-idx3-ubyte.gz
expect 1 'train-images-idx3-ubyte.gz' train --out e --data short
# What takes a GPU.
expect 1 'products=f16 takes a GPU' train --out e --device cpu --set products=f16
expect 1 'input_gradients=int8 takes a GPU' train --out e --device cpu --set input_gradients=int8
# A rate that blows up: steps are skipped and named, and training stops.
expect 1 'a lower lr' train --out e --set optimizer=sgd --set side_optimizer=sgd --set lr=1e6 --set warmup=0 \
    --set weights=float --set max_skips=2
echo 'training: reproducible, resumable, deployed, and refused what is wrong'
