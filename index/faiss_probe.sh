#!/bin/sh
# Finds out how FAISS is linked on this machine and prints it as make variables; what it found is
# said on standard error. Run by faiss.mk, once per build directory, after the packages are there.
#
#   1. A real libfaiss_c (under FAISS_PREFIX or on the search path): linked as it is.
#   2. Else libfaiss.a with faiss_shim.cpp. Our kernels replace the archive's distance member when
#      both define the same functions and a trial link shows that the member stays out.
set -eu
cc=${CC:-cc} cxx=${CXX:-c++}
here=$(dirname "$0")
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
blas="-lopenblas -lgomp -lstdc++ -lm"
cpp= dirs=
if [ -n "${FAISS_PREFIX:-}" ]; then
    cpp="-I$FAISS_PREFIX/include"
    dirs="-L$FAISS_PREFIX/lib -Wl,-rpath,$FAISS_PREFIX/lib"
fi

cat >"$tmp/probe.c" <<'END'
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>

int main(void)
{
    FaissIndex *index = NULL;
    if (faiss_index_factory(&index, 4, "HNSW8,Flat", METRIC_L2))
        return faiss_get_last_error() == NULL;
    faiss_Index_free(index);
    return 0;
}
END
# The kernels' error sentences are of no interest here, and no assertion of theirs is reached.
cat >"$tmp/err.c" <<'END'
#include "base/err.h"
enum err err_set(struct err_ctx *ctx, enum err code, const char *fmt, ...)
{
    (void)ctx, (void)fmt;
    return code;
}
void assert_failed(const char *cond, const char *file, int line)
{
    (void)cond, (void)file, (void)line;
    __builtin_trap();
}
END

say() { echo "faiss: $*" >&2; }
emit() {
    echo "FAISS_CPPFLAGS := $cpp"
    echo "FAISS_LIBS := $1"
    echo "FAISS_SHIM := $2"
    echo "CFLAGS_faiss_kernels := $3"
}
# Names of the public C++ functions of an object file, without FAISS's reference versions (*_ref),
# which nothing outside the member calls.
functions() {
    nm --defined-only "$1" | awk '$2 == "T" && $3 ~ /^_ZN5faiss/ {print $3}' |
        grep -v '_refEP' | sort
}

for libs in "$dirs -lfaiss_c -lfaiss $blas" "$dirs -lfaiss_c $blas"; do
    if $cc $cpp "$tmp/probe.c" -o "$tmp/probe" $libs >/dev/null 2>&1; then
        say "linking its own C API (libfaiss_c); its distance kernels stay as they are"
        emit "$libs" "" "-DLOADSTONE_NO_FAISS_KERNELS"
        exit 0
    fi
done
if [ -n "${FAISS_PREFIX:-}" ]; then
    say "no libfaiss_c under FAISS_PREFIX=$FAISS_PREFIX; trying libfaiss.a there and in the system"
fi

libs="$dirs -l:libfaiss.a $blas"
if ! $cxx $cpp -I"$here/.." -std=c++17 -c "$here/faiss_shim.cpp" -o "$tmp/shim.o" 2>"$tmp/out" ||
    ! $cc $cpp "$tmp/probe.c" "$tmp/shim.o" -o "$tmp/probe" $libs 2>>"$tmp/out"; then
    cat "$tmp/out" >&2
    say "neither libfaiss_c nor libfaiss.a can be linked: install libfaiss-dev and libopenblas-dev," \
        "or set FAISS_PREFIX=DIR"
    exit 1
fi

kernels=-DLOADSTONE_NO_FAISS_KERNELS
archive=$($cc $dirs -print-file-name=libfaiss.a)
if [ -n "${FAISS_PREFIX:-}" ] && [ -f "$FAISS_PREFIX/lib/libfaiss.a" ]; then
    archive=$FAISS_PREFIX/lib/libfaiss.a
fi
archive=$(readlink -f "$archive")
objects=
for src in faiss_kernels kernels kernels_scalar kernels_avx2 kernels_avx512 distance; do
    $cc -D_GNU_SOURCE -I"$here/../src" -I"$here/.." -std=gnu17 -O1 -c "$here/$src.c" \
        -o "$tmp/$src.o"
    objects="$objects $tmp/$src.o"
done
$cc -I"$here/../src" -c "$tmp/err.c" -o "$tmp/err.o"
functions "$tmp/faiss_kernels.o" >"$tmp/ours"
(cd "$tmp" && ar x "$archive" distances_simd.cpp.o) 2>/dev/null || :
[ -f "$tmp/distances_simd.cpp.o" ] && functions "$tmp/distances_simd.cpp.o" >"$tmp/theirs"
if ! cmp -s "$tmp/ours" "$tmp/theirs"; then
    say "libfaiss.a has another set of distance functions than we replace; building with its own"
elif ! $cc $cpp "$tmp/probe.c" "$tmp/shim.o" $objects "$tmp/err.o" -o "$tmp/probe" $libs \
    -Wl,-Map,"$tmp/map" 2>"$tmp/out" ||
    grep -q 'libfaiss\.a(distances_simd\.cpp\.o)$' "$tmp/map"; then
    say "libfaiss.a needs its own distance functions beside ours; building with its own"
else
    say "linking libfaiss.a with our C API shim and our distance kernels"
    kernels=
fi
emit "$libs" "index/faiss_shim.cpp" "$kernels"
