# Sourced by the scripts beside it: what they all begin with.

# begin USAGE ARGUMENTS...: goes to the root of the tree. USAGE names the arguments: the first, without brackets, must be
# there. Leaves $tern, the program (TERN=PROGRAM: another build), $revision (REVISION=TEXT: where there is no git) and
# $today.
begin() {
    script=bench/$(basename "$0")
    cd "$(dirname "$0")/.."
    usage=$1
    shift
    case $usage in *' '*) most=$# ;; *) most=1 ;; esac
    if [ $# -lt 1 ] || [ $# -gt "$most" ]; then
        echo "usage: sh $script $usage" >&2
        exit 2
    fi
    tern=${TERN:-build/release/tern}
    if [ ! -x "$tern" ]; then
        echo "$script: build first: cmake --preset release && cmake --build --preset release" >&2
        exit 1
    fi
    revision=${REVISION:-$(git describe --always --dirty)}
    today=$(date -u +%F)
}

# $dir, a folder that goes with the script.
take_folder() {
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
}

# train ARGUMENTS...: tern train, its JSON to $dir/json; its messages where it fails.
train() {
    "$tern" train "$@" --json > "$dir/json" 2> "$dir/log" || {
        cat "$dir/log" >&2
        exit 1
    }
}

# Of the first GPU: its name, or what nvidia-smi calls otherwise.
of_gpu() { # [FIELDS]
    nvidia-smi --query-gpu="${1:-name}" --format=csv,noheader | head -1
}
