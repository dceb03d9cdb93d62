#!/bin/sh
# Strips against columns for fixed-width features: bench/strip_layout.c says what it measures.
set -eu
"${BUILD:-build}/bench/strip_layout" "${BENCH_KEYS:-5000000}"
