#!/bin/sh
# Installs what is missing to build, test or demonstrate Loadstone on Debian 12.
# Usage: sh scripts/setup.sh build|test|demo
set -eu
build="gcc g++ make git ca-certificates libc6-dev libfaiss-dev libopenblas-dev libmicrohttpd-dev libjansson-dev liburing-dev libroaring-dev libxxhash-dev libcmocka-dev"
missing=
for p in $build; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -z "$missing" ] || apt-get install -y --no-install-recommends $missing
