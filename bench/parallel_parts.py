"""A full refresh in PARTS parallel parts against one stream of the same rows, in turns.

one stream   POST rows?mode=append of all rows into an empty collection
parts        a load session: PARTS parts at once, then the commit, replacing the rows before

Both commit durably into a collection without an index: what is measured is the way of the
rows to the disk. Each begins when the daemon rests: the merge of the parts of the refresh before is
no part of a load. The aims: at least 85 % of the single stream's rate, and memory that does not grow
with the rows: peak anonymous memory of the daemon below half of their raw size.
"""

import os
import shutil
import statistics
import time
from pathlib import Path

from memory import Sampler
from service import (
    DIM,
    RAW_BYTES,
    ROWS,
    WORK,
    Daemon,
    Uploader,
    begin_load,
    commit_load,
    create,
)

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
PARTS = int(os.environ.get("BENCH_PARTS", 16))
AIM, MEMORY_AIM = 0.85, 0.5


def rest(daemon):
    """Until the daemon has used next to no CPU for half a second."""
    used = cpu_s(daemon)
    while True:
        time.sleep(0.5)
        before, used = used, cpu_s(daemon)
        if used - before < 0.02:
            break
    os.sync()


def cpu_s(daemon):
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def one_stream(daemon, sender, number):
    rest(daemon)
    c = create(daemon.client, f"stream{number}", "flat")
    seconds = sender.send(f"{c.path}/rows?first_key=0&mode=append")
    assert c.describe()["rows"] == ROWS
    daemon.client.delete(c.path)
    return seconds


def refresh(daemon, c, sender):
    rest(daemon)
    path = begin_load(c, mode="full_refresh")
    sent_s = sender.send(path)
    counts, commit_s = commit_load(c, path, wait="durable")
    assert counts["rows"] == c.describe()["rows"] == ROWS
    return sent_s + commit_s, commit_s


def main():
    root = WORK / "parallel_parts"
    shutil.rmtree(root, ignore_errors=True)
    daemon = Daemon(root).start()
    stream = Uploader(daemon.client.port)
    parts = Uploader(daemon.client.port, parts=PARTS)
    c = create(daemon.client, "refreshed", "flat")
    sampler = Sampler(daemon)
    took = {"one stream": [], f"{PARTS} parts": []}
    one, many = took.values()
    commits = []
    for number in range(ROUNDS + 1):
        first = one_stream(daemon, stream, number)
        if number == 1:
            sampler.start()  # buffers and rings are there from here on
        second, commit_s = refresh(daemon, c, parts)
        if number:
            one.append(first)
            many.append(second)
            commits.append(commit_s)
            print(f"round {number}: " + "  ".join(f"{n} {s[-1]:.3f} s" for n, s in took.items()))
    sampler.done.set()
    sampler.join()
    for sender in stream, parts:
        sender.close()
    daemon.stop()
    shutil.rmtree(root)

    print(f"\n{ROWS:,} x {DIM} float32 ({RAW_BYTES / 1e6:.0f} MB), median of {ROUNDS}")
    for name, seconds in took.items():
        print(f"  {name:10} {RAW_BYTES / statistics.median(seconds) / 1e9:6.2f} GB/s")
    ratio = statistics.median(one) / statistics.median(many)
    print(f"  parts / stream: {ratio:.1%} (aim: {AIM:.0%}); of it the commit {statistics.median(commits):.3f} s")
    peak = sampler.daemon_peak
    print(f"  peak anonymous memory {peak / 1e6:.0f} MB = {peak / RAW_BYTES:.2f} x raw (aim: below {MEMORY_AIM} x)")


if __name__ == "__main__":
    main()
