# Every source looks as .clang-format says. To mend: clang-format -i FILE.
set -eu
cd "${SOURCE:-.}"
if ! command -v clang-format > /dev/null; then
    echo "skipped: there is no clang-format"
    exit 77
fi
find include src cli examples bench tests -name '*.[ch]' 2> /dev/null | sort | xargs clang-format --dry-run -Werror
