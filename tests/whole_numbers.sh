# What whole numbers decide on the command line: weights of the loss's components, how many bits persist, integers of
# scale groups, and other groups on export. On Fashion-MNIST of Debian's package, a few steps at a time, in one thread.
set -eu
. "${SOURCE:?}/tests/common/fashion_mnist.sh"
small='--set data=fashion-mnist --set width=32 --set batch=32 --set steps=12 --set evaluate_every=12 --set threads=1'
latent() { "$PROGRAM" train mnist-mlp $small "$@"; }
trit() { "$PROGRAM" train mnist-mlp-trit $small --set update=r2 "$@"; }
tensors() { # what was trained, without the settings that may differ
    "$PROGRAM" export "$1"/checkpoint.safetensors -o "$1".tern > /dev/null && cksum < "$1".tern
}

# ---- the loss: a component without weight changes no bit, one with a weight does
for kind in latent trit; do
    $kind --out $kind > /dev/null
    $kind --out other --set loss_ce=4 --set loss_shift=2 --set loss_entropy=0 --set loss_z=0 > /dev/null
    [ "$(tensors $kind)" = "$(tensors other)" ] || fail "$kind: a component of weight 0 trains another model"
    $kind --out other --set loss_ce=3 --set loss_entropy=-1 --set loss_z=1 --set loss_shift=1 > /dev/null
    [ "$(tensors $kind)" = "$(tensors other)" ] && fail "$kind: components change nothing"
    # A quarter of the loss, shown as such; what validates is the cross-entropy all the same.
    $kind --out other --set steps=1 --set loss_shift=2 --json > quarter.json
    $kind --out other --set steps=1 --json > whole.json
    awk -F'"loss":' '{split($2, v, ","); loss[NR] = v[1]; split($0, w, "\"val_loss\":"); split(w[2], u, ","); val[NR] = u[1]}
        END {d = loss[2] - 4 * loss[1]; exit !(d < 1e-6 && d > -1e-6 && val[1] > 1 && val[2] > 1)}' quarter.json whole.json ||
        { cat quarter.json whole.json >&2; fail "$kind: halvings of the loss"; }
done
expect 1 'there is nothing to train on' latent --out e --set loss_ce=0
expect 2 'loss_z=128' latent --out e --set loss_z=128
expect 2 'loss_entropy=-128' latent --out e --set loss_entropy=-128
expect 2 'loss_z=0.5' latent --out e --set loss_z=0.5
expect 2 'loss_shift=31' latent --out e --set loss_shift=31
expect 1 'loss_z=0, not 1' latent --out latent --resume --set loss_z=1

# ---- bits that persist to train on, to the byte; in the result, the report and the checkpoint
norms=$((2 * (32 * 2 * 2 + 32 * 2 * 4))) # gains and biases in int16, statistics in int32
weights=$((784 * 32 + 32 * 32 + 32 * 10 + 2 * 32 * 2))
# state UPDATE BYTES_OF_FC1 BYTES_OF_FC2 BYTES_OF_HEAD: of a scale a row, so 32, 32 and 10 exponents, and one a layer
state() {
    trit --out state --set update=$1 --json > state.json
    total=$(($2 + $3 + $4 + 74 + 3 + norms))
    grep -q "\"trained_weights\":$weights,\"state_bytes\":$total," state.json ||
        { cat state.json >&2; fail "$1: not $total bytes for $weights weights"; }
    bits=$(awk "BEGIN {printf \"%.2f\", 8 * $total / $weights}")
    grep -q "<th>state bits per weight</th><td>$bits</td>" state/report.html || fail "$1: the report lacks $bits bits"
    "$PROGRAM" inspect state/checkpoint.safetensors > inspect.txt
    grep -q "^to train on: .* for $weights weights, $bits bits a weight" inspect.txt || fail "$1: inspect lacks $bits bits"
    grep -q "fc1 .*(row), .*, trained by $1, state" inspect.txt || fail "$1: inspect lacks the rule"
    "$PROGRAM" inspect state/checkpoint.safetensors --json > inspect.json
    grep '"fc1"' inspect.json | grep -q "\"parameters\":25088,.*\"update\":\"$1\",\"state_bytes\":$(($2 + 33))," ||
        { cat inspect.json >&2; fail "$1: not $2 bytes and 33 in fc1"; }
}
state r1 25088 1024 320
state r2 50176 2048 640
state vote $((25088 + 32 * 157)) $((1024 + 32 * 7)) $((320 + 10 * 7)) # trits in t5
state ortho 50176 2048 640
state seed-corr $((32 * 157 + 32 * 8 + 4)) $((32 * 7 + 32 * 8 + 4)) $((10 * 7 + 10 * 8 + 4))
trit --out state --set granularity=T32 > /dev/null
"$PROGRAM" inspect state/checkpoint.safetensors > inspect.txt
grep -q 'fc1 .*-1 .*0 .*+1 .*(T32), .*trained by r2' inspect.txt || fail 'inspect lacks the group'
# fp32, and two floats of AdamW; the norms' statistics have none
latent --out state --json > state.json
grep -q "\"state_bytes\":$((weights * 12 + 2 * 64 * 4))," state.json || fail 'the state of fp32 latents'
"$PROGRAM" inspect state/checkpoint.safetensors | grep -q 'fc1 .*state 96.00 bits' || fail 'fc1 of fp32 latents'
grep -q '"peak_bytes":[1-9]' state.json || fail 'no peak'
"$PROGRAM" inspect latent.tern | grep -q 'to train on' && fail 'a deployed model has no state to train on'

