#!/bin/sh
# make bench: compiles the helpers and runs the measurements, or only those named.
#   bench/run.sh [bulk_load] [json_load] [memory] [startup] [faiss_kernels] [recall_latency]
#                [strip_layout] [filter_rows] [fetch] [search_overhead] [upload_latency] [parallel_parts]
#                [upsert_rate] [group_commit] [many_versions] [old_version] [refresh_search]
#                [export_rate]
# BENCH_ROWS (1000000), BENCH_KEYS (5000000), BENCH_ROUNDS, BENCH_SECONDS, BENCH_STARTS,
# BENCH_JSON_MB, BENCH_VERSIONS, BENCH_SERIAL, BENCH_PARTS and PYTHON may be set. Everything lies under
# $BUILD/bench; the indexed million and the features are kept there for the next run.
set -eu
cd "$(dirname "$0")/.."

BUILD=${BUILD:-build}
CC=${CC:-cc}
LOADSTONED=${LOADSTONED:-$BUILD/loadstoned}
export BUILD LOADSTONED
mkdir -p "$BUILD/bench"

compile() {
    name=$1
    shift
    "$CC" -std=gnu17 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -Isrc -I. "bench/$name.c" \
        -o "$BUILD/bench/$name" "$@"
}

compile http_upload -lpthread
compile disk_write -luring
compile discard_server -lmicrohttpd
compile load_gen bench/load_http.c bench/load_resp.c -lm
compile strip_layout
compile feature_rows "$BUILD/api/number.o" -lstdc++
"${CXX:-c++}" -std=c++17 -O2 -march=native -Wall -Wextra -Werror bench/json_load.cpp \
    -o "$BUILD/bench/json_load" -lsimdjson
compile json_vector "$BUILD/api/json_reader.o" "$BUILD/api/float_run.o" "$BUILD/api/number.o" \
    "$BUILD/src/base/bytes.o" "$BUILD/src/base/err.o" -lstdc++ -lm

all="bulk_load json_load memory startup faiss_kernels recall_latency strip_layout filter_rows fetch
    search_overhead upload_latency parallel_parts upsert_rate group_commit many_versions old_version
    export_rate refresh_search"
for measurement in ${*:-$all}; do
    printf '\n== %s\n' "$measurement"
    if [ -f "bench/$measurement.sh" ]; then
        sh "bench/$measurement.sh"
    else
        "${PYTHON:-python3}" "bench/$measurement.py"
    fi
done
