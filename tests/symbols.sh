# The library exports the functions marked TERN_API in the public headers, and nothing else. And no two sources of the
# tree share a name: a message, a breakpoint or an object file then says which one is meant.
set -eu
cd "${SOURCE:-.}"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

for header in include/tern/*.h; do
    echo "#include \"tern/${header##*/}\""
done | ${CC:-cc} -E -P -I include -x c - | tr '\n' ' ' | tr ';' '\n' |
    sed -n 's/.*visibility("default"))) *\([^(]*[ *]\)\(tern_[a-z0-9_]*\) *(.*/\2/p' | sort -u > "$scratch/declared"
nm -D --defined-only "$LIBRARY" | awk '{ sub(/@.*/, "", $3); print $3 }' | sort -u > "$scratch/exported"

failed=0
if [ ! -s "$scratch/declared" ]; then
    echo "found no TERN_API function in include/tern"
    failed=1
fi
comm -23 "$scratch/declared" "$scratch/exported" | sed 's/$/: declared TERN_API, but not exported/' > "$scratch/wrong"
comm -13 "$scratch/declared" "$scratch/exported" | sed 's/$/: exported, but no public header declares it/' \
    >> "$scratch/wrong"
find include src cli examples bench tests scripts lab -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.sh' \
    2> /dev/null > "$scratch/sources" || true # a folder may be missing
sed 's,.*/,,' "$scratch/sources" | sort | uniq -d | while read -r name; do
    echo "more than one file is named $name:"
    grep "/$name\$" "$scratch/sources"
done >> "$scratch/wrong"
if [ -s "$scratch/wrong" ]; then
    cat "$scratch/wrong"
    failed=1
fi
exit $failed
