# Every source looks as .clang-format says. To mend: clang-format -i FILE.
set -eu
cd "${SOURCE:-.}"
if ! command -v clang-format > /dev/null; then
    echo "skipped: there is no clang-format"
    exit 77
fi
failed=0
for file in $(find include src cli examples bench tests -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' 2> /dev/null | sort); do
    clang-format --dry-run -Werror "$file" 2> /dev/null || { echo "$file"; failed=1; }
done
[ $failed = 0 ] || echo 'clang-format -i these.'
exit $failed
