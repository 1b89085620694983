#!/bin/sh
# Every test that takes a GPU, and all of them again under compute-sanitizer. Logs: bench/results/gpu-tests-NAME.txt and
# bench/results/cuda-sanitizer-NAME.txt. Fails if anything did.
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
for name in gpu graph train rules limits; do keep "$tests" "$build/tests/${name}_test"; done
keep "$tests" env LD_LIBRARY_PATH="$build/tests/empty_cublaslt:${LD_LIBRARY_PATH:-}" "$build/tests/fallback_test"

check() { # TOOL TEST...: nothing but what it finds, and the test's own last line
    tool=$1
    shift
    # limits_test and the refusals provoke errors of the API on purpose.
    keep "$sanitizer" compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 9 "$@"
}
check memcheck "$build/tests/gpu_test" --quick
for name in graph train rules limits; do check memcheck "$build/tests/${name}_test"; done
check initcheck "$build/tests/gpu_test" --quick
check racecheck "$build/tests/gpu_test" --quick
# racecheck fails inside cuBLASLt's own kernels, and initcheck does not see what they store by the copy engine: plain ones
# take their place.
LD_LIBRARY_PATH=$build/tests/plain_cublaslt:${LD_LIBRARY_PATH:-}
export LD_LIBRARY_PATH
for name in graph rules; do
    check initcheck "$build/tests/${name}_test"
    check racecheck "$build/tests/${name}_test"
done
exit $bad
