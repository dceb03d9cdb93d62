#!/bin/sh
# HNSW search through FAISS with our distance kernels against FAISS as it comes: the same index
# file, one query at a time on one thread, the two executables in turn. Prints a table; the target
# is a ratio of 2 at the same recall.
#
#   bench/faiss_kernels.sh [DIR]     DIR: base.u8bin.gz and query.u8bin.gz of MNIST
#   ROWS=1000000 ROUNDS=5            size of the synthetic set, rounds (the best of them counts)
set -eu
cd "$(dirname "$0")/.."
rows=${ROWS:-100000} rounds=${ROUNDS:-3}
efs="${EFS:-16 32 64 128 256}"
dir=${BUILD:-build}/bench-faiss-kernels
cc=${CC:-cc}
mkdir -p "$dir"

CC=$cc sh index/faiss_probe.sh >"$dir/faiss.mk" 2>/dev/null
value() { sed -n "s/^$1 := //p" "$dir/faiss.mk"; }
shim=$(value FAISS_SHIM) libs=$(value FAISS_LIBS) cpp=$(value FAISS_CPPFLAGS)
if [ -z "$shim" ]; then
    echo "a real libfaiss_c is linked here: its kernels are not replaced, nothing to compare" >&2
    exit 1
fi

compile() { # OUT FLAGS
    # shellcheck disable=SC2086 # lists of words
    $cc $cpp -D_GNU_SOURCE -Isrc -I. -std=gnu17 -O3 -Wall -Wextra -Werror $2 bench/faiss_kernels.c \
        index/faiss_kernels.c index/kernels*.c src/base/err.c "$dir/shim.o" -o "$dir/$1" $libs
}
# shellcheck disable=SC2086
${CXX:-c++} $cpp -I. -std=c++17 -O2 -c "$shim" -o "$dir/shim.o"
compile ours ""
compile theirs -DLOADSTONE_NO_FAISS_KERNELS

measure() { # TITLE DATA QUERIES PREFIX
    [ -f "$4.truth" ] || "$dir/ours" build "$2" "$3" "$4"
    : >"$4.runs"
    for round in $(seq "$rounds"); do
        for which in theirs ours; do
            # shellcheck disable=SC2086
            OMP_NUM_THREADS=1 "$dir/$which" search "$3" "$4" $efs | sed "s/^/$which /" >>"$4.runs"
        done
    done
    echo "$1"
    awk '
        { if (!($2 in recall)) order[++n] = $2
          recall[$2, $1] = $3; recall[$2] = 1
          if ($4 > best[$2, $1]) best[$2, $1] = $4 }
        END {
          printf "%6s  %18s  %18s  %6s\n", "ef", "FAISS as it comes", "with our kernels", "ratio"
          printf "%6s  %9s %8s  %9s %8s\n", "", "recall@10", "1/s", "recall@10", "1/s"
          for (i = 1; i <= n; i++) {
            e = order[i]
            printf "%6d  %9.4f %8d  %9.4f %8d  %6.2f\n", e, recall[e, "theirs"], best[e, "theirs"],
                recall[e, "ours"], best[e, "ours"], best[e, "ours"] / best[e, "theirs"]
          }
        }' "$4.runs"
}

measure "clustered, $rows x 128" "clustered:$rows:128:1" "clustered:2000:128:2" "$dir/clustered-$rows"
if [ $# -gt 0 ]; then
    for part in base query; do
        [ -f "$dir/$part.u8bin" ] || gunzip -c "$1/$part.u8bin.gz" >"$dir/$part.u8bin"
    done
    measure "MNIST, 60000 x 784" "$dir/base.u8bin" "$dir/query.u8bin" "$dir/mnist"
fi
