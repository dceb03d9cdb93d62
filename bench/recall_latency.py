"""Recall, throughput and latency over HTTP of the indexed million, by scripts/recall_latency.py.

The queries are rows of the collection, which leave themselves out; the truth is the daemon's own
exact search. The figures are left in build/bench too.
"""

import subprocess
import sys

from service import REPO, WORK, million

PYTHON = "/usr/bin/python3"  # numpy comes from apt, so it is Debian's that has it


def main():
    daemon = million().start()
    command = [PYTHON, str(REPO / "scripts" / "recall_latency.py"), "million"]
    command += ["--url", f"http://127.0.0.1:{daemon.client.port}", "--queries-max", "500"]
    status = subprocess.run([*command, "--json", str(WORK / "recall_latency.json")]).returncode
    daemon.stop()
    sys.exit(status)


if __name__ == "__main__":
    main()
