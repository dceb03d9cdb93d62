"""Exports of a million rows against the loopback, in turns.

loopback   the same bytes as an upload into a handler that throws them away (discard_server.c)
npy        vectors as they lie in the segment
ndjson     every row as text, keys and vectors
csv        the same in cells

A client reads and throws away. No aim is set for text: its rate is that of writing decimals. npy
should reach half of the loopback's rate.
"""

import os
import socket
import statistics
import time

from bulk_load import Discard
from service import DIM, RAW_BYTES, ROWS, Collection, million, upload

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
AIM = 0.5


def download(port, path):
    """Bytes and seconds of one answer, head included."""
    with socket.create_connection(("127.0.0.1", port)) as s:
        buffer, total = bytearray(1 << 20), 0
        started = time.perf_counter()
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head = s.recv(4096)
        assert head.startswith(b"HTTP/1.1 200"), head
        total += len(head)
        while n := s.recv_into(buffer):
            total += n
        return total, time.perf_counter() - started


def main():
    daemon = million()
    daemon.start()
    c = Collection(daemon.client, "million")
    rates = {"loopback": [], "npy": [], "ndjson": [], "csv": []}
    with Discard() as discard:
        for number in range(ROUNDS + 1):
            measured = {"loopback": RAW_BYTES / upload(discard.port, "/")}
            for name in ("npy", "ndjson", "csv"):
                n, seconds = download(daemon.client.port, f"{c.path}/versions/1/export.{name}")
                measured[name] = n / seconds
            if number:
                for name, rate in measured.items():
                    rates[name].append(rate)
    daemon.stop()
    print(f"exports of {ROWS:,} x {DIM}, median of {ROUNDS}")
    for name, rate in rates.items():
        print(f"  {name:8} {statistics.median(rate) / 1e6:8,.0f} MB/s")
    ratio = statistics.median(rates["npy"]) / statistics.median(rates["loopback"])
    print(f"  npy / loopback: {ratio:.0%} (aim: at least {AIM:.0%})")


if __name__ == "__main__":
    main()
