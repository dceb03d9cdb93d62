#!/bin/sh
# What filters cost, evaluated and in searches; BENCH_FILTER_ROWS (200000) rows.
set -eu
"$BUILD/bench/filter_rows" "$BUILD/bench" "${BENCH_FILTER_ROWS:-200000}"
