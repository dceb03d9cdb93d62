"""Searches at half load while a full refresh of the collection they ask builds its index.

Capacity is what a closed loop gets. Then queries arrive at half that rate, Poisson, measured from
when they should have been sent: first quiet, then all through a full refresh with wait=indexed of
the same number of rows. A refresh without any search is the build's reference. The aims: p99 during
the build at most 3 x quiet, and the build at most 2 x its idle time. No search may see anything but
one of the two versions; the first search after the switch must find the index ready.

The parts are sent before the queries: what is measured is the build, and an upload's own effect is
upload_latency's. The daemon runs with its defaults; its clients share the machine with it.
"""

import os
import statistics
import threading
import time

import load
import queries
from service import DIM, ROWS, Collection, Uploader, begin_load, commit_load, million

SECONDS = float(os.environ.get("BENCH_SECONDS", 4))
WINDOWS = 5
CONNECTIONS = 32
P99_AIM, BUILD_AIM = 3.0, 2.0


class Refresh(threading.Thread):
    """A full refresh whose parts are staged; its commit runs once started."""

    def __init__(self, c, sender):
        super().__init__()
        self.c = Collection(c.client, c.name)
        self.path = begin_load(c, mode="full_refresh")
        sender.send(self.path)

    def run(self):
        self.counts, self.seconds = commit_load(self.c, self.path, wait="indexed")
        self.index = self.c.index()


def main():
    daemon = million()
    daemon.start()
    c = Collection(daemon.client, "million")
    asked = queries.octet_search(c, queries.octet_bodies(queries.make_queries(c)))
    asked["connections"] = CONNECTIONS
    sender = Uploader(daemon.client.port, parts=4)

    def search(**options):
        return load.run(daemon.process.pid, daemon.client.port, "post", **asked, **options)

    idle = Refresh(c, sender)
    idle.start()
    idle.join()
    print(f"full refresh of {ROWS:,} x {DIM}, idle: {idle.seconds:.1f} s", flush=True)

    search(seconds=2)
    capacity = statistics.median(search(seconds=1).rate for _ in range(3))
    stream = {"rate": capacity / 2, "poisson": True, "seconds": SECONDS}
    quiet = [search(**stream, seed=n + 2) for n in range(WINDOWS)]

    refresh = Refresh(c, sender)
    refresh.start()
    time.sleep(0.5)  # the first window begins with the build under way
    busy = []
    while True:
        figures = search(**stream, seed=100 + len(busy))
        if not refresh.is_alive():
            break  # this window saw the switch and what came after it
        busy.append(figures)
    refresh.join()
    after = figures
    sender.close()
    for r in idle, refresh:
        assert r.counts["rows"] == ROWS, r.counts
        assert r.index["state"] == "ready" and r.index["indexed_rows"] == ROWS, r.index
    daemon.stop()

    print(
        f"searches (k {queries.K}, ef {queries.EF}), Poisson, half of {capacity:,.0f} a second"
    )
    for name, measured in (("quiet", quiet), ("during the build", busy), ("at the switch", [after])):
        p50, p95, p99 = (
            statistics.median(getattr(f, field) for f in measured)
            for field in ("p50_us", "p95_us", "p99_us")
        )
        worst = max(f.max_us for f in measured)
        print(f"  {name:16} p50 {p50:7.0f}  p95 {p95:7.0f}  p99 {p99:7.0f}  max {worst:7.0f} us")
    p99 = statistics.median(f.p99_us for f in busy) / statistics.median(f.p99_us for f in quiet)
    print(f"  p99 during the build / quiet: {p99:.2f} (aim: at most {P99_AIM:.0f})")
    slower = refresh.seconds / idle.seconds
    print(
        f"  refresh {refresh.seconds:.1f} s, idle {idle.seconds:.1f} s: {slower:.2f} x (aim: at most {BUILD_AIM:.0f})"
    )


if __name__ == "__main__":
    main()
