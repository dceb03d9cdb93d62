#!/usr/bin/env python3
"""Measures a collection of a running Loadstone server: recall, queries per second, latency.

  recall_latency.py docs                                  queries sampled from the collection
  recall_latency.py sift --queries sift_query.fvecs --truth sift_groundtruth.ivecs
  recall_latency.py sift --queries sift-128-euclidean.hdf5 --json sift.json --png sift.png
  recall_latency.py docs --ef 32,64,128 --concurrency 1,8 --k 100 --seconds 5

For each effort (ef of an HNSW index, nprobe of an IVF index: the server says which it has) recall@k
is measured over all queries, then throughput and latency at each concurrency: that many connections
with one request in flight each, one query a request, float32 octets both ways.

recall@k is the share of the k true nearest that were found. As the field counts it, a hit counts
when it is at most as far as the true k-th neighbour, plus 1e-3 of that distance: equally near rows
are equally right. The truth comes from --truth (row numbers; row 0 has the key --first-key), from
an HDF5 file's "neighbors", or else from the server's own exact search. A query that is sampled from
the collection leaves itself out.

The requests are made by processes of their own, as many as there are cores; the output says what of
the figures is the client's own share. Client and server on one machine share its cores: for the
server's true limits, run this on another.

Ends with status 0, or 1 and a sentence, or 130 after Ctrl-C.
"""

import argparse
import datetime
import json
import os
import sys

from toolslib import client, formats, hammer, plot, screen, stats, truth
from toolslib.client import Client, Collection, Patience, Refused, Unreachable

EF = (10, 16, 24, 32, 48, 64, 96, 128, 256, 512)
NPROBE = (1, 2, 4, 8, 16, 32, 64, 128)
QUERIES_MAX, QUERIES_EXACT_MAX = 10_000, 1_000
WARMUP_S = 0.3
EMPTY_S = 0.5
LOCAL = ("127.0.0.1", "localhost", "::1")
COLUMNS = (
    ("effort", 11, False),
    ("recall@{k}", 10, True),
    ("connections", 11, True),
    ("queries/s", 10, True),
    ("p50 ms", 8, True),
    ("p95 ms", 8, True),
    ("p99 ms", 8, True),
    ("client us", 9, True),
)


class Failed(Exception):
    """A sentence for the user."""


# ---- options ----


def numbers(text):
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no list of numbers: write 1,2,4")
    return found


def number(text):
    found = numbers(text)
    if len(found) != 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 on")
    return found[0]


def seconds(text):
    try:
        found = float(text)
    except ValueError:
        found = 0
    if not 0 < found < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return found


def parse_arguments(arguments):
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("collection", metavar="COLLECTION", help="what to measure")
    add("--k", type=number, default=10, help="neighbours to ask for (%(default)s)")
    add(
        "--queries",
        metavar="FILE",
        help="vectors to ask with: npy, fvecs, bvecs, fbin, u8bin, i8bin, with .gz, or HDF5 (its "
        '"test"); else rows of the collection',
    )
    add("--truth", metavar="FILE", help="true neighbours: ivecs, ibin, npy, with .gz, or HDF5")
    add("--first-key", type=int, default=0, metavar="N", help="key of the truth's row 0 (0)")
    add(
        "--queries-max",
        type=number,
        metavar="N",
        help=f"use only the first N queries ({QUERIES_MAX:,}, without --truth "
        f"{QUERIES_EXACT_MAX:,})",
    )
    add("--seed", type=int, default=1, help="of the sample, when there is no --queries (1)")
    effort = parser.add_argument_group("effort (what fits the index, when none is given)")
    effort.add_argument("--ef", type=numbers, metavar="LIST", help="of an HNSW index: 16,64,256")
    effort.add_argument("--nprobe", type=numbers, metavar="LIST", help="of an IVF index: 1,8,64")
    effort.add_argument("--exact", action="store_true", help="the exact search, too")
    load = parser.add_argument_group("load")
    load.add_argument(
        "--concurrency",
        type=numbers,
        default=[1, 2, 4],
        metavar="LIST",
        help="connections at once (1,2,4)",
    )
    load.add_argument("--seconds", type=seconds, default=2.0, help="of each point (2)")
    load.add_argument(
        "--rounds",
        type=number,
        metavar="N",
        help="send every query N times a point in place of --seconds",
    )
    out = parser.add_argument_group("output, beside the table")
    out.add_argument("--json", metavar="FILE", help="all figures")
    out.add_argument("--png", metavar="FILE", help="curves (needs matplotlib)")
    client.add_arguments(parser)
    return parser.parse_args(arguments)


