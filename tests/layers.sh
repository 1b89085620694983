# Fails on an #include that points the wrong way. Each row of `allowed` is a folder, and what it may include besides
# itself: tern stands for include/tern/, the rest for folders of src/.
set -eu
cd "${SOURCE:-.}"

allowed='
include/tern: tern
src/base:     tern
src/quant:    tern base
src/kern:     tern base quant
src/cpu:      tern base quant kern
src/cuda:     tern base quant io
src/io:       tern base quant
src/nn:       tern base quant kern cpu
src/gpu:      tern base quant cuda io nn
src/model:    tern base quant io nn cuda gpu
src/train:    tern base quant io nn model cuda gpu
src/api:      tern base quant kern cpu cuda io nn model train
cli:          tern
examples:     tern
bench:        tern
tests/unit:   tern base quant kern cpu cuda io nn gpu model train api
tests/common: tern base io
tests/kern:   tern base quant kern
tests/gpu:    tern base quant cpu cuda io nn gpu train
tests/grad:   tern base quant kern cpu nn
tests/fuzz:   tern base quant kern cpu cuda io nn model train api
tests/install: tern
'
# What include/tern may take from outside: C11, less what C++17 lacks.
standard=' assert ctype errno fenv float inttypes limits locale math setjmp signal stdarg stdbool stddef stdint stdio
stdlib string time uchar wchar wctype '

find include src cli examples bench tests -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' 2> /dev/null | sort |
    xargs grep -nE '^[[:space:]]*#[[:space:]]*include' /dev/null |
    allowed=$allowed standard=$standard awk '
    function fail(why) { printf "%s:%s: %s: %s\n", file, line, name, why; failed = 1 }
    function exists(path,   found, got) { found = (getline got < path) >= 0; close(path); return found }
    BEGIN {
        rows = split(ENVIRON["allowed"], row, "\n")
        for (i = 1; i <= rows; i++) {
            if (split(row[i], half, ":") < 2) continue
            known[half[1]] = 1
            may[half[1]] = " " half[2] " "
        }
        standard = ENVIRON["standard"]
        gsub(/\n/, " ", standard)
        split("tern base quant kern cpu cuda io nn gpu model train api", ours)
        for (i in ours) is_ours[ours[i]] = 1
    }
    {
        file = $0; sub(/:.*/, "", file)
        line = $0; sub(/^[^:]*:/, "", line); sub(/:.*/, "", line)
        name = $0; sub(/^[^:]*:[^:]*:[ \t]*#[ \t]*include[ \t]*/, "", name)
        quoted = substr(name, 1, 1) == "\""
        sub(/^["<]/, "", name); sub(/[">].*/, "", name)

        split(file, part, "/")
        folder = file ~ /^(cli|examples|bench)\// ? part[1] : part[1] "/" part[2]
        if (!(folder in known)) { fail("the folder " folder " has no row in tests/layers.sh"); next }
        here = file; sub(/\/[^\/]*$/, "", here)

        first = name; if (!sub(/\/.*/, "", first)) first = ""
        if (!quoted && !(first in is_ours)) {
            if (folder == "include/tern" && index(standard, " " substr(name, 1, length(name) - 2) " ") == 0)
                fail("public headers include only C standard headers and tern/")
            next
        }
        if (first == "") {
            if (folder ~ /^src\// || folder == "include/tern") fail("write our headers with their folder")
            else if (!exists(here "/" name) && !(folder ~ /^tests\// && exists("tests/common/" name)))
                fail("there is no " here "/" name)
            next
        }
        if (folder ~ /^(src|include)\// && !quoted) { fail("write our headers in quotes"); next }
        if (!(first in is_ours)) { fail("no folder of ours has this name"); next }
        if (folder == "src/" first) next
        if (index(may[folder], " " first " ") == 0) fail(folder " may not include " first "/")
    }
    END { exit failed }'
