"""index.faiss: FAISS opens what is given out and finds the same neighbours, its releases of today
and Debian's; what is no single index is refused with the way there."""

import subprocess
import threading

import faiss
import numpy as np
import pytest

from client import OCTETS, Collection, expect, problem
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


@pytest.fixture
def own(start_daemon):
    return start_daemon()


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
    assert recall(ids, keys) >= 0.95
    assert recall(ids, found) >= 0.95
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
    python = "/usr/bin/python3"  # with python3-faiss, which scripts/setup.sh installs
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




# ---- a file that was built elsewhere ----


def written(index, path):
    faiss.write_index(index, str(path))
    return path.read_bytes()


def put(c, body, **headers):
    return c.client.put(
        f"{c.path}/index.faiss", body, headers={"Content-Type": OCTETS, **headers}
    )


def graph_over(base, metric, m=8, ids=None):
    flavour = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    graph = faiss.IndexHNSWFlat(base.shape[1], m, flavour)
    graph.hnsw.efConstruction = 80
    data = normalised(base) if metric == "cosine" else base
    if ids is None:
        graph.add(data)
        return graph
    mapped = faiss.IndexIDMap(graph)
    mapped.add_with_ids(data, ids)
    return mapped


def lists_over(base, metric, ids, nlist=32):
    flavour = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    flat = faiss.IndexFlatL2(base.shape[1]) if metric == "l2" else faiss.IndexFlatIP(base.shape[1])
    index = faiss.IndexIVFFlat(flat, base.shape[1], nlist, flavour)
    data = normalised(base) if metric == "cosine" else base
    index.train(data)
    index.add_with_ids(data, ids)
    return index


def fresh(client, name, base, metric="l2", first_key=0, **index):
    """One segment whose own build is slow, so that what is in use soon is what was sent."""
    c = Collection(client, name).create(
        key="int64",
        vector={"dim": DIM, "metric": metric},
        index={"kind": "hnsw", "m": 8, "ef_construction": 60, **index},
    )
    c.load_vectors(base, first_key=first_key)
    c.compact()
    return c


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_a_graph_built_elsewhere_is_the_index(own, vectors, metric, tmp_path):
    base, queries = vectors
    c = fresh(own.client, f"graph_{metric}", base, metric, first_key=500)
    order = np.random.default_rng(1).permutation(N)  # not the order of the rows
    body = written(graph_over(base[order], metric, ids=order + 500), tmp_path / "i")
    state = expect(put(c, body))
    assert (state["kind"], state["indexed_rows"]) == ("hnsw", N)
    assert "taken from a FAISS file" in own.log()
    truth = c.keys_of(vectors=queries.tolist(), k=K, exact=True)
    assert recall(c.keys_of(vectors=queries.tolist(), k=K, ef=128), truth) >= 0.98
    # what comes out again is that graph: FAISS finds with it what it found before
    again = opened(tmp_path / "o", get(c).body)
    inner = faiss.downcast_index(faiss.downcast_index(again).index)
    inner.hnsw.efSearch = 64
    mine = graph_over(base[order], metric, ids=order + 500)
    faiss.downcast_index(mine.index).hnsw.efSearch = 64
    asked = as_asked(metric, queries)
    assert recall(again.search(asked, K)[1], mine.search(asked, K)[1]) >= 0.97
    own.restart()
    c = Collection(own.client, c.name)
    assert c.index()["indexed_rows"] == N
    assert recall(c.keys_of(vectors=queries.tolist(), k=K, ef=128), truth) >= 0.98


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_lists_built_elsewhere_are_the_index(own, vectors, metric, tmp_path):
    base, queries = vectors
    c = fresh(own.client, f"lists_{metric}", base, metric, kind="ivf", nlist=32)
    state = expect(put(c, written(lists_over(base, metric, np.arange(N)), tmp_path / "i")))
    assert (state["kind"], state["indexed_rows"]) == ("ivf", N)
    truth = c.keys_of(vectors=queries.tolist(), k=K, exact=True)
    assert recall(c.keys_of(vectors=queries.tolist(), k=K, nprobe=12), truth) >= 0.95
    index = opened(tmp_path / "o", get(c).body)
    faiss.downcast_index(index).nprobe = 12
    assert recall(index.search(as_asked(metric, queries), K)[1], truth) >= 0.95


def test_a_graph_without_ids_counts_the_rows_with_a_vector(own, vectors, tmp_path):
    base, queries = vectors
    name = "with_gaps"
    c = Collection(own.client, name).create(
        key="string",
        vector={"dim": DIM, "metric": "l2"},
        index={"kind": "hnsw", "m": 8, "ef_construction": 60},
    )
    rows = [{"key": f"k{i}", "vector": v.tolist()} for i, v in enumerate(base[:1500])]
    for i in range(0, 1500, 10):
        rows.insert(i, {"key": f"none{i}"})
    c.load(rows)
    c.compact()
    expect(put(c, written(graph_over(base[:1500], "l2"), tmp_path / "i")))
    truth = c.keys_of(vectors=queries.tolist(), k=K, exact=True)
    assert recall(c.keys_of(vectors=queries.tolist(), k=K, ef=128), truth) >= 0.98


