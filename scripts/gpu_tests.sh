#!/bin/sh
# Every test that takes a GPU, and all of them again under compute-sanitizer, but fallback_test and gpu_test's chains,
# whose point is kernels that overlap; train_test and limits_test under memcheck alone, as graph_test has all operators.
# Logs: bench/results/gpu-tests-NAME.txt and bench/results/cuda-sanitizer-NAME.txt. Fails if anything did.
#
#   BUILD=build/release sh scripts/gpu_tests.sh NAME
set -eu
cd "$(dirname "$0")/.."
[ $# -eq 1 ] || { echo "usage: sh scripts/gpu_tests.sh NAME" >&2; exit 2; }
build=$(cd "${BUILD:-build/release}" && pwd)
tests=bench/results/gpu-tests-$1.txt
sanitizer=bench/results/cuda-sanitizer-$1.txt
about="$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader), $(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/CUDA \1/p'), $(date -u +%F)"
revision=${REVISION:-$(git describe --always --dirty)}
bad=0

# Appends a command's output to a log, and says how it went.
keep() { # LOG COMMAND...
    log=$1
    shift
    code=0
    echo "# $about, revision $revision: $*" >> "$log"
    begin=$(date +%s)
    "$@" >> "$log" 2>&1 || code=$?
    echo "# exit code $code" >> "$log"
    [ $code = 0 ] || bad=1
    echo "exit code $code, $(($(date +%s) - begin)) s: $*"
}

rm -f "$tests" "$sanitizer"
for name in gpu graph fused train rules limits; do keep "$tests" "$build/tests/${name}_test"; done
keep "$tests" env LD_LIBRARY_PATH="$build/tests/empty_cublaslt:${LD_LIBRARY_PATH:-}" "$build/tests/fallback_test"

# The sanitizers' runs wait for one processor most of the time, so some run side by side, the long ones in parts, each into a log
# of its own; more of them than PLACES stand in each other's way on the GPU. limits_test and the refusals provoke errors of the
# API on purpose.
PLACES=4
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
mkfifo "$logs/places"
exec 3<> "$logs/places"
for place in $(seq $PLACES); do echo >&3; done
count=100
libraries=${LD_LIBRARY_PATH:-}
pinned=
check() { # TOOL TEST..., by $libraries, with $pinned
    tool=$1
    shift
    count=$((count + 1))
    read -r place <&3
    {
        trap 'echo >&3' EXIT
        keep "$logs/$count" env $pinned LD_LIBRARY_PATH="$libraries" compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 9 "$@" || true
    } &
}
parts="1/4 2/4 3/4 4/4"
check memcheck "$build/tests/limits_test" # alone: it fills the device
wait
# Longest first; some eleven minutes in all. racecheck fails inside cuBLASLt's own kernels, and initcheck does not see what those
# and cuda-wgmma's store by the copy engine: plain ones take their place. gpu_test, which reads no outputs on the GPU, needs none.
own=${LD_LIBRARY_PATH:-}
plain=$build/tests/plain_cublaslt:$own
libraries=$plain
for part in $parts; do check racecheck "$build/tests/graph_test" $part; done
libraries=$own
for tool in racecheck memcheck initcheck; do
    check $tool "$build/tests/gpu_test" --quick "many outputs"
    check $tool "$build/tests/gpu_test" --quick "many floats" "float groups" epilogues
    check $tool "$build/tests/gpu_test" --quick int8 "many rows"
    check $tool "$build/tests/gpu_test" --quick "few rows" unaligned quantize
    check $tool "$build/tests/gpu_test" --quick floats "small device" refusals
    check $tool "$build/tests/gpu_test" --quick groups "all groups"
    check $tool "$build/tests/gpu_test" --quick tuning
done
for name in graph train; do
    for part in $parts; do check memcheck "$build/tests/${name}_test" $part; done
done
check memcheck "$build/tests/fused_test"
libraries=$plain
for tool in racecheck initcheck; do check $tool "$build/tests/fused_test"; done
for tool in memcheck initcheck racecheck; do check $tool "$build/tests/rules_test" --quick; done
pinned=TERN_KERNEL=cuda-plain
for part in $parts; do check initcheck "$build/tests/graph_test" $part; done
wait
cat "$logs"/[0-9]* > "$sanitizer"
! grep -q '^# exit code [^0]' "$sanitizer" || bad=1
exit $bad
