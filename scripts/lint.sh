#!/bin/sh
# make lint: how the code must look, checked in four steps.
#   format    clang-format finds nothing to change
#   layers    includes run one way: api -> index -> src/store -> src/io -> src/base
#   marks     no marks of unfinished work, no paths of one machine
#   analyser  clang-tidy with the checks of .clang-tidy, no finding allowed
# `lint.sh quick` leaves the analyser out (make check does that: it takes minutes). `lint.sh FILE...`
# analyses these files only. Every finding is printed; any one ends with status 1.
set -u
cd "$(dirname "$0")/.." || exit 1

BUILD=${BUILD:-build}
CPPFLAGS="-D_GNU_SOURCE -Isrc -I. -Itests ${FAISS_CPPFLAGS:-}"
failed=0

sources() {
    find src index api tests bench -name '*.[ch]' -o -name '*.cpp' -o -name '*.hpp' | sort
}

check() {
    printf '%-10s' "$1"
    if findings=$("$2"); then
        echo 'ok'
    else
        printf 'FAILED\n%s\n' "$findings"
        failed=1
    fi
}

format() {
    sources | xargs clang-format --dry-run -Werror --ferror-limit=3 2>&1
}

# Each file may include its own layer and those below; a name without a layer has no place.
layers() {
    find src index api -name '*.[ch]' -o -name '*.cpp' | sort | xargs awk '
    function layer(path) {
        if (path ~ /^base\//) return 1
        if (path ~ /^io\//) return 2
        if (path ~ /^store\//) return 3
        if (path ~ /^index\//) return 4
        if (path ~ /^api\//) return 5
        if (path ~ /^(main|settings)\.[ch]$/) return 6
        return 0
    }
    function complain(why) {
        print FILENAME ":" FNR ": " why
        bad = 1
    }
    FNR == 1 {
        inside = FILENAME
        sub(/^src\//, "", inside)
        mine = layer(inside)
        if (!mine) complain("lies in no layer: src/{base,io,store}, index or api")
    }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
        split($0, part, "\"")
        its = layer(part[2])
        if (!its) complain("include \"" part[2] "\" names no layer: write \"base/...\" and so on")
        else if (its > mine) complain(part[2] " lies above: includes run api -> index -> store -> io -> base")
    }
    /^[ \t]*#[ \t]*include[ \t]*</ {
        split($0, part, /[<>]/)
        if (part[2] ~ /^faiss\// && FILENAME !~ /^index\/faiss_/)
            complain("only index/faiss_* touches FAISS")
        if (part[2] ~ /^microhttpd\.h$/ && mine < 5)
            complain("HTTP and JSON belong to api/")
        if (part[2] == "liburing.h" && FILENAME !~ /^src\/io\//)
            complain("io_uring belongs to src/io/")
    }
    END { exit bad }'
}

# The words are put together here so that this file does not match itself.
marks() {
    words="TO""DO|FIX""ME|XX""X|HA""CK|not (yet )?implemen""ted"
    paths="(^|[^[:alnum:]_.])/(wo""rk|ro""ot|home/[a-z])/"
    if grep -rnIE "\\b($words)\\b|$paths" --include='*.[ch]' --include='*.cpp' --include='*.py' \
        --include='*.sh' --include='*.mk' --include=Makefile --include='*.md' \
        --exclude-dir=build --exclude-dir=.git .; then
        return 1
    fi
}

# One clang-tidy a core; its statistics go away, its findings stay. omp.h is GCC's (clang has none of
# its own here), without the attribute arguments that clang does not know. Calls are followed deeper
# than by default: an error that comes back through six functions is still an error.
tidy() {
    ln -sf "$(cc -print-file-name=include/omp.h)" "$BUILD/tidy/omp.h"
    flags="$CPPFLAGS -isystem $BUILD/tidy -D__malloc__(...)= \
        -Xclang -analyzer-inline-max-stack-depth -Xclang 12 \
        -Xclang -analyzer-config -Xclang max-times-inline-large=1000"
    printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} sh -c '
        case $1 in
        *.cpp) flags="$2 -std=c++17" ;;
        src/base/err.c) flags="$2 -std=gnu17" ;;
        *) flags="$2 -std=gnu17 -include scripts/analyser_model.h" ;;
        esac
        clang-tidy --quiet "$1" -- $flags 2>/dev/null' sh {} "$flags"
}

analyser() {
    mkdir -p "$BUILD/tidy"
    tidy $analysed >"$BUILD/tidy/findings"
    status=$?
    cat "$BUILD/tidy/findings"
    [ $status -eq 0 ] && ! grep -qE '(warning|error):' "$BUILD/tidy/findings"
}

for tool in clang-format clang-tidy; do
    if [ "$tool $*" != 'clang-tidy quick' ] && ! command -v "$tool" >/dev/null; then
        echo "lint.sh: $tool is missing: run sh scripts/setup.sh lint" >&2
        exit 1
    fi
done
check format format
check layers layers
check marks marks
if [ "${1:-}" != quick ]; then
    analysed=${*:-$(find src index api bench \( -name '*.c' -o -name '*.cpp' \) | sort)}
    check analyser analyser
fi
exit $failed