def test_what_was_given_out_is_taken_back(own, vectors):
    base, queries = vectors
    c = fresh(own.client, "there_and_back", np.vstack([base, base[:300]]))
    c.wait_indexed()
    body = get(c).body
    expect(put(c, body))
    assert get(c).body == body
    truth = c.search(vectors=queries.tolist(), k=K, exact=True)["hits"]
    found = c.search(vectors=queries.tolist(), k=K, ef=200)["hits"]
    assert recall([[h["key"] for h in q] for q in found], [[h["key"] for h in q] for q in truth]) > 0.98


def test_a_file_that_does_not_fit_is_refused_and_nothing_changes(own, vectors, tmp_path):
    base, queries = vectors
    c = fresh(own.client, "picky", base)
    c.wait_indexed()
    before = (c.index(), c.search(vectors=queries.tolist())["hits"])
    keys = np.arange(N)
    moved = base.copy()
    moved[77, 3] += 1

    def refused(index, *words, status=422):
        problem(put(c, written(index, tmp_path / "i")), status, *words)

    wide = clustered(N, DIM + 1, seed=3)
    refused(graph_over(wide, "l2", ids=keys), f"dim {DIM + 1}", f"dim {DIM}")
    refused(graph_over(base[:-1], "l2", ids=keys[:-1]), f"{N - 1} vectors", f"{N} rows")
    refused(graph_over(base, "ip", ids=keys), "inner product", "l2")
    refused(graph_over(base, "l2", m=12, ids=keys), "m 12", "m 8")
    refused(graph_over(base, "l2", ids=keys + 10**7), f"id {10**7}", "no key")
    refused(graph_over(base, "l2", ids=keys[::-1].copy()), "is not its row's", "element 0")
    refused(graph_over(moved, "l2", ids=keys), "id 77", "element 3")
    twice = keys.copy()
    twice[5] = 4
    refused(graph_over(base[twice], "l2", ids=twice), "two vectors with id 4")
    refused(lists_over(base, "l2", keys), "IndexIVFFlat", "hnsw")
    refused(faiss.IndexFlatL2(DIM), "IxF2", "IHNf")
    quantised = faiss.IndexHNSWSQ(DIM, faiss.ScalarQuantizer.QT_8bit, 8)
    quantised.train(base)
    quantised.add(base)
    refused(quantised, "IHNs")
    good = written(graph_over(base, "l2", ids=keys), tmp_path / "i")
    for cut in (0, 3, 40, 5000, len(good) // 2, len(good) - 1):
        problem(put(c, good[:cut]), 400)
    problem(put(c, b"PAR1" + bytes(1000)), 422, "PAR1")
    problem(put(c, good + bytes(80 << 20)), 413, "larger")
    problem(put(c, good, **{"Content-Type": "application/json"}), 415)
    problem(put(c, good, **{"Content-Digest": "sha-256=:AAAA:"}), 400)
    assert (c.index(), c.search(vectors=queries.tolist())["hits"]) == before
    assert not [f for f in (own.data / c.name / "index").iterdir() if f.suffix != ".ann"]


def test_an_import_needs_settings_and_one_segment(own, vectors, tmp_path):
    base, _ = vectors
    body = written(graph_over(base, "l2", ids=np.arange(N)), tmp_path / "i")
    problem(put(Collection(own.client, "nowhere"), body), 404, "nowhere")
    c = fresh(own.client, "flat", base, kind="flat")
    problem(put(c, body), 409, "kind flat", f"{c.path}/index")
    c.load_vectors(base[:5], first_key=10**6)
    problem(put(c, body), 409, "2 segments", f"{c.path}/compact")


def test_searches_go_on_while_a_file_is_taken_in(own, vectors, tmp_path):
    base, queries = vectors
    c = fresh(own.client, "busy", base)
    c.wait_indexed()
    truth = c.keys_of(vectors=queries.tolist(), k=K, exact=True)
    body = written(graph_over(base, "l2", ids=np.arange(N)), tmp_path / "i")
    answers = []
    sender = threading.Thread(target=lambda: answers.append(put(c, body)))
    sender.start()
    rounds = 0
    while sender.is_alive() or rounds < 3:
        assert recall(c.keys_of(vectors=queries.tolist(), k=K, ef=128), truth) >= 0.97
        rounds += 1
    expect(answers[0])
