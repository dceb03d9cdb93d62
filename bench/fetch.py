"""Features by key: the daemon beside Redis, same rows, same client, one core each.

8 features of mixed fixed width under BENCH_KEYS keys (5,000,000), drawn uniformly. Each server runs
one thread pinned to one core, the load generator is pinned to another: 32 connections, a closed
loop, no pipelining where it says 1 key. Rounds are short and interleaved, so that what else the
machine does hits all alike; figures are medians.

    rate     keys a second
    us/req   CPU time of the server for a request: steadier than the rate on a busy machine
    ratio    to Redis's way of asking the same: by rate, and by the server's CPU time

Redis holds a hash a key and keeps nothing on disk while it is measured.
"""

import http.client
import os
import shutil
import socket
import statistics
import subprocess
import time

from load import CLIENT_CPU, pinned, run
from service import WORK, Collection, Daemon

KEYS = int(os.environ.get("BENCH_KEYS", 5_000_000))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", 7))
SECONDS = float(os.environ.get("BENCH_SECONDS", 1.0))
CONNECTIONS = 32
BATCH = 100
FEATURES = {
    "f0": "int32",
    "f1": "int64",
    "f2": "float32",
    "f3": "float32",
    "f4": "float64",
    "f5": "float64",
    "f6": "bool",
    "f7": "int32",
}
OCTETS = "application/octet-stream"


