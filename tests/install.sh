# Installs, moves the result, and builds and runs a small program against it from outside: once through
# find_package(tern), once through pkg-config.
set -eu
cmake=${CMAKE:-cmake}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset DESTDIR LD_LIBRARY_PATH

"$cmake" --install "$BUILD" --prefix "$scratch/first" > "$scratch/log"
mv "$scratch/first" "$scratch/moved"
prefix=$scratch/moved
library=$(find "$prefix" -name libtern.so)
libdir=${library%/*}

"$cmake" -S "$SOURCE/tests/install" -B "$scratch/build" -DCMAKE_C_COMPILER="${CC:-cc}" -DCMAKE_PREFIX_PATH="$prefix" \
    > "$scratch/log" 2>&1 && "$cmake" --build "$scratch/build" >> "$scratch/log" 2>&1 || { cat "$scratch/log"; exit 1; }
echo "find_package: $("$scratch/build/hello")"

export PKG_CONFIG_PATH="$libdir/pkgconfig"
${CC:-cc} -std=c11 "$SOURCE/tests/install/hello.c" -o "$scratch/hello" $(pkg-config --cflags --libs tern) \
    -Wl,-rpath,"$libdir"
echo "pkg-config: $("$scratch/hello")"

version=$(pkg-config --modversion tern)
echo "program: $("$prefix/bin/tern" --version)"
"$prefix/bin/tern" --version | grep -qF "$version" || { echo "tern --version does not say $version"; exit 1; }
[ -n "$(find "$prefix" -name LICENSE)" ] || { echo "the licence is not installed"; exit 1; }
