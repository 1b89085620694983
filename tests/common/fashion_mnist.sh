# For scripts that train on Fashion-MNIST of Debian's package: skips where it is not there, works in a folder of its own.
: "${PROGRAM:?}"
data=/usr/share/datasets/fashion-mnist
if [ ! -e $data/train-images-idx3-ubyte.gz ]; then
    echo "skipped: $data is not there (apt-get install dataset-fashion-mnist)"
    exit 77
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
fail() {
    echo "FAILED: $*" >&2
    exit 1
}
# expect CODE TEXT COMMAND ...: the exit code, and the text on standard error.
expect() {
    code=$1 text=$2 got=0
    shift 2
    "$@" > out.txt 2> err.txt || got=$?
    [ $got = "$code" ] || { cat err.txt >&2; fail "exit code $got instead of $code: $*"; }
    [ -z "$text" ] || grep -qF -- "$text" err.txt || { cat err.txt >&2; fail "no '$text' from: $*"; }
}