def rows_of(form):
    """The rows as a stream of bytes."""
    command = [str(WORK / "feature_rows"), form, str(KEYS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


class Redis:
    """A redis-server of our own, on a core of its own."""

    def __enter__(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        dump = WORK / f"features-{KEYS}.rdb"
        self.process = subprocess.Popen(
            [*pinned(), "redis-server", "--port", str(self.port)]
            + ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--io-threads", "1"]
            + ["--dir", str(WORK), "--dbfilename", dump.name, "--daemonize", "no"],
            stdout=subprocess.DEVNULL,
        )
        while self.cli("ping") != "PONG":
            assert self.process.poll() is None, "redis-server ended"
            time.sleep(0.05)
        if int(self.cli("dbsize")) != KEYS:
            with rows_of("resp") as rows:
                pipe = ["redis-cli", "-p", str(self.port), "--pipe"]
                subprocess.run(pipe, stdin=rows.stdout, stdout=subprocess.DEVNULL, check=True)
            assert self.cli("save") == "OK"
        assert int(self.cli("dbsize")) == KEYS
        return self

    def cli(self, *words):
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    def row(self, key):
        words = self.cli("hgetall", f"user:{key}").split("\n")
        return dict(zip(words[::2], words[1::2], strict=True))

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def load(daemon, name, key, form):
    """Fills a collection from one streamed body, unless it is there."""
    c = Collection(daemon.client, name)
    if daemon.client.get(c.path).status == 200:
        return c
    c.create(key=key, features=FEATURES)
    connection = http.client.HTTPConnection("127.0.0.1", daemon.client.port)
    with rows_of(form) as rows:
        pieces = iter(lambda: rows.stdout.read(1 << 20), b"")
        connection.request(
            "POST", f"{c.path}/rows?mode=append", pieces, {"Content-Type": "application/x-ndjson"}
        )
        answer = connection.getresponse()
        text = answer.read()
    assert answer.status == 200, text
    connection.close()
    return c


def prepared_daemon():
    root = WORK / f"features-{KEYS}"
    loaded = root / "loaded"
    if not loaded.exists():
        shutil.rmtree(root, ignore_errors=True)
    daemon = Daemon(root, args=["--threads", "1"], wrapper=pinned())
    daemon.start()
    users = load(daemon, "users", "string", "ndjson")
    ids = load(daemon, "ids", "int64", "ndjson-int")
    assert users.describe()["rows"] == ids.describe()["rows"] == KEYS
    loaded.touch()
    return daemon, users, ids


def check_equal(redis, users, ids):
    """Both servers hold the same values."""
    for key in (0, 1, KEYS // 2, KEYS - 1):
        theirs = redis.row(key)
        for ours in (users.row(f"user:{key}"), ids.row(key)):
            for name, value in ours["features"].items():
                text = str(value).lower() if isinstance(value, bool) else repr(value)
                assert float(theirs[name] == "true") == float(value) or (
                    theirs[name] == text or float(theirs[name]) == value
                ), (key, name, theirs[name], value)


def workloads(redis, daemon, users, ids):
    """name -> (keys a request, reference, aim, pid, port, workload, options)"""
    r, d = (redis.process.pid, redis.port), (daemon.process.pid, daemon.client.port)
    rows, ids_features = f"{users.path}/rows/", f"{ids.path}/features"
    post, octets = {"path": f"{users.path}/features"}, {"accept": OCTETS}
    ints = {"path": ids_features, "int_keys": True}
    binary = dict(ints, content_type=OCTETS, **octets)
    one, many = "Redis HGETALL, 1 key", f"Redis HMGET, {BATCH} pipelined"
    return {
        one: (1, one, None, *r, "hgetall", {}),
        "GET rows/{key}": (1, one, 1.0, *d, "get", {"path": rows}),
        "POST features, 1 key": (1, one, 1.0, *d, "features-json", post),
        many: (BATCH, many, None, *r, "hmget", {}),
        f"POST features, {BATCH} keys, JSON": (BATCH, many, 1.0, *d, "features-json", post),
        f"  {BATCH} int64 keys, JSON": (BATCH, many, 1.0, *d, "features-json", ints),
        f"  {BATCH} keys, octet-stream": (BATCH, many, 3.0, *d, "features-json", post | octets),
        f"  {BATCH} int64 keys, octet-stream": (BATCH, many, 3.0, *d, "features-octets", binary),
    }


def measure(all_workloads):
    figures = {name: [] for name in all_workloads}
    seed = 1
    for number in range(ROUNDS):
        for name, (batch, _, _, pid, port, workload, options) in all_workloads.items():
            seed += 1
            figures[name].append(
                run(
                    pid, port, workload, keys=KEYS, batch=batch, connections=CONNECTIONS, spin=True,
                    seconds=SECONDS, cpu=CLIENT_CPU, seed=seed, **options,
                )
            )  # fmt: skip
        print(f"round {number + 1} of {ROUNDS}", flush=True)
    return figures


def median(figures, field):
    return statistics.median(getattr(f, field) for f in figures)


def report(all_workloads, figures):
    print(f"\n{KEYS:,} keys x {len(FEATURES)} features, {CONNECTIONS} connections")
    print(f"  {'':35} {'keys/s':>10} {'p50 us':>7} {'p99 us':>7} {'us/req':>7} {'client':>7}", end="")
    print(f" {'ratio':>6} {'by CPU':>6}  aim")
    for name, (batch, reference, aim, *_) in all_workloads.items():
        own, theirs = figures[name], figures[reference]
        print(
            f"  {name:35} {median(own, 'rate') * batch:10,.0f} {median(own, 'p50_us'):7.0f}"
            f" {median(own, 'p99_us'):7.0f} {median(own, 'server_us'):7.2f}"
            f" {median(own, 'client_busy'):7.0%}",
            end="",
        )
        if aim is None:
            print()
            continue
        rates = median(own, "rate") / median(theirs, "rate")
        cpu = median(theirs, "server_us") / median(own, "server_us")
        print(f" {rates:6.2f} {cpu:6.2f}  >= {aim:.0f} x")


def main():
    daemon, users, ids = prepared_daemon()
    with Redis() as redis:
        check_equal(redis, users, ids)
        all_workloads = workloads(redis, daemon, users, ids)
        report(all_workloads, measure(all_workloads))
    daemon.stop()


if __name__ == "__main__":
    main()