# ---- what to measure ----


class Subject:
    """The collection, its index, and how its hits are read."""

    def __init__(self, options):
        self.token = client.token_of(options.token, options.token_file)
        self.server = Client(options.url, self.token)
        self.collection = Collection(self.server, options.collection)
        self.about = Patience(10).call(self.collection.describe)
        if self.about is None:
            raise Failed(f"there is no collection {options.collection} at {options.url}")
        schema = self.about["schema"]
        if not schema.get("vector"):
            raise Failed(f"{options.collection} has no vectors to search")
        self.dim, self.metric = schema["vector"]["dim"], schema["vector"]["metric"]
        self.hits = truth.Hits(schema["key"] == "int64")
        self.index = self.collection.index()
        self.target = hammer.Target(options.url, self.token)

    def describe(self):
        i = self.index
        return (
            f"{self.about['rows']:,} rows of {self.dim} ({self.metric}), {i['kind']} over "
            f"{i['indexed_rows']:,} of them"
        )


def efforts_of(subject, options):
    """[{"ef": 16}, ..]; what is not given follows from the kind of the index."""
    if options.ef or options.nprobe or options.exact:
        chosen = [{"ef": n} for n in options.ef or []]
        chosen += [{"nprobe": n} for n in options.nprobe or []]
    elif subject.index["kind"] == "hnsw":
        chosen = [{"ef": n} for n in EF if n >= options.k] or [{"ef": options.k}]
    elif subject.index["kind"] == "ivf":
        chosen = [{"nprobe": n} for n in NPROBE]
    else:
        return [{"exact": "true"}]
    return chosen + ([{"exact": "true"}] if options.exact else [])


def name_of(effort):
    return "exact" if "exact" in effort else " ".join(f"{n} {v}" for n, v in effort.items())


def queries_and_truth(subject, options):
    in_hdf5 = options.queries and formats.suffix(options.queries) in formats.HDF5
    truth_path = options.truth or (options.queries if in_hdf5 else None)
    count = options.queries_max or (QUERIES_MAX if truth_path else QUERIES_EXACT_MAX)
    c, k = subject.collection, options.k
    if options.queries:
        queries = truth.queries_from(options.queries, "test", subject.dim, count)
    elif options.truth:
        raise Failed("--truth needs --queries: its neighbours are those of certain queries")
    else:
        queries = truth.sampled(c, subject.dim, count, options.seed)
    if not truth_path:
        with screen.Progress("exact search for the truth", len(queries), "queries") as progress:
            return queries, truth.by_exact_search(c, subject.hits, queries, k, progress)
    found = truth.from_file(
        c, subject.metric, queries, truth_path, "neighbors", k, options.first_key
    )
    truth.check(c, subject.hits, queries, found, k)
    return queries, found


# ---- measuring ----


def requests_for(subject, queries, effort, k):
    settings = {"k": queries.k_asked(k), **effort}
    query = "&".join(f"{name}={value}" for name, value in settings.items())
    path = f"{subject.collection.path}/search?{query}"
    types = {"Content_Type": client.OCTETS, "Accept": subject.hits.accept}
    return [
        subject.target.request("POST", path, vector.tobytes(), **types)
        for vector in queries.vectors
    ]


def measure_recall(subject, requests, queries, known, options):
    """Asks every query once; that also warms the caches."""
    asked = queries.k_asked(options.k)
    connections = min(max(options.concurrency), len(requests))
    result = hammer.run(subject.target, requests, connections, rounds=1, keep=True)
    found = []
    for i in range(len(queries)):
        (hits,) = subject.hits.read(result.bodies[i], 1, asked)
        own = queries.own[i] if queries.own else None
        found.append([d for _, d in truth.without_self(hits, own, options.k)])
    return stats.recall(found, known.kth, known.wanted)


