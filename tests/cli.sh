# The program: exit codes, where messages go, and rows that are one JSON object each.
set -eu
cd "${SOURCE:-.}"
failed=0
complain() { echo "cli: $*"; failed=1; }

# expect CODE ARGUMENTS...: the exit code, and silence on standard output where it is a failure
expect() {
    want=$1
    shift
    got=0
    out=$("$PROGRAM" "$@" 2>/dev/null) || got=$?
    [ "$got" -eq "$want" ] || complain "tern $*: exit code $got, should be $want"
    [ "$want" -eq 0 ] || [ -z "$out" ] || complain "tern $*: a failure wrote to standard output"
}

expect 0 --version
expect 0 --help
expect 0 machine
expect 0 bench --help
expect 0 bench kernels --help
expect 2
expect 2 nonsense
expect 2 machine --nonsense
expect 0 devices
expect 0 devices --json
expect 2 devices --nonsense
expect 2 bench nonsense
expect 2 bench kernels --shape 10
expect 2 bench layer --cold
expect 1 bench layer --device gpu
expect 1 bench layer --device cuda:1023
expect 1 eval missing.tern --device cuda:1023
expect 2 bench kernels --shape 0x10
expect 2 bench kernels --m 1,,2
expect 2 bench kernels --m 99999999999999999999
expect 2 bench kernels --acts i4
expect 2 bench kernels --seconds never
expect 2 bench kernels --cold -1
expect 2 bench kernels extra
expect 0 bench layer --help
expect 0 bench model --help
expect 2 bench model
expect 2 bench layer --shape 1,0,5
expect 2 bench layer --pack t3
expect 1 bench model no-such-file
expect 0 bench packing --help
expect 2 bench packing --m 1
expect 2 bench packing --shape 10
expect 0 bench tune --help
expect 2 bench tune --shape 10
expect 2 bench tune --shape 10x
expect 2 bench tune --shape 0x10
expect 2 bench tune --rows 0
expect 2 bench tune --rows 1,2
expect 2 bench tune --packing t3
expect 2 bench tune --acts i4
expect 2 bench tune --device cpu
expect 2 bench tune extra
expect 1 bench tune --device gpu
expect 1 bench tune --device cuda:1023

message=$(TERN_KERNEL=sse9 "$PROGRAM" machine 2>&1 >/dev/null || true)
case $message in *scalar*amx*) ;; *) complain "an unknown TERN_KERNEL does not list the tiers: $message" ;; esac

# A kernel of a GPU where there is none: no command computes without it, and none begins.
if ! "$PROGRAM" devices --json | grep -q '"name"'; then
    folder=$(mktemp -d)
    for command in machine devices "train mnist-mlp --out $folder/run" "eval no-such-file" "run no-such-file x" \
        "bench kernels --shape 70x33" "bench packing --shape 70x33" "bench layer --shape 1,5,5" "bench tune"; do
        got=0
        # shellcheck disable=SC2086 # words
        message=$(TERN_KERNEL=cuda-plain "$PROGRAM" $command 2>&1) || got=$?
        [ "$got" -eq 1 ] || complain "TERN_KERNEL=cuda-plain tern $command: exit code $got, should be 1"
        case $message in *"TERN_KERNEL=cuda-plain"*"no GPU"*"unset it"*) ;; *) complain "$command does not refuse: $message" ;; esac
    done
    [ ! -e "$folder/run" ] || complain "a refused training run left a folder"
    rmdir "$folder"
fi

message=$(TERN_DEVICE=gpu "$PROGRAM" devices 2>&1 >/dev/null || true)
case $message in *cpu*cuda:N*) ;; *) complain "an unknown TERN_DEVICE does not list the devices: $message" ;; esac
row=$("$PROGRAM" devices --json)
case $row in '{"device":'*'}') ;; *) complain "devices is no row: $row" ;; esac

rows=$("$PROGRAM" bench kernels --json --shape 70x33 --m 1,3 --threads 1 --acts i8,f32 --cold 1 --seconds 0.001)
echo "$rows" | grep -vq '^{"op":.*}$' && complain "a line is not a row: $rows"
[ "$(echo "$rows" | grep -c '"op":"matmul"')" -eq 8 ] || complain "not 8 rows of products: $rows"
for key in weights acts tier device threads m n k cache seconds gbps gops bound peak share; do
    echo "$rows" | grep matmul | grep -v "\"$key\":" && complain "a row has no $key"
done

rows=$("$PROGRAM" bench packing --json --shape 70x33 --threads 1,2 --seconds 0.001)
echo "$rows" | grep -vq '^{"op":"packing".*}$' && complain "a line is not a row: $rows"
[ "$(echo "$rows" | wc -l)" -eq 4 ] || complain "not 4 rows of packing: $rows"
for key in weights tier device threads n k quantize pack pack_transposed seconds share; do
    echo "$rows" | grep -v "\"$key\":" && complain "a row has no $key"
done

rows=$("$PROGRAM" bench layer --json --shape 3,70,33 --shape 1,64,64 --threads 1 --pack t5 --seconds 0.001)
echo "$rows" | grep -vq '^{"op":"linear".*}$' && complain "a line is not a row: $rows"
[ "$(echo "$rows" | wc -l)" -eq 6 ] || complain "not 6 rows of layers: $rows"
for key in name variant weights acts tier device threads m n k bytes_weights bytes_peak seconds gbps gops bound peak \
    share smaller faster; do
    echo "$rows" | grep -v "\"$key\":" && complain "a row has no $key"
done
echo "$rows" | grep '"packed","weights":"t5","acts":"i8"' | grep -q '"m":3,"n":70,"k":33' || complain "no packed row: $rows"
"$PROGRAM" bench layer --shape 1,64,64 --seconds 0.001 | grep -q '^linear 64 x 64, m 1 .*packed .* %$' || complain 'no share of the limit'
exit $failed
