"""Memory: peak anonymous memory of the daemon and of its build child while rows load and index.

RssAnon of /proc/PID/status, sampled every 5 ms, against the raw size of the vectors. The aims: the
daemon below 1.0 x, the child below 3 x. The directory made here serves startup.py as well.
"""

import re
import shutil
import threading
import time

from service import DIM, RAW_BYTES, ROWS, WORK, Daemon, create, upload, wait_indexed


class Sampler(threading.Thread):
    """Peaks of the daemon and of whatever children it has."""

    def __init__(self, daemon):
        super().__init__(daemon=True)
        self.watched, self.done = daemon, threading.Event()
        self.daemon_peak = self.child_peak = 0

    def anonymous(self, pid):
        try:
            with open(f"/proc/{pid}/status") as f:
                found = re.search(r"RssAnon:\s+(\d+) kB", f.read())
            return int(found[1]) * 1024 if found else 0
        except (FileNotFoundError, ProcessLookupError):
            return 0  # a child that just ended

    def run(self):
        while not self.done.is_set():
            self.daemon_peak = max(self.daemon_peak, self.anonymous(self.watched.process.pid))
            for pid in self.watched.children():
                self.child_peak = max(self.child_peak, self.anonymous(pid))
            time.sleep(0.005)


def main():
    root = WORK / f"million-{ROWS}"
    shutil.rmtree(root, ignore_errors=True)
    daemon = Daemon(root).start()
    c = create(daemon.client, "million", "hnsw")
    sampler = Sampler(daemon)
    sampler.start()
    load_s = upload(daemon.client.port, f"{c.path}/rows?first_key=0&mode=append")
    after_load = sampler.daemon_peak
    index_s = wait_indexed(c)
    assert c.index()["indexed_rows"] == ROWS
    sampler.done.set()
    sampler.join()
    daemon.stop()
    (root / "indexed").touch()
    print(f"{ROWS:,} x {DIM} float32, raw {RAW_BYTES / 1e6:.0f} MB")
    print(f"  loaded in {load_s:.2f} s, indexed in {index_s:.0f} s")
    for name, peak, aim in (
        ("daemon while loading", after_load, "1.0"),
        ("daemon in all", sampler.daemon_peak, "1.0"),
        ("build child", sampler.child_peak, "3.0"),
    ):
        print(
            f"  {name:21} {peak / 1e6:7.1f} MB = {peak / RAW_BYTES:.2f} x raw (aim: below {aim} x)"
        )


if __name__ == "__main__":
    main()
