#!/bin/sh
# make bench-peers: the peers are installed into an environment of their own under $BUILD, each by
# itself, so that one that can't be had costs a line and not the run; then bench/peers/run.py.
#   bench/peers.sh [--hdf5 FILE] [mnist] [clustered] [texts]
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

# Debian 12 has Redis 7, without vector sets. The sources of Debian 13's Redis 8 come from the same
# mirror, into a directory of their own: nothing is installed.
fetch_redis() {
    src=$work/redis8
    mkdir -p "$src/lists/partial" "$src/cache/archives/partial"
    mirror=$(apt-cache policy | grep -oE 'https?://[^ ]+/debian ' | head -n 1)
    [ -n "$mirror" ] || { echo 'no Debian mirror is set up' && return 1; }
    echo "deb-src $mirror trixie main" >"$src/sources"
    set -- -o "Dir::Etc::sourcelist=$PWD/$src/sources" -o Dir::Etc::sourceparts=/dev/null \
        -o "Dir::State::lists=$PWD/$src/lists" -o "Dir::Cache=$PWD/$src/cache"
    apt-get "$@" update || return 1
    (cd "$src" && apt-get "$@" source --download-only -y redis) || [ -e "$(echo "$src"/*.orig.tar.gz)" ] || return 1
    tar -xzf "$src"/redis_8*.orig.tar.gz -C "$src" || return 1
    make -j2 -C "$(echo "$src"/redis-8*/src)" redis-server MALLOC=libc BUILD_TLS=no &&
        cp "$src"/redis-8*/src/redis-server "$work/redis8-server"
}

find_redis() {
    REDIS8_SERVER=${REDIS8_SERVER:-$work/redis8-server}
    export REDIS8_SERVER
    [ -x "$REDIS8_SERVER" ] && return 0
    echo 'peers: building Redis 8'
    fetch_redis >"$work/logs/redis8.log" 2>&1
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
find_redis || miss redis8 "not to be had: see $work/logs/redis8.log; or name one by REDIS8_SERVER"

${CC:-cc} -std=gnu17 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -Isrc -I. bench/load_gen.c \
    bench/load_http.c bench/load_resp.c -o "$BUILD/bench/load_gen" -lm
exec "$venv/bin/python" bench/peers/run.py --absent "$absent" "$@"
