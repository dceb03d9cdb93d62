"""index.faiss: FAISS opens what is given out and finds the same neighbours, its releases of today
and Debian's; what is no single index is refused with the way there."""

import subprocess

import faiss
import numpy as np
import pytest

from client import Collection, expect, problem
from data import clustered, normalised, recall

N, DIM, K = 6000, 24, 10

# Debian's python3-faiss, in the system's own interpreter.
DEBIAN = """
import sys, numpy, faiss
index = faiss.read_index(sys.argv[1])
queries = numpy.load(sys.argv[2])
numpy.save(sys.argv[3], index.search(queries, 10)[1])
"""


@pytest.fixture(scope="module")
def vectors():
    return clustered(N, DIM, seed=3), clustered(40, DIM, seed=3) + np.float32(0.03)


def make(client, name, base, metric="l2", kind="hnsw", first_key=0, key="int64"):
    c = Collection(client, name).create(
        key=key,
        vector={"dim": DIM, "metric": metric},
        index={"kind": kind, "m": 8, "ef_construction": 60},
    )
    if key == "int64":
        c.load_vectors(base, first_key=first_key)
    else:
        c.load([{"key": f"k{i}", "vector": v.tolist()} for i, v in enumerate(base)])
    c.compact()
    c.wait_indexed()
    return c


def get(c, status=200, method="GET", **headers):
    answer = c.client.request(method, f"{c.path}/index.faiss", headers=headers)
    return expect(answer, status) if status >= 400 else answer


def opened(path, body):
    path.write_bytes(body)
    return faiss.read_index(str(path))


def as_asked(metric, queries):
    return normalised(queries) if metric == "cosine" else queries


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_faiss_finds_the_same_neighbours(client, collection, vectors, metric, kind, tmp_path):
    base, queries = vectors
    c = make(client, collection.name, base, metric, kind, first_key=1000)
    answer = get(c)
    assert answer.status == 200
    assert answer.headers["Loadstone-Rows-Left-Out"] == "0"
    assert answer.headers["Content-Length"] == str(len(answer.body))
    index = opened(tmp_path / "i.faiss", answer.body)
    assert (index.d, index.ntotal) == (DIM, N)
    assert index.metric_type == (faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        faiss.downcast_index(faiss.downcast_index(index).index).hnsw.efSearch = 128
        ours = {"ef": 128}
    else:
        faiss.downcast_index(index).nprobe = 16
        ours = {"nprobe": 16}
    values, ids = index.search(as_asked(metric, queries), K)
    truth = c.search(vectors=queries.tolist(), k=K, exact=True)["hits"]
    keys = [[h["key"] for h in hits] for hits in truth]
    found = c.keys_of(vectors=queries.tolist(), k=K, **ours)
    assert recall(ids, keys) >= 0.98
    assert recall(ids, found) >= 0.98
    wanted = np.array([[h["distance"] for h in hits] for hits in truth])
    values = {"l2": np.sqrt(np.maximum(values, 0)), "ip": -values, "cosine": 1 - values}[metric]
    assert np.allclose(np.sort(values)[:, 0], wanted[:, 0], rtol=1e-3, atol=1e-4)


def test_vectors_come_back_by_their_keys(client, collection, vectors, tmp_path):
    base, _ = vectors
    c = make(client, collection.name, base, first_key=-50)
    index = opened(tmp_path / "i.faiss", get(c).body)
    for row in (0, 1, 49, 50, N - 1):
        assert np.array_equal(index.reconstruct(row - 50), base[row])


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_debians_faiss_reads_it(client, collection, vectors, kind, tmp_path):
    python = "/usr/bin/python3"
    if subprocess.run([python, "-c", "import faiss"], capture_output=True).returncode != 0:
        pytest.skip("python3-faiss is not installed")
    base, queries = vectors
    c = make(client, collection.name, base, "l2", kind)
    (tmp_path / "i.faiss").write_bytes(get(c).body)
    np.save(tmp_path / "q.npy", queries)
    names = [str(tmp_path / n) for n in ("i.faiss", "q.npy", "out.npy")]
    done = subprocess.run([python, "-c", DEBIAN, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    truth = c.keys_of(vectors=queries.tolist(), k=K, exact=True)
    assert recall(np.load(names[2]), truth) >= 0.8  # at FAISS's default effort


def test_string_keys_become_places_in_the_export(client, collection, vectors, tmp_path):
    base, queries = vectors
    c = make(client, collection.name, base[:1500], key="string")
    index = opened(tmp_path / "i.faiss", get(c).body)
    places = [row["key"] for row in c.all_rows()]
    _, ids = index.search(queries, K)
    truth = c.keys_of(vectors=queries.tolist(), k=K, exact=True)
    assert recall([[places[i] for i in row] for row in ids], truth) >= 0.9


def test_rows_with_the_vector_of_another_are_counted(client, collection, vectors, tmp_path):
    base, _ = vectors
    c = make(client, collection.name, np.vstack([base, base[:100]]))
    answer = get(c)
    assert answer.headers["Loadstone-Rows-Left-Out"] == "100"
    assert opened(tmp_path / "i.faiss", answer.body).ntotal == N


def test_etag_and_ranges(client, collection, vectors):
    base, _ = vectors
    c = make(client, collection.name, base)
    whole = get(c)
    etag, size = whole.headers["ETag"], len(whole.body)
    assert get(c).body == whole.body and get(c).headers["ETag"] == etag
    assert get(c, **{"If-None-Match": etag}).status == 304
    assert get(c, **{"If-Match": '"0"'}).status == 412
    head = get(c, method="HEAD")
    assert (head.headers["ETag"], head.headers["Content-Length"]) == (etag, str(size))
    for first, last in ((0, 0), (100, 70000), (size // 2, size - 1), (size - 5, size - 1)):
        part = get(c, Range=f"bytes={first}-{last}")
        assert part.status == 206
        assert part.body == whole.body[first : last + 1]
    assert get(c, Range=f"bytes={size}-").status == 416
    c.load_vectors(base[:10] + 1, first_key=10**6)
    c.compact()
    c.wait_indexed()
    assert get(c).headers["ETag"] != etag


def test_what_is_no_single_index_is_refused(client, collection, vectors):
    base, _ = vectors
    name = collection.name
    problem(client.get(f"/v1/collections/{name}/index.faiss"), 404)
    c = Collection(client, name).create(
        key="int64",
        vector={"dim": DIM, "metric": "l2"},
        index={"kind": "flat"},
        retention={"versions": 1},
    )
    path = f"{c.path}/index.faiss"
    problem(client.get(path), 409, "empty")
    c.load_vectors(base)
    c.compact()
    problem(client.get(path), 409, "no hnsw or ivf index", f"/v1/collections/{name}/index")
    expect(client.post(f"{c.path}/index", {"kind": "hnsw"}), 202)
    c.wait_indexed()
    assert client.get(path).status == 200
    c.load_vectors(base[:7], first_key=10**6)
    problem(client.get(path), 409, "2 segments", "1 of them in memory", f"{c.path}/compact")
    c.compact()
    c.wait_indexed()
    assert client.get(path).status == 200
    c.delete_rows([1, 2, 3])
    problem(client.get(path), 409, "3 deleted rows", f"{c.path}/compact")


def test_a_collection_without_vectors_has_none(client, collection):
    c = Collection(client, collection.name).create(key="int64", features={"a": "int32"})
    problem(client.get(f"{c.path}/index.faiss"), 422, "no vectors")


