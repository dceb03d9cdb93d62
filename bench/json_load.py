"""JSON load: rows as JSON text through the daemon against simdjson alone, in interleaved rounds.

(a) simdjson  reads the same bytes on one core, every number into an array     (json_load.cpp)
(b) load      the same bytes over HTTP into a collection: parsed, checked, written, committed

Vectors of 128 and 768 dimensions with three features, their numbers as short as a float32 allows
(9 digits or so) and as Python prints a float64 (16 or 17); NDJSON in one body, and {"rows":[..]} in
bodies of 60 MB. The aim: (b) at least 40 % of (a). Rates are medians over the rounds, ratios are
medians of each round's own.

The same reader takes the vectors of search bodies: how long one takes is printed too (json_vector.c,
in process). The aim: 10 us for 768 dimensions.

BENCH_JSON_MB (200) is the size of each text, BENCH_ROUNDS (5) the number of rounds.
"""

import json
import os
import shutil
import statistics
import time

from service import WORK, Collection, Daemon, helper

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
TEXT_MB = int(os.environ.get("BENCH_JSON_MB", 200))
BODY_BYTES = 60_000_000
AIM = 0.40
VECTOR_AIM_US = 10
DIMS = (128, 768)
NUMBER_BYTES = {"float32": 12, "float64": 21}
TYPES = {"ndjson": "application/x-ndjson", "json": "application/json"}


def make_lines(directory, dim, kind):
    path = directory / f"{dim}.{kind}.ndjson"
    rows = TEXT_MB * 1_000_000 // (dim * NUMBER_BYTES[kind] + 80)
    helper("json_load", "make", rows, dim, kind, path)
    return path


def make_bodies(lines):
    """The same rows as {"rows":[..]}, cut at line ends."""
    text = lines.read_bytes()
    paths, start = [], 0
    while start < len(text):
        end = text.rfind(b"\n", start, start + BODY_BYTES) + 1
        paths.append(lines.with_suffix(f".{len(paths)}.json"))
        body = text[start : end - 1].replace(b"\n", b",")
        paths[-1].write_bytes(b'{"rows":[' + body + b"]}")
        start = end
    return paths


def parse(paths):
    """Seconds that simdjson alone takes for all of them, and the API that was faster."""
    parsed = [helper("json_load", "parse", path) for path in paths]
    return sum(float(seconds) for seconds, _, _ in parsed), parsed[0][2]


def load(daemon, name, dim, shape, paths):
    """Seconds from the first byte out to the last answer in."""
    c = Collection(daemon.client, name).create(
        key="string",
        vector={"dim": dim, "metric": "l2"},
        features={"price": "float64", "stock": "int64", "brand": "string"},
        index={"kind": "flat"},
    )
    bodies = [path.read_bytes() for path in paths]
    headers = {"Content-Type": TYPES[shape]}
    rows = 0
    started = time.perf_counter()
    for body in bodies:
        answer = daemon.client.post(f"{c.path}/rows?mode=append", body, headers=headers)
        assert answer.status == 200, answer
        rows += json.loads(answer.body)["inserted"]
    took = time.perf_counter() - started
    assert c.describe()["rows"] == rows > 0
    assert daemon.client.delete(c.path).status == 204
    return took


class Case:
    def __init__(self, directory, dim, kind, shape):
        lines = make_lines(directory, dim, kind)
        self.dim, self.kind, self.shape = dim, kind, shape
        self.paths = [lines] if shape == "ndjson" else make_bodies(lines)
        self.bytes = sum(path.stat().st_size for path in self.paths)
        self.parses, self.loads, self.api = [], [], ""

    def measure(self, daemon, number):
        took, self.api = parse(self.paths)
        self.parses.append(took)
        os.sync()
        name = f"{self.shape}_{self.dim}_{self.kind}_{number}"
        self.loads.append(load(daemon, name, self.dim, self.shape, self.paths))

    def ratio(self):
        return statistics.median(p / t for p, t in zip(self.parses, self.loads, strict=True))

    def line(self):
        alone, loaded = (self.bytes / statistics.median(s) / 1e6 for s in (self.parses, self.loads))
        return (
            f"  {self.shape:7} {self.dim:5} {self.kind:8} {self.bytes / 1e6:5.0f}"
            f"  {alone:9.0f} {loaded:9.0f}   {self.ratio():6.1%}   {self.api}"
        )


def vector_line(cases, kind):
    """How long a vector of the largest dimension takes to read."""
    dim = max(DIMS)
    lines = next(c.paths[0] for c in cases if (c.dim, c.kind, c.shape) == (dim, kind, "ndjson"))
    took_us, length = helper("json_vector", lines, dim)
    return f"  one {dim}-d vector, {kind}: {float(took_us):.1f} us for {int(length):,} bytes"


def main():
    root = WORK / "json_load.tmp"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    cases = [
        Case(root, dim, kind, shape) for shape in TYPES for dim in DIMS for kind in NUMBER_BYTES
    ]
    daemon = Daemon(root / "daemon").start()
    for number in range(ROUNDS + 1):
        for case in cases:
            case.measure(daemon, number)
            if number == 0:  # buffers, rings and page tables are there from here on
                case.parses.clear()
                case.loads.clear()
        print(f"round {number} of {ROUNDS}", flush=True)
    daemon.stop()
    vectors = [vector_line(cases, kind) for kind in NUMBER_BYTES]
    shutil.rmtree(root)

    print(f"\nJSON load, medians of {ROUNDS} rounds, MB/s of text")
    print("  shape     dim numbers     MB   simdjson      load   load/simdjson")
    for case in cases:
        print(case.line())
    print(f"  lowest ratio: {min(case.ratio() for case in cases):.1%} (aim: {AIM:.0%})")
    print("\n".join(vectors) + f" (aim: {VECTOR_AIM_US} us)")


if __name__ == "__main__":
    main()