def measure_point(subject, requests, connections, options):
    if options.rounds:
        return hammer.run(subject.target, requests, connections, rounds=options.rounds)
    return hammer.run(
        subject.target, requests, connections, seconds=options.seconds, warmup_s=WARMUP_S
    )


def measure(subject, queries, known, options):
    """A point for each effort and concurrency, printed as it is known."""
    titled = [(title.format(k=options.k), *rest) for title, *rest in COLUMNS]
    columns = [(title, max(width, len(title)), right) for title, width, right in titled]
    screen.row(columns, [title for title, _, _ in columns])
    points = []
    for effort in efforts_of(subject, options):
        requests = requests_for(subject, queries, effort, options.k)
        recall = measure_recall(subject, requests, queries, known, options)
        for connections in options.concurrency:
            r = measure_point(subject, requests, connections, options)
            points.append(
                {
                    "name": name_of(effort),
                    "effort": {n: v == "true" or v for n, v in effort.items()},
                    "recall": recall,
                    "concurrency": connections,
                    "requests": r.requests,
                    "qps": r.qps,
                    "p50_ms": r.p50_ms,
                    "p95_ms": r.p95_ms,
                    "p99_ms": r.p99_ms,
                    "client_cpu_us": r.cpu_us,
                }
            )
            screen.row(columns, cells_of(points[-1]))
    return points


def cells_of(p):
    times = [f"{p[name]:.3f}" for name in ("p50_ms", "p95_ms", "p99_ms")]
    cpu = f"{p['client_cpu_us']:.0f}"
    return [p["name"], f"{p['recall']:.4f}", p["concurrency"], f"{p['qps']:,.0f}", *times, cpu]


def measure_empty(subject):
    """A request that costs the server next to nothing: what HTTP and this client take."""
    request = subject.target.request("GET", "/healthz")
    return hammer.run(subject.target, [request], 1, seconds=EMPTY_S, warmup_s=0.1)


# ---- all of it ----


def report_of(subject, queries, known, options, empty, points):
    return {
        "title": f"{options.collection}: {subject.describe()}, k = {options.k}",
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "url": options.url,
        "server": subject.server.get("/"),
        "collection": options.collection,
        "rows": subject.about["rows"],
        "dim": subject.dim,
        "metric": subject.metric,
        "version": subject.about["version"],
        "index": subject.index,
        "index_settings": subject.about["schema"].get("index"),
        "k": options.k,
        "queries": {"count": len(queries), "source": queries.source},
        "truth": known.source,
        "client": {
            "cores": os.cpu_count(),
            "same_machine": subject.target.host in LOCAL,
            "empty_request_p50_ms": empty.p50_ms,
            "empty_request_cpu_us": empty.cpu_us,
        },
        "points": points,
    }


def write_json(path, report):
    with open(path, "w") as f:
        json.dump(report, f, indent=1)
        f.write("\n")


def run(options):
    if options.png:
        plot.check()
    subject = Subject(options)
    screen.note(f"{options.collection}: {subject.describe()}")
    if subject.index["state"] != "ready":
        screen.note("its index is being built: recall and speed will change until it is ready")
    queries, known = queries_and_truth(subject, options)
    screen.note(f"{len(queries):,} queries: {queries.source}; truth: {known.source}")
    empty = measure_empty(subject)
    where = f", on the server's machine ({os.cpu_count()} cores, shared)"
    screen.note(
        f"this client{where if subject.target.host in LOCAL else ''}: an empty request takes "
        f"{empty.p50_ms:.3f} ms at p50, {empty.cpu_us:.0f} us of it the client's CPU"
    )
    points = measure(subject, queries, known, options)
    report = report_of(subject, queries, known, options, empty, points)
    if options.json:
        write_json(options.json, report)
        screen.note(f"figures: {options.json}")
    if options.png:
        plot.write(options.png, report)
        screen.note(f"curves: {options.png}")


def main(arguments):
    options = parse_arguments(arguments)
    try:
        run(options)
    except (
        Failed,
        Refused,
        Unreachable,
        formats.WrongFile,
        truth.NoTruth,
        plot.NoMatplotlib,
    ) as e:
        sys.exit(f"recall_latency: {e}")
    except OSError as e:
        sys.exit(f"recall_latency: {client.system_sentence(e)}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(sys.argv[1:])
