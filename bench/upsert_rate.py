"""Upsert of KEYS keys into a million rows against an append of the same rows, in turns.

The collection holds ROWS rows without an index. An append brings KEYS rows with keys of their own,
and they are deleted again; an upsert brings the same vectors for KEYS keys that are there. Both are
one octet-stream body with wait=durable. The aim: the upsert at least half the append's rate.
"""

import os
import shutil
import statistics

from service import DIM, ROWS, WORK, Daemon, Uploader, create, upload

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 7))
KEYS = min(100_000, ROWS)
AIM = 0.5


def main():
    root = WORK / "upsert_rate"
    shutil.rmtree(root, ignore_errors=True)
    daemon = Daemon(root).start()
    c = create(daemon.client, "rows", "flat")
    upload(daemon.client.port, f"{c.path}/rows?first_key=0&mode=append")
    sender = Uploader(daemon.client.port, rows=KEYS, seed=3)
    took = {"append": [], "upsert": []}
    for number in range(ROUNDS + 1):
        os.sync()
        first = ROWS + number * KEYS
        append_s = sender.send(f"{c.path}/rows?first_key={first}&mode=append")
        os.sync()
        at = number * KEYS % (ROWS - KEYS + 1)
        upsert_s = sender.send(f"{c.path}/rows?first_key={at}&mode=upsert")
        assert c.describe()["rows"] == first + KEYS
        if number:
            took["append"].append(append_s)
            took["upsert"].append(upsert_s)
    sender.close()
    daemon.stop()
    shutil.rmtree(root)

    print(f"{KEYS:,} rows of {DIM} floats into {ROWS:,}, median of {ROUNDS}")
    for name, seconds in took.items():
        print(f"  {name} {KEYS / statistics.median(seconds):12,.0f} rows/s")
    ratio = statistics.median(took["append"]) / statistics.median(took["upsert"])
    print(f"  upsert / append: {ratio:.2f} (aim: at least {AIM})")


if __name__ == "__main__":
    main()
