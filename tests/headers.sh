# Each public header compiles alone, as C11 and as C++17, without a warning.
set -eu
cd "${SOURCE:-.}"
failed=0
for header in include/tern/*.h; do
    name=tern/${header##*/}
    flags='-I include -Wall -Wextra -Wpedantic -Werror -fsyntax-only'
    echo "#include \"$name\"" | ${CC:-cc} -std=c11 $flags -x c - || { echo "$name: not C11"; failed=1; }
    echo "#include \"$name\"" | ${CXX:-c++} -std=c++17 $flags -x c++ - || { echo "$name: not C++17"; failed=1; }
done
exit $failed
