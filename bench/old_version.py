"""Search at an old version against the newest one, both warm, in turns.

The million is indexed; then a tenth of its keys, spread over all, are upserted, so that 90 % of the
old version's rows are alive in the newest. The same queries go to both in a closed loop on one
connection and on several. The aim: the old version's time at most 1.3 x the newest's.
"""

import os
import shutil
import statistics

import load
import queries
from client import NDJSON, ndjson
from service import DIM, ROWS, WORK, Collection, Daemon, million, wait_indexed

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 7))
CONNECTIONS = 8
AIM = 1.3


def replace_a_tenth(c):
    """Every tenth key gets its neighbour's vector; one load, which becomes a segment of its own."""
    step, body = 5000, []
    for first in range(0, ROWS // 10, step):
        keys = [k * 10 for k in range(first, min(first + step, ROWS // 10))]
        vectors = c.fetch([k + 1 for k in keys], features=[], with_vectors=True)["vectors"]
        body.append(
            ndjson({"key": k, "vector": v} for k, v in zip(keys, vectors, strict=True))
        )
    c.load(b"".join(body), NDJSON)


def prepared():
    """A copy of the million whose newest version has a tenth of the rows replaced."""
    base = million()
    root = WORK / f"million-{ROWS}-upserted"
    daemon = Daemon(root)
    if not (root / "done").exists():
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(base.root, root)
        daemon.start()
        c = Collection(daemon.client, "million")
        replace_a_tenth(c)
        wait_indexed(c)
        daemon.stop()
        (root / "done").touch()
    return daemon


def main():
    daemon = prepared()
    daemon.start()
    c = Collection(daemon.client, "million")
    wait_indexed(c)
    newest = c.describe()["version"]
    bodies = queries.octet_bodies(queries.make_queries(c))
    print(f"searches over {ROWS:,} x {DIM} (k {queries.K}, ef {queries.EF}): version 1 and {newest}, its 90 % alive")
    for connections in (1, CONNECTIONS):
        took = {"newest": [], "old": []}
        for number in range(ROUNDS + 1):
            for name in took:
                asked = queries.octet_search(c, bodies)
                asked["path"] += "&version=1" if name == "old" else ""
                figures = load.run(
                    daemon.process.pid, daemon.client.port, "post", **asked,
                    connections=connections, seconds=1, seed=number + 1,
                )
                if number:
                    took[name].append(1e6 / figures.rate)
        new, old = (statistics.median(t) for t in took.values())
        print(f"  {connections} connections: newest {new:.0f} us a query, old {old:.0f} us: {old / new:.2f} x (aim: at most {AIM})")
    daemon.stop()


if __name__ == "__main__":
    main()
