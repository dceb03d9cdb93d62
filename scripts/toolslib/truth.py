"""The queries of a measurement, and how far the true k-th neighbour of each is.

  queries    a file's, or rows sampled from the collection (then each leaves itself out)
  truth      row numbers from a file, their distances computed here from the vectors that the
             server holds; or the server's own exact search

Truth(kth, wanted): per query the distance of the last true neighbour and how many there are.
"""

import json
import random

from . import client, formats
from .numeric import np

EXACT_QUERIES = 16
CHECKED = 8
SCANNED_MAX = 1_000_000
PAGE_ROWS = 10_000


class NoTruth(Exception):
    """A sentence for the user."""


class Queries:
    """n x dim float32; `own` holds the keys of sampled rows, else None."""

    def __init__(self, vectors, source, own=None):
        self.vectors, self.source, self.own = vectors, source, own

    def __len__(self):
        return len(self.vectors)

    def k_asked(self, k):
        """One more when each query finds itself, which does not count."""
        return k + 1 if self.own else k


class Truth:
    def __init__(self, kth, wanted, source):
        self.kth, self.wanted, self.source = kth, wanted, source


class Hits:
    """The answers of a search, read from octets (int64 keys) or JSON (string keys)."""

    def __init__(self, octets):
        self.accept = client.OCTETS if octets else client.JSON
        self.octets = octets

    def read(self, body, n, k):
        """For each of n queries [(key, distance)], nearest first."""
        if not self.octets:
            hits = json.loads(body)["hits"]
            return [[(hit["key"], hit["distance"]) for hit in one] for one in hits]
        keys = np.frombuffer(body, "<i8", n * k).reshape(n, k).tolist()
        distances = np.frombuffer(body, "<f4", n * k, n * k * 8).reshape(n, k).tolist()
        return [
            [(key, d) for key, d in zip(*one) if d != float("inf")] for one in zip(keys, distances)
        ]


def without_self(hits, own, k):
    """At most k hits, each key once, the query itself left out."""
    return [(key, d) for key, d in dict(hits).items() if key != own][:k]


def search(collection, hits, vectors, k, **effort):
    """The hits of a few vectors in one request."""
    query = "&".join(f"{name}={value}" for name, value in {"k": k, **effort}.items())
    _, body = collection.client.exchange(
        "POST",
        f"{collection.path}/search?{query}",
        vectors.tobytes(),
        {"Content-Type": client.OCTETS, "Accept": hits.accept},
    )
    return hits.read(body, len(vectors), k)


# ---- queries ----


def queries_from(path, dataset, dim, count):
    vectors = formats.open_vectors(path, dataset)
    if vectors.dim != dim:
        raise NoTruth(f"{path} has queries of {vectors.dim}, the collection vectors of {dim}")
    return Queries(vectors.read(0, min(count, vectors.rows)), str(path))


def _all_keys(collection):
    """Keys in the order of loading, a page at a time; of a huge collection the first million."""
    after, seen = None, 0
    limits = collection.client.get("/v1/limits")
    limit = min(PAGE_ROWS, limits.get("rows_page_max", PAGE_ROWS))
    while seen < SCANNED_MAX:
        where = {"after": after} if after else {}
        page = collection.page(limit=limit, features="", with_vectors="false", **where)
        yield from (row["key"] for row in page["rows"])
        seen += len(page["rows"])
        after = page["next"]
        if after is None:
            return


def sampled(collection, dim, count, seed):
    """Rows of the collection as queries; rows without a vector are none."""
    chosen, generator = [], random.Random(seed)
    for i, key in enumerate(_all_keys(collection)):  # reservoir sampling
        if i < 2 * count:
            chosen.append(key)
        elif (at := generator.randint(0, i)) < 2 * count:
            chosen[at] = key
    generator.shuffle(chosen)
    own, vectors = [], []
    for key, (_, vector) in zip(chosen, collection.fetch_vectors(chosen, dim)):
        if vector is not None and len(own) < count:
            own.append(key)
            vectors.append(vector)
    if not own:
        raise NoTruth(f"{collection.name} has no vectors to ask with: load some, or give --queries")
    return Queries(np.array(vectors, "<f4"), "rows of the collection", own)


# ---- truth ----


def distances(metric, queries, vectors):
    """Loadstone's distance of each query to its vector."""
    a, b = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        return np.linalg.norm(a - b, axis=1)
    dots = np.einsum("ij,ij->i", a, b)
    if metric == "ip":
        return -dots
    return 1 - dots / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def from_file(collection, metric, queries, path, dataset, k, first_key):
    """The k-th neighbour of the file, its distance computed from the collection's vectors."""
    neighbours = formats.open_neighbours(path, dataset)
    if len(neighbours) < len(queries) or neighbours.shape[1] < k:
        raise NoTruth(
            f"{path} has {neighbours.shape[1]} neighbours of {len(neighbours):,} queries; "
            f"{k} of {len(queries):,} are needed"
        )
    keys = [int(row) + first_key for row in neighbours[: len(queries), k - 1]]
    dim = queries.vectors.shape[1]
    vectors = [vector for _, vector in collection.fetch_vectors(keys, dim)]
    if None in vectors:
        key = keys[vectors.index(None)]
        raise NoTruth(
            f"{path} names row {key - first_key:,}, and {collection.name} holds no vector with key "
            f"{key}: load the whole base file, give --first-key, or leave --truth out"
        )
    kth = distances(metric, queries.vectors, np.array(vectors, "<f4"))
    return Truth(kth.tolist(), [k] * len(queries), str(path))


def check(collection, hits, queries, truth, k):
    """A truth of other data or another metric would make any recall: a few queries tell."""
    n = min(CHECKED, len(queries))
    for i, found in enumerate(search(collection, hits, queries.vectors[:n], k, exact="true")):
        last = found[-1][1] if found else float("nan")
        if not abs(last - truth.kth[i]) <= 0.01 * abs(truth.kth[i]) + 1e-4:
            raise NoTruth(
                f"{truth.source} is no truth for {collection.name}: the exact neighbour {k} of "
                f"query {i} is at {last:.6g}, not at {truth.kth[i]:.6g}: it was made for other "
                "data or another metric"
            )


def by_exact_search(collection, hits, queries, k, progress):
    asked, kth, wanted = queries.k_asked(k), [], []
    for at in range(0, len(queries), EXACT_QUERIES):
        some = queries.vectors[at : at + EXACT_QUERIES]
        for i, found in enumerate(search(collection, hits, some, asked, exact="true")):
            own = queries.own[at + i] if queries.own else None
            others = without_self(found, own, k)
            wanted.append(len(others))
            kth.append(others[-1][1] if others else None)
        progress.advance(len(some))
    return Truth(kth, wanted, "the server's exact search")
