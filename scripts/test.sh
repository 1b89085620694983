#!/bin/sh
# Sets up, builds and tests everything: the release build with gcc, and as tests of it the other presets (clang, the
# sanitizers, fuzzing, ARM under QEMU). Ends with ctest's summary; fails if anything did.
set -eu
cd "$(dirname "$0")/.."

echo '== setup: packages'
sh scripts/setup.sh
echo '== configure: build/test'
cmake --preset test
echo '== build: release with gcc, warnings are errors'
cmake --build --preset test
echo '== test: this build, then the presets as suites'
ctest --preset test
