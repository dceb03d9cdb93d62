"""What VERSIONS versions cost: opening, bytes on disk, and a first read far back.

Two daemons hold the same rows; one has 10 versions, the other VERSIONS, of one-row upserts. Both are
started again and again, in turns, after a clean stop and after a kill, and the time from exec to
/readyz answering 200 is taken. The aims: the many open in under 2 x the time of the ten; under 1 KB
of metadata a version; the first read at the middle version in under 100 ms.
"""

import json
import os
import shutil
import statistics
import time

import load
from service import WORK, Collection, Daemon

VERSIONS = int(os.environ.get("BENCH_VERSIONS", 10_000))
FEW = 10
STARTS = int(os.environ.get("BENCH_STARTS", 11))
KEYS, DIM = 1000, 16
OPEN_AIM, BYTES_AIM, READ_AIM_MS = 2.0, 1024, 100


def fill(name, versions):
    """A daemon with that many versions over KEYS rows."""
    root = WORK / name
    shutil.rmtree(root, ignore_errors=True)
    daemon = Daemon(root).start()
    c = Collection(daemon.client, "rows").create(
        key="int64",
        vector={"dim": DIM, "metric": "l2"},
        features={"n": "int64"},
        retention={"versions": 1_000_000},
    )
    row = lambda k, n: {"key": k, "vector": [(k * 31 + j) % 17 for j in range(DIM)], "n": n}
    c.load([row(k, 0) for k in range(KEYS)])
    path = WORK / "versions.json"
    load.write_bodies(path, (json.dumps({"rows": [row(k, k)]}).encode() for k in range(KEYS)))
    asked = {"path": f"{c.path}/rows?mode=upsert", "bodies": path, "warmup": 0}
    load.run(daemon.process.pid, daemon.client.port, "post", **asked, requests=versions - 1)
    return daemon


def log_bytes(daemon):
    return sum(f.stat().st_blocks * 512 for f in (daemon.data / "rows" / "log").iterdir())


def open_ms(daemon):
    started = time.perf_counter()
    daemon.start(ready=False)
    while daemon.client.get("/readyz").status != 200:
        time.sleep(0.0005)
    return (time.perf_counter() - started) * 1e3


def stop(daemon, kill):
    if kill:
        daemon.kill()
    else:
        daemon.stop()


def read_ms(daemon, version):
    """First read of an old version after a start: one search, then a fetch of all keys."""
    c = Collection(daemon.client, "rows")
    started = time.perf_counter()
    got = c.search(vector=[0] * DIM, k=1, exact=True, version=version)
    search_ms = (time.perf_counter() - started) * 1e3
    assert got["version"] == version
    assert all(c.fetch(list(range(KEYS)), version=version)["found"])
    return search_ms


def main():
    few, many = fill("versions-few", FEW), fill("versions-many", VERSIONS)
    version = Collection(many.client, "rows").describe()["version"]
    few_bytes = log_bytes(few)
    many.stop()
    few.stop()
    print(f"{version:,} versions over {KEYS:,} rows against {FEW}, {STARTS} starts each, exec to ready")
    reads = []
    for kill in (False, True):
        took = {FEW: [], VERSIONS: []}
        for number in range(STARTS):
            for n, daemon in ((FEW, few), (VERSIONS, many)):
                took[n].append(open_ms(daemon))
                if n == VERSIONS and not kill:
                    reads.append(read_ms(daemon, version // 2 + number))
                stop(daemon, kill)
        a, b = (statistics.median(t) for t in took.values())
        how = "a kill" if kill else "a clean stop"
        print(f"  after {how:12} {FEW}: {a:6.1f} ms   {VERSIONS:,}: {b:6.1f} ms   {b / a:.2f} x (aim: under {OPEN_AIM:.0f})")
    each = (log_bytes(many) - few_bytes) / (version - FEW)
    print(f"  metadata {each:.0f} bytes a version (aim: under {BYTES_AIM})")
    print(f"  first read at version {version // 2:,}: median {statistics.median(reads):.1f} worst {max(reads):.1f} ms (aim: under {READ_AIM_MS})")
    for daemon in few, many:
        shutil.rmtree(daemon.root)


if __name__ == "__main__":
    main()
