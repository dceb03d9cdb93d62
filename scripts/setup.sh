#!/bin/sh
# Installs with apt-get what this machine lacks for one purpose; nothing when nothing is missing.
#   sh scripts/setup.sh build    compilers and libraries of the daemon
#   sh scripts/setup.sh test     and what `make check` runs
#   sh scripts/setup.sh fuzz     and what `make fuzz` runs
#   sh scripts/setup.sh lint     and the static analyser
#   sh scripts/setup.sh demo     build, and what `make demo` runs
#   sh scripts/setup.sh bench    build, and what `make bench` runs
# As root or with sudo, on Debian 12 or what descends from it. Any failure ends with status 1 and
# says what to do by hand.
set -eu

build="gcc g++ make git libc6-dev libfaiss-dev libopenblas-dev libmicrohttpd-dev
    liburing-dev libroaring-dev libxxhash-dev nettle-dev python3
    python3-yaml"
test="$build libcmocka-dev clang-format python3 python3-venv python3-faiss ca-certificates
    e2fsprogs"
fuzz="$test clang libclang-rt-14-dev"
lint="$build libcmocka-dev clang-format clang-tidy libsimdjson-dev"
demo="$build python3 python3-numpy libopenblas0 curl"
bench="$build python3 python3-numpy libsimdjson-dev redis-server redis-tools util-linux"

say() {
    echo "setup: $*"
}

die() {
    echo "setup: $*" >&2
    exit 1
}

# Prints those of the named packages that are not installed.
missing_of() {
    for package; do
        dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
            echo "$package"
    done
}

# apt-get as root, without questions, its talk kept in $log.
apt() {
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" \
        >>"$log" 2>&1 </dev/null
}

become_root() {
    sudo=
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null ||
        die "neither root nor sudo: run as root: apt-get install --no-install-recommends" $missing
    sudo=sudo
}

case ${1:-} in
build) wanted=$build ;;
test) wanted=$test ;;
fuzz) wanted=$fuzz ;;
lint) wanted=$lint ;;
demo) wanted=$demo ;;
bench) wanted=$bench ;;
*) die "usage: sh scripts/setup.sh build|test|fuzz|lint|demo|bench" ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    die "this is no Debian: install the equivalents of these packages yourself:" $wanted
fi
missing=$(missing_of $wanted)
[ -n "$missing" ] || exit 0

become_root
log=$(mktemp)
trap 'rm -f "$log"' EXIT
say "installing for $1:" $missing
say "refreshing the package lists (apt-get update)"
apt update || say "apt-get update failed; trying with the lists that are here"
say "downloading and installing (a minute or two on a bare machine)"
if ! apt install -y --no-install-recommends $missing; then
    tail -n 25 "$log" >&2
    die "apt-get failed, see above: check the network and /etc/apt/sources.list, then run again"
fi
say "done"
