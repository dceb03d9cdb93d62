"""The adapters for other people's benchmarks, driven as those drive them, against a real daemon."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from daemon import REPO
from data import clustered, faiss_exact, recall

sys.path.insert(0, str(REPO / "bench" / "adapters"))
import ann_benchmarks  # noqa: E402
import vector_db_benchmark as vdb  # noqa: E402

N, DIM, K = 6000, 384, 10  # 9 MB: enough for an index of its own
INDEX = {"m": 16, "ef_construction": 100}


@pytest.fixture(scope="module")
def vectors():
    base = clustered(N, DIM, seed=5)
    return base, base[:50] + np.float32(0.02)


@pytest.mark.parametrize(("distance", "metric"), [("euclidean", "l2"), ("angular", "cosine")])
def test_ann_benchmarks_finds_the_true_neighbours(client, vectors, monkeypatch, distance, metric):
    base, queries = vectors
    monkeypatch.setenv("LOADSTONE_URL", f"http://127.0.0.1:{client.port}")
    algorithm = ann_benchmarks.Loadstone(distance, INDEX)
    algorithm.fit(base)
    assert algorithm.collection.index()["indexed_rows"] == N
    truth, _ = faiss_exact(metric, base, queries, K)
    reached = []
    for ef in (10, 400):
        algorithm.set_query_arguments(ef)
        assert f"ef {ef}" in str(algorithm)
        found = [algorithm.query(q, K) for q in queries]
        algorithm.batch_query(queries, K)
        batch = algorithm.get_batch_results()
        assert [list(row) for row in batch] == [list(row) for row in found]
        reached.append(recall(found, truth))
    assert reached[1] >= 0.99 and reached[1] >= reached[0]
    path = algorithm.collection.path
    algorithm.done()
    assert client.get(path).status == 404, "the collection is left behind"


def test_ann_benchmarks_gives_fewer_where_there_are_fewer(client, vectors, monkeypatch):
    monkeypatch.setenv("LOADSTONE_URL", f"http://127.0.0.1:{client.port}")
    algorithm = ann_benchmarks.Loadstone("euclidean", INDEX)
    algorithm.fit(vectors[0][:3])
    algorithm.set_query_arguments(20)
    assert sorted(algorithm.query(vectors[1][0], K)) == [0, 1, 2]
    algorithm.done()


def test_ann_benchmarks_refuses_a_metric_it_lacks():
    with pytest.raises(NotImplementedError, match="hamming"):
        ann_benchmarks.Loadstone("hamming", INDEX)


def fill(client, base, schema, metadata, batch=1000):
    """As vector-db-benchmark does it: configure, upload in batches, wait."""
    where = {"port": client.port}
    config = SimpleNamespace(distance="l2", vector_size=DIM, schema=schema)
    configurator = vdb.LoadstoneConfigurator("127.0.0.1", {}, where)
    configurator.clean()
    configurator.recreate(SimpleNamespace(config=config), {"index": {"kind": "hnsw", **INDEX}})
    vdb.LoadstoneUploader.init_client("127.0.0.1", "l2", where, {})
    for at in range(0, len(base), batch):
        rows = range(at, min(at + batch, len(base)))
        vdb.LoadstoneUploader.upload_batch(
            [SimpleNamespace(id=i, vector=base[i].tolist(), metadata=metadata(i)) for i in rows]
        )
    assert vdb.LoadstoneUploader.post_upload("l2") == {}
    vdb.LoadstoneUploader.delete_client()
    options = {"search_params": {"ef": 400}}
    vdb.LoadstoneSearcher.init_client("127.0.0.1", "l2", where, options)
    return configurator


def ask(queries, conditions=None):
    asked = [SimpleNamespace(vector=q.tolist(), meta_conditions=conditions) for q in queries]
    return [vdb.LoadstoneSearcher.search_one(q, K) for q in asked]


def test_vector_db_benchmark_finds_the_true_neighbours(client, vectors):
    base, queries = vectors
    configurator = fill(client, base, {}, lambda i: None, batch=N)
    assert configurator.collection.index()["indexed_rows"] == N
    truth, distances = faiss_exact("l2", base, queries, K)
    found = ask(queries)
    assert recall([[key for key, _ in hits] for hits in found], truth) >= 0.99
    np.testing.assert_allclose([hits[0][1] for hits in found], distances[:, 0], rtol=1e-3)
    configurator.clean()
    vdb.LoadstoneSearcher.delete_client()
    configurator.delete_client()


def test_vector_db_benchmark_filters_by_its_conditions(client, vectors):
    base, queries = vectors[0][:2000], vectors[1][:10]
    schema = {"colour": "keyword", "size": "int", "weight": "float"}

    def metadata(i):
        return {"colour": ["red", "it's blue"][i % 2], "size": i, "weight": i / 2}

    configurator = fill(client, base, schema, metadata)
    both = [{"colour": {"match": {"value": "it's blue"}}}]
    both.append({"size": {"range": {"gte": 100, "lt": 900, "gt": None}}})
    either = [{"size": {"match": {"value": 3}}}, {"weight": {"range": {"gt": 999}}}]
    for conditions, keep in (
        ({"and": both}, [i for i in range(100, 900) if i % 2]),
        ({"or": either}, [3, 1999]),
    ):
        truth, _ = faiss_exact("l2", base[keep], queries, min(K, len(keep)))
        found = [[key for key, _ in hits] for hits in ask(queries, conditions)]
        assert recall(found, np.array(keep)[truth]) >= 0.99
        assert {key for keys in found for key in keys} <= set(keep)
    configurator.clean()
    vdb.LoadstoneSearcher.delete_client()
    configurator.delete_client()


def test_vector_db_benchmark_refuses_what_it_lacks():
    with pytest.raises(NotImplementedError, match="geo"):
        vdb.features_of({"place": "geo"})
    with pytest.raises(NotImplementedError, match="geo"):
        vdb.filter_of({"and": [{"place": {"geo": {"lat": 1, "lon": 2, "radius": 3}}}]})
    assert vdb.filter_of(None) is None and vdb.filter_of({"and": []}) is None
