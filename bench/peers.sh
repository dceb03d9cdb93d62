#!/bin/sh
# make bench-peers: the peers are installed into an environment of their own under $BUILD, each by
# itself, so that one that can't be had costs a line and not the run; then bench/peers/run.py.
#   bench/peers.sh [--hdf5 FILE] [mnist] [clustered]
# PEERS, PEERS_ROWS, PEERS_ROUNDS, PEERS_SECONDS: see run.py.
set -eu
cd "$(dirname "$0")/.."

BUILD=${BUILD:-build}
LOADSTONED=${LOADSTONED:-$BUILD/loadstoned}
export BUILD LOADSTONED
work=$BUILD/bench/peers
venv=$work/venv
absent=$work/absent
mkdir -p "$work/logs"
: >"$absent"

miss() {
    printf '%s\t%s\n' "$1" "$2" >>"$absent"
    echo "peers: without $1: $2"
}

pip() {
    "$venv/bin/pip" --disable-pip-version-check --quiet "$@"
}

# Installs one pinned package unless that was done before; its talk is kept.
have() {
    name=${1%%==*}
    grep -qxF "$1" "$venv/installed" 2>/dev/null && return 0
    echo "peers: installing $1"
    if timeout 600 "$venv/bin/pip" --disable-pip-version-check --quiet --no-input install "$1" \
        >"$work/logs/$name.log" 2>&1; then
        echo "$1" >>"$venv/installed"
        return 0
    fi
    miss "$name" "not to be had: $(tail -n 1 "$work/logs/$name.log")"
    return 1
}

# hnswlib's own source package holds the headers; its Python binding is not needed.
fetch_hnswlib() {
    src=$work/$(echo "$1" | tr -s = -)
    if [ ! -d "$src" ]; then
        echo "peers: fetching $1"
        rm -rf "$work/sdist"
        pip download --no-binary hnswlib --no-deps -d "$work/sdist" "$1" \
            >"$work/logs/hnswlib.log" 2>&1 || return 1
        mkdir -p "$src"
        tar -xzf "$work"/sdist/hnswlib-*.tar.gz --strip-components=1 -C "$src" || return 1
    fi
    ${CXX:-c++} -std=c++17 -O3 -march=native -Wall -Wextra -isystem "$src" \
        bench/peers/hnswlib_direct.cpp -o "$work/hnswlib_direct"
}

[ -x "$venv/bin/pip" ] || /usr/bin/python3 -m venv "$venv"
while read -r package; do
    have "$package" || { echo "peers: nothing runs without $package" >&2 && exit 1; }
done <bench/peers/requirements.txt
while read -r package; do
    case $package in
    hnswlib==*) fetch_hnswlib "$package" || miss hnswlib "not to be had: see $work/logs/hnswlib.log" ;;
    *) have "$package" || true ;;
    esac
done <bench/peers/packages.txt
miss redis8 "no client here speaks to it, and Debian's Redis 7 has no vector sets"
miss pgvector "no client here speaks to it"

${CC:-cc} -std=gnu17 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -Isrc -I. bench/load_gen.c \
    bench/load_http.c bench/load_resp.c -o "$BUILD/bench/load_gen" -lm
exec "$venv/bin/python" bench/peers/run.py --absent "$absent" "$@"
