# suite.sh PRESET [CTEST-ARGUMENT ...]: configures, builds and tests one preset in build/PRESET, as a test of another
# build. Runs in the root of the tree.
set -eu
preset=$1
shift
${CMAKE:-cmake} --preset "$preset" -DTERN_WERROR=ON
${CMAKE:-cmake} --build --preset "$preset"
# A suite that finds nothing to run has not passed.
${CTEST:-ctest} --preset "$preset" --no-tests=error "$@"