# ---- integers of scale groups: of either kind; thresholds rest in the first thousand steps; saved, resumed, deployed
both='--set granularity=T16 --set group_rates=1 --set group_thresholds=1'
trit --out both $both --json > both.json
trit --out other $both --set zeros=30 > /dev/null
[ "$(tensors both)" = "$(tensors other)" ] || fail 'thresholds of groups move before their first step'
trit --out other --set granularity=T16 --set group_thresholds=1 > /dev/null
[ "$(tensors both)" = "$(tensors other)" ] && fail 'rates of groups change nothing'
groups=$((32 * 49 + 32 * 2 + 10 * 2)) # and an exponent, a rate and a threshold each
grep -q "\"state_bytes\":$((50176 + 2048 + 640 + 3 + 3 * groups + norms))," both.json ||
    { cat both.json >&2; fail 'the state of groups'; }
trit --out other $both --stop-at 5 > /dev/null
trit --out other $both --resume > /dev/null
cmp both/checkpoint.safetensors other/checkpoint.safetensors || fail 'resumed, groups leave another checkpoint'
expect 0 '' "$PROGRAM" parity both/checkpoint.safetensors both.tern --samples 50
expect 1 'rules r1 and r2' trit --out e --set update=vote --set group_rates=1
expect 1 'a scale a row or a group' trit --out e --set granularity=tensor --set group_rates=1
expect 2 'zeros=100' trit --out e --set zeros=100
for i in $(seq 400); do echo "line $i of a text to learn"; done > text.txt
"$PROGRAM" train charlm-trit --data text.txt --set width=32 --set depth=1 --set context=16 --set steps=20 \
    --set threads=1 --set update=r2 $both --out text > /dev/null || fail 'groups in a network with a table'

# ---- exported with other groups: split ones compute the same bits, merged ones nearly; refused with the reason
"$PROGRAM" export both/checkpoint.safetensors -o t4.tern --group T4 > /dev/null
"$PROGRAM" inspect t4.tern | grep -q 'fc1 .*(T4)' || fail 'the exported groups are not T4'
expect 0 '' "$PROGRAM" parity both/checkpoint.safetensors t4.tern --samples 200
grep -q 'difference *0$' out.txt || { cat out.txt >&2; fail 'split groups change a logit'; }
trit --out plain --set granularity=T16 > /dev/null
for group in tensor row T6 T32; do
    "$PROGRAM" export plain/checkpoint.safetensors -o merged.tern --group $group > /dev/null
    "$PROGRAM" eval merged.tern --samples 500 > /dev/null || fail "merged to $group"
done
"$PROGRAM" inspect merged.tern | grep -q 'fc1 .*(T32)' || fail 'the exported groups are not T32'
expect 1 'fc2: groups of 64 columns' "$PROGRAM" export both/checkpoint.safetensors -o e.tern --group T64
[ ! -e e.tern ] || fail 'a refused export leaves a file'
expect 1 'rates of groups' "$PROGRAM" export both/checkpoint.safetensors -o e.tern --group tensor
expect 1 'fc1 has no whole-number weights' "$PROGRAM" export latent/checkpoint.safetensors -o e.tern --group row
expect 1 'deployed already' "$PROGRAM" export t4.tern -o e.tern --group row
trit --out other --set update=seed-corr > /dev/null
expect 1 "fc1: seed-corr's scales are no powers of two" "$PROGRAM" export other/checkpoint.safetensors -o e.tern --group row
expect 2 "not 'T5'" "$PROGRAM" export both/checkpoint.safetensors -o e.tern --group T5

echo 'whole numbers: components of the loss weighted, bits of state counted, integers of groups, groups changed, and refused what is wrong'
