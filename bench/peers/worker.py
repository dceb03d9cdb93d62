"""A peer behind the line protocol: one process a peer, one command a line, one line of answer.

  hello                         ok: the queries are read, nothing is built
  build                         SECONDS CPU_SECONDS
  find EFFORT PATH              ok: PATH holds the row numbers found, int64, queries x k
  measure EFFORT BATCH SECONDS  QUERIES_A_SECOND P50_US P99_US, the times those of one call
  disk PATH                     ok: the index lies in PATH

The row numbers, not the distances, are what is judged: run.py computes the distances itself, so
that every peer is held to the same ones. Failure: a traceback on standard error, status 1.

  worker.py PEER BASE QUERIES DIM K SCRATCH
"""

import sys
import time

import numpy as np
from libraries import PEERS


def read(path, dim):
    return np.fromfile(path, "<f4").reshape(-1, dim)


class Worker:
    def __init__(self, peer, base, queries, dim, k, scratch):
        self.base_path, self.dim, self.k = base, int(dim), int(k)
        self.queries = read(queries, self.dim)
        self.peer = PEERS[peer](self.dim, self.k, scratch)

    def hello(self):
        return "ok"

    def build(self):
        base = read(self.base_path, self.dim)
        wall, cpu = time.monotonic(), time.process_time()
        self.peer.build(base)
        return f"{time.monotonic() - wall:.3f} {time.process_time() - cpu:.3f}"

    def find(self, effort, path):
        self.peer.set_effort(int(effort))
        ids = np.full((len(self.queries), self.k), -1, np.int64)
        for i in range(len(ids)):
            found = np.asarray(self.peer.search(self.queries[i : i + 1]))[: self.k]
            ids[i, : len(found)] = found
        ids.tofile(path)
        return "ok"

    def measure(self, effort, batch, seconds):
        self.peer.set_effort(int(effort))
        batch, for_s = int(batch), float(seconds)
        parts = [self.queries[i : i + batch] for i in range(0, len(self.queries), batch)]
        parts = [p for p in parts if len(p) == batch]
        call = self.peer.search if batch == 1 else self.peer.search_batch
        took_s, clock = [], time.perf_counter
        start = now = clock()
        while now - start < for_s:
            call(parts[len(took_s) % len(parts)])
            then = clock()
            took_s.append(then - now)
            now = then
        p50, p99 = np.quantile(took_s, [0.5, 0.99]) * 1e6
        return f"{len(took_s) * batch / (now - start):.1f} {p50:.2f} {p99:.2f}"

    def disk(self, path):
        self.peer.save(path)
        return "ok"


def main(name, *args):
    worker = Worker(name, *args)
    for line in sys.stdin:
        verb, *words = line.split()
        print(getattr(worker, verb)(*words), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
