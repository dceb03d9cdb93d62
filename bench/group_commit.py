"""Group commit: clients that commit one row each, all at once and one after another.

CLIENTS clients send one-row upserts, each the next when it has its answer. What the log did is read
from /metrics: its records are the commits, its groups the syncs. The aims: at least 4 commits a
sync, and the p99 of a commit at most 3 syncs, a sync being the mean of those of the run.

Then one client sends SERIAL upserts in a row: each pays a sync of its own. The reference is what
the same number of syncs took in the log.
"""

import json
import os
import shutil

import load
from service import DIM, WORK, Collection, Daemon

CLIENTS = 8
SECONDS = float(os.environ.get("BENCH_SECONDS", 4))
SERIAL = int(os.environ.get("BENCH_SERIAL", 10_000))
KEYS = 50_000
COMMITS_AIM, SYNCS_AIM = 4, 3


def bodies():
    path = WORK / "one_row.json"
    rows = (
        {"key": k * 7919 % KEYS, "vector": [round((k * j) % 97 / 97, 4) for j in range(DIM)], "n": k}
        for k in range(2000)
    )
    load.write_bodies(path, (json.dumps({"rows": [row]}).encode() for row in rows))
    return path


def log_counts(daemon):
    """Records, syncs and seconds of syncs so far."""
    m = load.metrics(daemon.client)
    sync = "loadstone_log_sync_duration_seconds"
    return m["loadstone_log_records_total"], m[f"{sync}_count"], m[f"{sync}_sum"]


def measure(daemon, asked, **options):
    before = log_counts(daemon)
    figures = load.run(daemon.process.pid, daemon.client.port, "post", **asked, **options)
    records, syncs, seconds = (b - a for a, b in zip(before, log_counts(daemon), strict=True))
    return figures, records / syncs, seconds / syncs * 1e6


def main():
    root = WORK / "group_commit"
    shutil.rmtree(root, ignore_errors=True)
    daemon = Daemon(root).start()
    c = Collection(daemon.client, "rows").create(
        key="int64", vector={"dim": DIM, "metric": "l2"}, features={"n": "int64"}
    )
    asked = {"path": f"{c.path}/rows?mode=upsert", "bodies": bodies()}
    measure(daemon, asked, connections=CLIENTS, seconds=1)
    figures, commits, sync_us = measure(daemon, asked, connections=CLIENTS, seconds=SECONDS)
    print(f"{CLIENTS} clients, one-row upserts of {DIM} floats, {figures.rate:,.0f} commits a second")
    print(f"  commits a sync: {commits:.2f} (aim: at least {COMMITS_AIM})")
    print(
        f"  commit p50 {figures.p50_us:.0f} p99 {figures.p99_us:.0f} us, sync {sync_us:.0f} us:"
        f" p99 / sync {figures.p99_us / sync_us:.2f} (aim: at most {SYNCS_AIM})"
    )

    figures, commits, sync_us = measure(daemon, asked, connections=1, requests=SERIAL)
    took_s = SERIAL / figures.rate
    print(f"{SERIAL:,} one-row upserts in a row: {took_s:.2f} s, {figures.rate:,.0f} a second")
    print(
        f"  p50 {figures.p50_us:.0f} p99 {figures.p99_us:.0f} us; syncs alone {sync_us * SERIAL / 1e6:.2f} s:"
        f" {took_s * 1e6 / SERIAL / sync_us:.2f} of it"
    )
    daemon.stop()
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
