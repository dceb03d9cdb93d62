"""The builder of graphs: a setting of the collection like the others, that decides who builds; what
either builds finds the same, and GET index says who it was."""

import numpy as np
import pytest

from client import Collection, expect, problem
from data import clustered, faiss_exact, recall

N, DIM, K = 20000, 64, 10


def create(client, name, metric="l2", **index):
    return Collection(client, name).create(
        key="int64",
        vector={"dim": DIM, "metric": metric},
        index={"kind": "hnsw", "m": 16, "ef_construction": 100, **index},
    )


def builders(c):
    return {s["builder"] for s in c.index()["segments"]}


def settings(c):
    return c.describe()["schema"]["index"]


def test_setting_comes_back_and_is_left_out_when_auto(client, collection):
    c = create(client, collection.name)
    assert "builder" not in settings(c)
    for builder in ("faiss", "native"):
        c.patch(index={"builder": builder})
        assert settings(c)["builder"] == builder
        assert settings(c)["m"] == 16, "the other settings stay"
    c.patch(index={"m": 8})
    assert settings(c)["builder"] == "native"
    c.patch(index={"builder": "auto"})
    assert "builder" not in settings(c)


def test_setting_outlives_a_restart(own_daemon):
    create(own_daemon.client, "kept", builder="faiss")
    own_daemon.kill()
    own_daemon.start()
    assert settings(Collection(own_daemon.client, "kept"))["builder"] == "faiss"


def test_another_builder_is_another_schema(client, collection):
    create(client, collection.name, builder="faiss")
    body = {
        "key": "int64",
        "vector": {"dim": DIM, "metric": "l2"},
        "index": {"kind": "hnsw", "m": 16, "ef_construction": 100, "builder": "native"},
    }
    problem(client.put(f"/v1/collections/{collection.name}", body), 409, "index.builder")


@pytest.mark.parametrize("builder", ["mine", "", "Native"])
def test_unknown_builder_is_refused(client, collection, builder):
    body = {"key": "int64", "vector": {"dim": DIM}, "index": {"builder": builder}}
    answer = client.put(f"/v1/collections/{collection.name}", body)
    problem(answer, 422, "auto, native or faiss", field="builder")


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_both_builders_reach_the_same_recall(client, collection, metric):
    base = clustered(N, DIM, seed=5, clusters=100)
    queries = clustered(200, DIM, seed=5, clusters=100) + np.float32(0.05)
    truth, _ = faiss_exact(metric, base, queries, K)
    c = create(client, collection.name, metric, builder="faiss")
    c.load_vectors(base)
    c.wait_indexed()
    assert builders(c) == {"faiss"}
    found = {"faiss": recall(c.keys_of(vectors=queries.tolist(), k=K, ef=64), truth)}
    c.patch(index={"builder": "native"})
    c.wait_indexed()
    assert builders(c) == {"native"}
    found["native"] = recall(c.keys_of(vectors=queries.tolist(), k=K, ef=64), truth)
    assert found["native"] >= found["faiss"] - 0.005, found
    assert found["native"] >= 0.95
    c.patch(index={"builder": "auto"})
    assert c.index()["state"] == "ready", "auto takes what either built"


def test_index_says_what_the_gate_found(client, collection):
    base = clustered(N, DIM, seed=5, clusters=100)
    c = create(client, collection.name)
    c.load_vectors(base)
    c.wait_indexed()
    (segment,) = c.index()["segments"]
    assert segment["rows"] == N and segment["kind"] == "hnsw" and segment["builder"] == "native"
    codes = segment["codes"]
    assert codes["scheme"] == "uniform" and codes["recall"] >= 0.998
    assert codes["rerank_permille"] > 0 and "why" not in codes


def test_rogue_dimension_gets_no_codes_and_faiss(client, collection):
    base = clustered(N, DIM, seed=5, clusters=100)
    base[:, 0] *= 1000
    c = create(client, collection.name)
    c.load_vectors(base)
    c.wait_indexed()
    (segment,) = c.index()["segments"]
    assert segment["builder"] == "faiss"
    assert segment["codes"]["scheme"] == "none" and segment["codes"]["recall"] < 0.998
    assert "lost too many" in segment["codes"]["why"]


def test_rebuild_with_another_builder(client, collection):
    base = clustered(N, DIM, seed=5, clusters=100)
    c = create(client, collection.name)
    c.load_vectors(base)
    c.wait_indexed()
    assert builders(c) == {"native"}
    expect(client.post(f"{c.path}/index", {"builder": "faiss"}), 202)
    c.wait_indexed()
    assert builders(c) == {"faiss"} and settings(c)["builder"] == "faiss"


def test_kill_during_a_native_build_recovers(own_daemon):
    base = clustered(30000, DIM, seed=6, clusters=100)
    c = create(own_daemon.client, "words", builder="native", ef_construction=400)
    c.load_vectors(base)
    assert c.index()["state"] == "building"
    own_daemon.kill()
    own_daemon.start()
    c = Collection(own_daemon.client, "words")
    c.wait_indexed()
    assert builders(c) == {"native"}
    extra = [f.name for f in (own_daemon.data / "words" / "index").iterdir() if f.suffix == ".tmp"]
    assert extra == [], "temporary files of the build that was killed"
    queries = base[:100] + np.float32(0.01)
    truth, _ = faiss_exact("l2", base, queries, K)
    assert recall(c.keys_of(vectors=queries.tolist(), k=K, ef=128), truth) >= 0.99
