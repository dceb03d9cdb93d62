"""What the benchmarks share: the daemon under test, the compiled helpers, a million vectors."""

import os
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "tests" / "http"))

from client import Collection  # noqa: E402
from daemon import Daemon  # noqa: E402

BUILD = Path(os.environ.get("BUILD", REPO / "build")).resolve()
WORK = BUILD / "bench"
ROWS = int(os.environ.get("BENCH_ROWS", 1_000_000))
DIM = 128
RAW_BYTES = ROWS * DIM * 4


def helper(name, *args, prefix=()):
    """Runs a compiled helper, perhaps through another program; returns the words it printed."""
    command = [*prefix, str(WORK / name), *map(str, args)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


def upload(port, path, seed=1, rows=ROWS):
    """Sends rows x DIM float32 and returns the seconds it took."""
    seconds, _, status = helper("http_upload", port, path, rows, DIM, seed)
    assert status == "200", status
    return float(seconds)


def create(client, name, kind, metric="l2"):
    return Collection(client, name).create(
        key="int64",
        vector={"dim": DIM, "metric": metric},
        index={"kind": kind, "m": 16, "ef_construction": 200},
    )


def wait_indexed(c, tick=lambda state: None, poll_s=0.5):
    """Polls until the index is ready; `tick` sees every state. Returns the seconds it took."""
    started = time.monotonic()
    while True:
        state = c.index()
        tick(state)
        if state["state"] == "ready":
            if sys.stderr.isatty():
                print(file=sys.stderr)
            return time.monotonic() - started
        if sys.stderr.isatty():
            print(f"\rindexing {state['progress']:6.1%}", end="", file=sys.stderr)
        time.sleep(poll_s)


class Uploader:
    """http_upload with its vectors made once, told where to send them."""

    def __init__(self, port, parts=None, rows=ROWS, seed=1, prefix=()):
        self.process = subprocess.Popen(
            [*prefix, str(WORK / "http_upload"), str(port), f"-{parts or ''}"]
            + [str(rows), str(DIM), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def send(self, path):
        """The vectors, or with `parts` the parts of them, to a path; returns the seconds."""
        self.process.stdin.write(path + "\n")
        self.process.stdin.flush()
        seconds, _, status = self.process.stdout.readline().split()
        assert status in ("200", "201"), status
        return float(seconds)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def begin_load(c, **options):
    """Opens a load session; returns its path."""
    answer = c.client.post(f"{c.path}/loads", options)
    assert answer.status == 201, answer
    return f"{c.path}/loads/{answer.json()['load']}"


def commit_load(c, path, **options):
    """Commits however long it takes; returns the counts and the seconds."""
    started = time.monotonic()
    while True:
        answer = c.client.post(f"{path}/commit", options)
        if answer.status != 202:
            break
    assert answer.status == 200, answer
    return answer.json(), time.monotonic() - started


def million():
    """A stopped daemon whose directory holds the rows, indexed; made once, then reused."""
    daemon = Daemon(WORK / f"million-{ROWS}")
    done = daemon.root / "indexed"
    if not done.exists():
        daemon.start()
        if daemon.client.get("/v1/collections/million").status == 404:
            c = create(daemon.client, "million", "hnsw")
            upload(daemon.client.port, f"{c.path}/rows?first_key=0&mode=append")
        took_s = wait_indexed(Collection(daemon.client, "million"))
        print(f"indexed {ROWS:,} x {DIM} in {took_s:.0f} s")
        daemon.stop()
        done.touch()
    return daemon
