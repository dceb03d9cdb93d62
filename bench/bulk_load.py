"""Bulk load: rows through the daemon against what disk and HTTP allow, in interleaved rounds.

(a) disk      io_uring and O_DIRECT write the same bytes to the same disk        (disk_write.c)
(b) discard   the same upload into a handler that throws it away                 (discard_server.c)
(c) load      the same upload into a collection: parsed, checked, written, committed

The client sends from memory and is the same program for (b) and (c). The aim: (c) at least 80 % of
the lower of (a) and (b). Rates are medians over the rounds.
"""

import os
import shutil
import statistics
import subprocess

from service import DIM, RAW_BYTES, ROWS, WORK, Daemon, create, helper, upload

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 7))
AIM = 0.80


class Discard:
    """The handler that throws bodies away; tells its port on standard output."""

    def __enter__(self):
        self.process = subprocess.Popen(
            [str(WORK / "discard_server")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port = int(self.process.stdout.readline())
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def measure_load(daemon, number):
    c = create(daemon.client, f"load{number}", "flat")
    seconds = upload(daemon.client.port, f"{c.path}/rows?first_key=0&mode=append")
    assert c.describe()["rows"] == ROWS
    assert daemon.client.delete(c.path).status == 204
    return seconds


def main():
    root = WORK / "bulk_load"
    shutil.rmtree(root, ignore_errors=True)
    daemon = Daemon(root).start()
    seconds = {"disk": [], "discard": [], "load": []}
    with Discard() as discard:
        for number in range(ROUNDS + 1):
            os.sync()
            disk = float(helper("disk_write", root / "disk_write.tmp", RAW_BYTES)[0])
            os.sync()
            thrown_away = upload(discard.port, "/")
            os.sync()
            load = measure_load(daemon, number)
            if number == 0:
                continue  # buffers, rings and page tables are there from here on
            for name, took in zip(seconds, (disk, thrown_away, load), strict=True):
                seconds[name].append(took)
            print(f"round {number}: " + "  ".join(f"{n} {s[-1]:.3f} s" for n, s in seconds.items()))
    daemon.stop()
    shutil.rmtree(root)

    rates = {name: RAW_BYTES / statistics.median(s) / 1e9 for name, s in seconds.items()}
    print(f"\nbulk load of {ROWS:,} x {DIM} float32 ({RAW_BYTES / 1e6:.0f} MB), median of {ROUNDS}")
    for name, rate in rates.items():
        print(f"  {name:8} {rate:6.2f} GB/s")
    ratio = rates["load"] / min(rates["disk"], rates["discard"])
    print(f"  load / lower of the two: {ratio:.1%} (aim: {AIM:.0%})")


if __name__ == "__main__":
    main()
