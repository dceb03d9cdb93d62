#!/bin/sh
# make check: everything quick. The binaries are built already (make does that).
#   scripts/check.sh [style] [unit] [isa] [http]     all four when none is named; or contract
#   style    format and layers (scripts/lint.sh quick)
#   unit     every tests/unit/*/test_*.c and tests/fault/test_*.c, and the corpora of tests/fuzz
#   isa      the unit tests of searches once more with the scalar kernels, and with those for AVX2
#   http     pytest against the real daemon, in a Python environment of its own (build/venv)
#   contract schemathesis against the OpenAPI document for CONTRACT_SECONDS (make schemathesis)
# What the tests need is installed first. All steps run even when one fails; the summary names each.
# Any failure, or a step that ran no test, ends with status 1.
set -u
cd "$(dirname "$0")/.." || exit 1

BUILD=${BUILD:-build}
VENV=${VENV:-build/venv}
HTTP_TESTS=${HTTP_TESTS:-tests/http}
LOADSTONED=${LOADSTONED:-$BUILD/loadstoned}
TEST_TIMEOUT_S=${TEST_TIMEOUT_S:-240}
TEST_TMPDIR=${TEST_TMPDIR:-$BUILD/tmp}
export LOADSTONED TEST_TMPDIR
mkdir -p "$TEST_TMPDIR" || exit 1

summary=''
failed=0
note() {
    summary="$summary
  $1"
}

step() {
    printf '\n== %s\n' "$1"
}

fail() {
    note "FAILED  $1"
    failed=1
}

python_for_venv() {
    for candidate in /usr/bin/python3 python3; do
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    echo "check.sh: no python3 with the venv module: apt-get install python3-venv" >&2
    return 1
}

# The environment is made anew when the pinned list changed; a half-made one has no stamp.
make_venv() {
    if cmp -s tests/requirements.txt "$VENV/requirements.txt"; then
        return 0
    fi
    python=$(python_for_venv) || return 1
    echo "installing $(tr '\n' ' ' <tests/requirements.txt)into $VENV"
    rm -rf "$VENV"
    "$python" -m venv "$VENV" &&
        "$VENV/bin/pip" install --quiet --disable-pip-version-check \
            -r tests/requirements.txt &&
        cp tests/requirements.txt "$VENV/requirements.txt"
}

# One unit test binary; its output is shown when it fails. Prints "N" tests passed to $count.
run_unit() {
    log=$BUILD/tests/$1.log
    started=$(date +%s)
    timeout "$TEST_TIMEOUT_S" "$BUILD/tests/$1" >"$log" 2>&1
    status=$?
    took=$(($(date +%s) - started))
    count=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -n 1)
    if [ $status -ne 0 ] || [ "${count:-0}" -eq 0 ]; then
        printf 'FAILED  %s (status %s, %s s)\n' "$1" $status $took
        tail -n 40 "$log"
        return 1
    fi
    printf 'ok      %-28s %4s tests %3s s\n' "$1" "$count" $took
}

# Runs the tests of these sources; $1 is the name of the step.
unit_tests() {
    what=$1 tests=0 bad=0
    shift
    for source in "$@"; do
        [ -e "$source" ] || continue
        name=${source#tests/}
        name=${name#unit/}
        if run_unit "${name%.c}"; then
            tests=$((tests + count))
        else
            bad=$((bad + 1))
        fi
    done
    if [ $bad -gt 0 ]; then
        fail "$what $bad test programs"
    elif [ $tests -eq 0 ]; then
        fail "$what no test ran"
    else
        note "passed  $what $tests tests"
    fi
}

ISA_TESTS='kernels codes exact walk ivf'

# A processor without AVX2 has run the scalar kernels all along.
isa_tests() {
    for isa in scalar avx2; do
        if [ $isa = avx2 ] && ! grep -qw avx2 /proc/cpuinfo; then
            note 'left out isa   avx2: this processor has none'
            continue
        fi
        export LOADSTONE_ISA=$isa
        unit_tests "isa    $isa:" $(printf 'tests/unit/index/test_%s.c ' $ISA_TESTS)
        unset LOADSTONE_ISA
    done
}

# pytest ends with 5 when it collected nothing, so an empty run fails here too.
http_tests() {
    if ! make_venv; then
        fail "http    the Python environment $VENV"
        return
    fi
    report=$BUILD/pytest.log
    {
        "$VENV/bin/python" -m pytest -q -p no:cacheprovider --durations=8 \
            --timeout="$TEST_TIMEOUT_S" $HTTP_TESTS
        echo $? >"$report.status"
    } 2>&1 | tee "$report"
    line=$(tail -n 1 "$report")
    if [ "$(cat "$report.status")" -eq 0 ]; then
        note "passed  http    $line"
    else
        fail "http    $line"
    fi
}

contract_test() {
    if make_venv && "$VENV/bin/python" tests/http/contract.py "${CONTRACT_SECONDS:-600}"; then
        note "passed  contract"
    else
        fail "contract"
    fi
}

style() {
    if sh scripts/lint.sh quick; then
        note 'passed  style   format and layers'
    else
        fail 'style   scripts/lint.sh quick'
    fi
}

step setup
sh scripts/setup.sh test || fail 'setup   scripts/setup.sh test'
for wanted in ${*:-style unit isa http}; do
    step "$wanted"
    case $wanted in
    style) style ;;
    unit) unit_tests 'unit   ' tests/unit/*/test_*.c tests/fault/test_*.c tests/fuzz/fuzz_*.c ;;
    isa) isa_tests ;;
    http) http_tests ;;
    contract) contract_test ;;
    *) fail "$wanted   is no step: style, unit, isa, http and contract are" ;;
    esac
done
printf '\n== summary%s\n' "$summary"
exit $failed
