"""The data sets: rows and queries as raw float32 files, and the exact distances of the nearest.

  mnist      60,000 x 784 with 10,000 queries, from MNIST_DIR (base.u8bin.gz, query.u8bin.gz)
  clustered  PEERS_ROWS (1,000,000) x 128: 2,000 centres drawn from N(0, 1), spread 0.6, seed 1
  texts      what make demo has loaded: about 60,000 x 256, of which 2,000 become queries
  FILE.hdf5  in the format of ann-benchmarks, euclidean: train and test

PEERS_ROWS cuts them all. The truth is computed here by BLAS, in float64 for the candidates, so that
every set is judged alike; it is kept beside the rows.
"""

import gzip
import json
import os
from pathlib import Path

import numpy as np

K, QUERIES, BLOCK_QUERIES, CANDIDATES = 10, 2000, 100, 50
TIE = 1e-3  # a hit counts when it is at most this much farther than the true k-th
DEMO_ROWS = Path(os.environ.get("BUILD", "build")) / "demo" / "packages.ndjson"
MNIST_DIR = os.environ.get("MNIST_DIR")


class NotThere(Exception):
    """A sentence that says what is missing."""


def _u8bin(path):
    if not path.exists():
        raise NotThere(f"{path.name} is not in the directory MNIST_DIR names")
    with gzip.open(path) as f:
        n, dim = np.frombuffer(f.read(8), "<i4")
        return np.frombuffer(f.read(), np.uint8).reshape(n, dim).astype("<f4")


def mnist():
    if not MNIST_DIR:
        raise NotThere("MNIST_DIR does not name the directory of base.u8bin.gz and query.u8bin.gz")
    return tuple(_u8bin(Path(MNIST_DIR) / f"{name}.u8bin.gz") for name in ("base", "query"))


def clustered(rows, dim=128, centres=2000, spread=0.6):
    rng = np.random.default_rng(1)
    middle = rng.standard_normal((centres, dim), np.float32)

    def draw(n):
        return middle[rng.integers(centres, size=n)] + np.float32(spread) * rng.standard_normal(
            (n, dim), np.float32
        )

    return draw(rows), draw(QUERIES)


def texts():
    if not DEMO_ROWS.exists():
        raise NotThere(f"{DEMO_ROWS} is not there: make demo makes it")
    with open(DEMO_ROWS) as f:
        vectors = (json.loads(line)["vector"] for line in f)
        rows = np.array([v for v in vectors if v], np.float32)
    np.random.default_rng(1).shuffle(rows)
    return rows[QUERIES:], rows[:QUERIES]


def hdf5(path):
    import h5py

    with h5py.File(path) as f:
        metric = f.attrs.get("distance", "euclidean")
        if metric != "euclidean":
            raise NotThere(f"{path}: its distance is {metric}; euclidean is what is compared here")
        return f["train"][:].astype("<f4"), f["test"][:].astype("<f4")


def read(name, rows):
    if Path(name).suffix in (".hdf5", ".h5"):
        if not Path(name).exists():
            raise NotThere("there is no such file")
        return hdf5(name)
    known = {"mnist": mnist, "clustered": lambda: clustered(rows), "texts": texts}
    if name not in known:
        raise NotThere(f"sets are {', '.join(known)} and .hdf5 files behind --hdf5")
    return known[name]()


class Set:
    def __init__(self, name, work, rows):
        self.name = Path(name).stem
        base, queries = read(name, rows)
        self.base = np.ascontiguousarray(base[:rows])
        self.queries = np.ascontiguousarray(queries[:QUERIES])
        self.rows, self.dim = self.base.shape
        self.folder = work / f"{self.name}-{self.rows}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.base_path, self.queries_path = self.folder / "base.f32", self.folder / "queries.f32"
        self.base.tofile(self.base_path)
        self.queries.tofile(self.queries_path)
        self.judges = {"l2": Judge(self.base, self.queries)}

    def recall(self, path, metric="l2"):
        """Of the row numbers in a file."""
        if metric not in self.judges:  # cosine: l2 of what has length 1
            self.judges[metric] = Judge(unit(self.base), unit(self.queries))
        return self.judges[metric].recall(path)


def unit(vectors):
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


class Judge:
    def __init__(self, base, queries):
        self.base, self.queries = base, queries
        self.limits = self._truth()

    def _truth(self):
        """The distance of each query's k-th neighbour."""
        lengths = np.einsum("ij,ij->i", self.base, self.base)
        limits = np.empty(len(self.queries))
        for at in range(0, len(limits), BLOCK_QUERIES):
            asked = self.queries[at : at + BLOCK_QUERIES]
            rough = lengths - 2 * (asked @ self.base.T)
            last = min(CANDIDATES, len(self.base) - 1)
            near = np.argpartition(rough, last, axis=1)[:, :CANDIDATES]
            limits[at : at + len(asked)] = np.sort(self.distances(at, near), axis=1)[:, K - 1]
        return limits

    def distances(self, first, ids):
        """Of the rows `ids` (queries x n) to the queries from `first` on."""
        asked = self.queries[first : first + len(ids), None, :].astype(np.float64)
        away = self.base[ids] - asked
        return np.sqrt(np.einsum("ijk,ijk->ij", away, away))

    def recall(self, path):
        """One row given twice counts once, a missing one (-1) never."""
        ids = np.fromfile(path, np.int64).reshape(len(self.queries), K)
        good = 0
        for at in range(0, len(ids), BLOCK_QUERIES):
            part = np.sort(ids[at : at + BLOCK_QUERIES], axis=1)
            valid = part >= 0
            valid[:, 1:] &= part[:, 1:] != part[:, :-1]
            away = self.distances(at, np.where(valid, part, 0))
            limit = self.limits[at : at + len(part), None] * (1 + TIE)
            good += int(np.count_nonzero(valid & (away <= limit)))
        return good / ids.size
