#!/bin/sh
# make fuzz: runs each target for FUZZ_SECONDS (60) on one core; FUZZ_TARGETS="json log" picks some.
# What a run finds interesting gathers in build/fuzz/found/<target>; the seeds in tests/fuzz/corpus
# stay as they are. An input that fails is kept as build/fuzz/found/<target>.crash-*: once the fault is
# mended, move it into tests/fuzz/corpus/<target>, where `make unit` replays it from then on.
set -u
cd "$(dirname "$0")/../.." || exit 1

BUILD=${BUILD:-build/fuzz}
FUZZ_SECONDS=${FUZZ_SECONDS:-60}
failed=0

for target in ${FUZZ_TARGETS:?names of targets}; do
    found=$BUILD/found/$target
    log=$found.log
    mkdir -p "$found" "tests/fuzz/corpus/$target"
    nice -n 19 "$BUILD/tests/fuzz/fuzz_$target" -max_total_time="$FUZZ_SECONDS" -timeout=20 \
        -rss_limit_mb=2048 -max_len=16384 -use_value_profile=1 -print_final_stats=1 \
        -artifact_prefix="$found." "$found" "tests/fuzz/corpus/$target" >"$log" 2>&1
    status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ $status -ne 0 ]; then
        echo "FAILED  $target: status $status, see $log"
        grep -E 'ERROR|SUMMARY|ASSERT|Test unit written|runtime error' "$log" | head -n 8
        failed=1
    else
        echo "clean   $target: $FUZZ_SECONDS s, ${runs:-?} inputs"
    fi
done
exit $failed
