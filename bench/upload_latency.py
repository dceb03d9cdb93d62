"""Latency of searches while a bulk load runs: a query stream at half load, open loop.

The capacity is what a closed loop gets out of the daemon. Then queries arrive at half that rate,
Poisson, measured from when they should have been sent, alternately quiet and while uploads of
1 GB (octet-stream, each into a new collection) follow one another. The aim: the p99 of the loaded
rounds at most twice that of the quiet ones, median against median.

The daemon runs with its defaults. Its clients share the machine with it; the one that sends the
uploads has a lower priority, since on a machine of its own it would take no core from the daemon.
"""

import os
import statistics
import threading

import load
import queries
from service import DIM, ROWS, Collection, Uploader, create, million

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
SECONDS = float(os.environ.get("BENCH_SECONDS", 4))
UPLOAD_ROWS = int(os.environ.get("BENCH_UPLOAD_ROWS", 2_000_000))
CONNECTIONS = 32
AIM = 2.0


class Uploads:
    """Uploads one after the other while entered."""

    def __init__(self, daemon):
        self.client, self.number, self.seconds = daemon.client, 0, []
        self.sender = Uploader(
            daemon.client.port, rows=UPLOAD_ROWS, seed=2, prefix=["nice", "-n", "10"]
        )

    def one(self):
        self.number += 1
        c = create(self.client, f"upload{self.number}", "flat")
        self.seconds.append(self.sender.send(f"{c.path}/rows?first_key=0&mode=append"))
        self.client.delete(c.path)

    def run(self):
        while not self.stopping.is_set():
            self.one()

    def __enter__(self):
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()


def main():
    daemon = million()
    daemon.start()
    c = Collection(daemon.client, "million")
    asked = queries.octet_search(c, queries.octet_bodies(queries.make_queries(c)))
    asked["connections"] = CONNECTIONS

    def search(**options):
        return load.run(daemon.process.pid, daemon.client.port, "post", **asked, **options)

    search(seconds=2)  # pages and buffers are there from here on
    capacity = statistics.median(search(seconds=1).rate for _ in range(3))
    uploads = Uploads(daemon)
    figures = {"quiet": [], "during uploads": []}
    for number in range(ROUNDS):
        stream = {"rate": capacity / 2, "poisson": True, "seconds": SECONDS, "seed": number + 2}
        figures["quiet"].append(search(**stream))
        with uploads:
            figures["during uploads"].append(search(**stream))
        print(
            f"round {number + 1} of {ROUNDS}: p99 "
            + ", ".join(f"{name} {f[-1].p99_us:.0f} us" for name, f in figures.items()),
            flush=True,
        )
    uploads.sender.close()
    daemon.stop()

    rate = UPLOAD_ROWS * DIM * 4 / statistics.median(uploads.seconds) / 1e9
    print(
        f"\nsearches over {ROWS:,} x {DIM} (k {queries.K}, ef {queries.EF}), Poisson, half of {capacity:,.0f} a second"
    )
    for name, measured in figures.items():
        p50, p95, p99 = (
            statistics.median(getattr(f, field) for f in measured)
            for field in ("p50_us", "p95_us", "p99_us")
        )
        worst = max(f.max_us for f in measured)
        print(f"  {name:15} p50 {p50:7.0f}  p95 {p95:7.0f}  p99 {p99:7.0f}  max {worst:7.0f} us")
    quiet, loaded = (statistics.median(f.p99_us for f in m) for m in figures.values())
    print(f"  p99 during uploads / quiet: {loaded / quiet:.2f} (aim: at most {AIM:.0f})")
    print(f"  meanwhile uploads at {rate:.2f} GB/s ({len(uploads.seconds)} of them)")


if __name__ == "__main__":
    main()
