#!/bin/sh
# make demo: starts the daemon, runs demo.py, leaves the service running.
#   scripts/demo.sh               all of it (repeat it freely)
#   scripts/demo.sh ask "words"   the packages nearest to the words
#   scripts/demo.sh stop          stops the service; its data stays
# Everything lies under $BUILD/demo. PORT (7700) may be set; if another program has it, a free one
# is taken. A daemon that an earlier run left is used again, unless it has been rebuilt since.
set -eu
cd "$(dirname "$0")/.."

BUILD=${BUILD:-build}
PORT=${PORT:-7700}
daemon=$BUILD/loadstoned
demo=$BUILD/demo
pid_file=$demo/pid port_file=$demo/port log=$demo/daemon.log
# numpy comes from apt, so it is Debian's python that has it
python=/usr/bin/python3
START_S=60

die() {
    echo "demo: $*" >&2
    exit 1
}

url() {
    echo "http://127.0.0.1:$(cat "$port_file")"
}

answers() {
    curl --silent --fail --max-time 5 --output /dev/null "$(url)/$1"
}

# A zombie is no life: under a first process that does not reap, it stays.
alive() {
    kill -0 "$1" 2>/dev/null && [ "$(cut -d ' ' -f 3 "/proc/$1/stat" 2>/dev/null)" != Z ]
}

# The process of the last start lives and answers at its port.
running() {
    [ -s "$pid_file" ] && [ -s "$port_file" ] && alive "$(cat "$pid_file")" && answers healthz
}

stop() {
    pid=$(cat "$pid_file")
    kill "$pid"
    tries=0
    while alive "$pid"; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || die "process $pid does not end: see $log"
        sleep 0.1
    done
    rm -f "$pid_file" "$port_file"
}

port_is_free() {
    "$python" -c '
import socket, sys
with socket.socket() as s:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        s.bind(("127.0.0.1", int(sys.argv[1])))
    except OSError:
        sys.exit(1)' "$1"
}

start() {
    port=$PORT
    if ! port_is_free "$port"; then
        echo "port $port is taken: using a free one"
        port=0
    fi
    rm -f "$port_file"
    setsid nohup "$daemon" serve --data "$demo/data" --listen "127.0.0.1:$port" \
        --port-file "$port_file" >>"$log" 2>&1 </dev/null &
    echo $! >"$pid_file"
    tries=0
    until [ -s "$port_file" ] && answers readyz; do
        tries=$((tries + 1))
        if ! alive "$(cat "$pid_file")" || [ $tries -ge $((START_S * 10)) ]; then
            tail -n 5 "$log" >&2
            die "the daemon did not get ready: see $log"
        fi
        sleep 0.1
    done
}

farewell() {
    cat <<END

The service is running at $(url) (process $(cat "$pid_file"), log $log).
Ask more:
  scripts/demo.sh ask "play chess"
  curl -s $(url)/v1/collections/packages/search \\
      --json '{"key":"nginx","k":5,"features":["section","summary"]}'
  curl -s $(url)/v1/collections/packages/rows/gimp
Stop it:
  scripts/demo.sh stop
END
}

command=${1:-run}
case $command in
run)
    sh scripts/setup.sh demo
    [ -x "$daemon" ] || die "there is no $daemon: run make demo"
    mkdir -p "$demo"
    if running && [ "$daemon" -nt "$pid_file" ]; then
        echo "the daemon was rebuilt: restarting it"
        stop
    fi
    if running; then
        echo "the daemon is running already at $(url)"
    else
        start
        echo "the daemon is running at $(url)"
    fi
    "$python" scripts/demo.py run "$(url)" "$demo"
    farewell
    ;;
ask)
    shift
    [ $# -gt 0 ] || die 'ask what? scripts/demo.sh ask "play chess"'
    running || die "the service is not running: run make demo"
    "$python" scripts/demo.py ask "$(url)" "$demo" "$@"
    ;;
stop)
    running || die "the service is not running"
    stop
    echo "stopped; make demo starts it again"
    ;;
*)
    die "usage: scripts/demo.sh [ask WORDS | stop]"
    ;;
esac
