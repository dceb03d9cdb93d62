"""scripts/recall_latency.py against the real daemon: its recall is what FAISS's exact search says,
ties counted; its figures add up; its JSON and PNG can be read."""

import contextlib
import io
import json
import struct
import sys

import h5py
import matplotlib.image
import numpy as np
import pytest

from client import Collection
from daemon import REPO
from data import clustered, faiss_exact

sys.path.insert(0, str(REPO / "scripts"))
import recall_latency  # noqa: E402

K, N, QUERIES, FIRST_KEY = 10, 6000, 60, 100
DIM = 384  # 9 MB: enough for an index of its own
BASE = clustered(N, DIM, seed=11, clusters=200, spread=0.9)
ASKED = clustered(QUERIES, DIM, seed=12, clusters=200, spread=2.0)


@pytest.fixture(scope="session")
def truth():
    return {metric: faiss_exact(metric, BASE, ASKED, 2 * K) for metric in ("l2", "ip", "cosine")}


def create(client, name, vectors, metric="l2", first_key=FIRST_KEY, **index):
    c = Collection(client, name)
    vector = {"dim": vectors.shape[1], "metric": metric}
    c.create(key="int64", vector=vector, index=index or {"kind": "flat"})
    c.load_vectors(vectors, first_key=first_key)
    return c


@pytest.fixture(scope="session")
def thin(shared_server):
    """A collection whose graph is so thin that it misses some neighbours."""
    settings = {"kind": "hnsw", "m": 4, "ef_construction": 10}
    c = create(shared_server.client, "recall_thin", BASE, **settings)
    assert c.wait_indexed()[-1]["indexed_rows"] == N
    return c


@pytest.fixture
def measure(client, tmp_path):
    """Runs the script; returns its figures and what it printed, or only that when it fails."""

    def run(name, *args, status=0):
        path = tmp_path / "figures.json"
        out, ended = io.StringIO(), 0
        url = f"http://127.0.0.1:{client.port}"
        with contextlib.redirect_stdout(out):
            try:
                recall_latency.main([name, "--url", url, "--json", str(path), *map(str, args)])
            except SystemExit as e:
                ended = 1 if isinstance(e.code, str) else e.code
                print(e.code)
        assert ended == status, out.getvalue()
        return (json.loads(path.read_text()), out.getvalue()) if status == 0 else out.getvalue()

    return run


@pytest.fixture
def asked(tmp_path):
    np.save(tmp_path / "queries.npy", ASKED)
    return tmp_path / "queries.npy"


def write_ibin(path, ids, distances=b""):
    path.write_bytes(struct.pack("<ii", *ids.shape) + ids.astype("<i4").tobytes() + distances)
    return path


def independent_recall(c, kth, **effort):
    """As the field counts it, from single searches over JSON and FAISS's k-th distances."""
    hits = 0
    for query, far in zip(ASKED.tolist(), kth, strict=True):
        (found,) = c.search(vector=query, k=K, **effort)["hits"]
        hits += sum(hit["distance"] <= far + 1e-3 * abs(far) + 1e-6 for hit in found)
    return hits / (K * QUERIES)


def test_recall_is_that_of_faiss(thin, measure, asked, truth, tmp_path):
    ids, distances = truth["l2"]
    gt = write_ibin(tmp_path / "gt.ibin", ids)
    args = ("--queries", asked, "--truth", gt, "--first-key", FIRST_KEY, "--rounds", 1)
    report, out = measure(thin.name, *args, "--ef", "10,40", "--concurrency", "1,3")
    points = report["points"]
    assert [(p["effort"], p["concurrency"]) for p in points] == [
        ({"ef": ef}, connections) for ef in (10, 40) for connections in (1, 3)
    ]
    for p in points:
        assert p["recall"] == pytest.approx(
            independent_recall(thin, distances[:, K - 1], **p["effort"])
        )
    assert points[0]["recall"] < points[2]["recall"] < 1
    for p in points:
        assert f"{p['recall']:.4f}" in out


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_the_servers_exact_search_is_a_truth_too(client, collection, measure, asked, metric):
    create(client, collection.name, BASE[:1000], metric)
    report, _ = measure(collection.name, "--queries", asked, "--rounds", 1, "--concurrency", 2)
    (point,) = report["points"]
    assert (point["name"], point["recall"]) == ("exact", 1.0)
    assert report["truth"] == "the server's exact search"


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_a_files_truth_holds_for_every_metric(
    client, collection, measure, asked, truth, tmp_path, metric
):
    create(client, collection.name, BASE, metric, first_key=0)
    ids, distances = truth[metric]
    gt = write_ibin(tmp_path / "gt.ibin", ids, distances.astype("<f4").tobytes())
    report, _ = measure(
        collection.name, "--queries", asked, "--truth", gt, "--rounds", 1, "--concurrency", 2
    )
    assert {p["recall"] for p in report["points"]} == {1.0}


def test_ties_count(client, collection, measure, tmp_path):
    """Of eight equal rows the server finds the lowest keys and the truth names the highest."""
    distinct = clustered(200, 16, seed=5)
    copies = np.repeat(distinct, 8, axis=0)
    create(client, collection.name, copies, first_key=0)
    np.save(tmp_path / "q.npy", distinct[:40])
    ids = np.array([[8 * q + 7 - i for i in range(5)] for q in range(40)])
    gt = write_ibin(tmp_path / "gt.ibin", ids)
    args = (
        "--queries",
        tmp_path / "q.npy",
        "--truth",
        gt,
        "--k",
        5,
        "--rounds",
        1,
        "--concurrency",
        2,
    )
    report, _ = measure(collection.name, *args)
    assert {p["recall"] for p in report["points"]} == {1.0}
    found = Collection(client, collection.name).keys_of(vector=distinct[0].tolist(), k=5)
    assert found == [[0, 1, 2, 3, 4]]


def test_hdf5_brings_queries_and_truth(thin, measure, truth, tmp_path):
    ids, distances = truth["l2"]
    with h5py.File(tmp_path / "set.hdf5", "w") as f:
        f["test"], f["neighbors"], f["distances"] = ASKED, ids, distances
    args = ("--queries", tmp_path / "set.hdf5", "--first-key", FIRST_KEY, "--rounds", 1)
    report, _ = measure(thin.name, *args, "--ef", 20, "--concurrency", 2)
    wanted = independent_recall(thin, distances[:, K - 1], ef=20)
    assert report["points"][0]["recall"] == pytest.approx(wanted)


def test_rows_of_the_collection_ask_and_leave_themselves_out(thin, measure):
    args = ("--queries-max", 50, "--ef", 400, "--rounds", 1, "--concurrency", 1)
    report, _ = measure(thin.name, *args, "--k", 1)
    assert report["queries"] == {"count": 50, "source": "rows of the collection"}
    thorough = report["points"][0]["recall"]
    report, _ = measure(thin.name, *args[:2], "--ef", 2, *args[4:], "--k", 1)
    # asked for itself alone, a row finds itself with hardly any effort: recall would be 1
    assert 0 < report["points"][0]["recall"] < thorough <= 1


def test_string_keys_are_measured_too(client, collection, measure, tmp_path):
    collection.create(key="string", vector={"dim": 4, "metric": "l2"})
    some = clustered(300, 4, seed=9)
    collection.load([{"key": f"k{i}", "vector": v} for i, v in enumerate(some.tolist())])
    report, _ = measure(collection.name, "--queries-max", 20, "--rounds", 2, "--concurrency", 2)
    (point,) = report["points"]
    assert (point["recall"], point["requests"]) == (1.0, 40)


def test_figures_add_up_and_can_be_read(thin, measure, asked, tmp_path):
    png = tmp_path / "curves.png"
    args = ("--queries", asked, "--ef", "10,80", "--concurrency", "1,4", "--png", png)
    report, out = measure(thin.name, *args, "--seconds", 0.3)
    for p in report["points"]:
        assert 0 < p["p50_ms"] <= p["p95_ms"] <= p["p99_ms"]
        assert p["qps"] == pytest.approx(p["requests"] / 0.3)
        mean_ms = 1000 * p["concurrency"] / p["qps"]
        assert mean_ms >= p["p50_ms"] / 2  # half the requests took at least p50
        assert 0 < p["client_cpu_us"] < 1000 * mean_ms
    assert (report["rows"], report["dim"], report["k"]) == (N, DIM, K)
    assert report["index"]["kind"] == "hnsw" and report["server"]["name"]
    picture = matplotlib.image.imread(png)
    height, width, _ = picture.shape
    assert height > 400 and width > 1000
    assert len(np.unique(picture[:, :, 0])) > 20  # curves, not a blank sheet
    assert "client" in out and str(png) in out


def test_efforts_follow_the_index(thin, measure, asked):
    args = ("--queries", asked, "--queries-max", 2, "--rounds", 1, "--concurrency", 1)
    efforts = [p["effort"] for p in measure(thin.name, *args, "--k", 100)[0]["points"]]
    assert efforts == [{"ef": 128}, {"ef": 256}, {"ef": 512}]


def test_the_head_of_the_table_has_room_for_a_large_k(thin, measure, asked):
    args = ("--queries", asked, "--queries-max", 2, "--rounds", 1, "--concurrency", 1)
    report, out = measure(thin.name, *args, "--k", 1000)
    head = next(line for line in out.splitlines() if "connections" in line)
    assert "  recall@1000  " in head
    assert "~" not in head and len(report["points"]) == 1


def test_what_cannot_be_measured_is_a_sentence(client, thin, measure, asked, truth, tmp_path):
    gt = write_ibin(tmp_path / "gt.ibin", truth["l2"][0])
    other = write_ibin(tmp_path / "other.ibin", truth["l2"][0][::-1])
    few = write_ibin(tmp_path / "few.ibin", truth["l2"][0][:, :4])
    np.save(tmp_path / "narrow.npy", ASKED[:, :5])
    queries = ("--queries", asked)
    key = ("--first-key", FIRST_KEY)
    for words, args in {
        "holds no vector with key": (*queries, "--truth", gt, "--first-key", FIRST_KEY + N),
        "is no truth for": (*queries, "--truth", other, *key),
        "has 4 neighbours of 60 queries; 10 of 60": (*queries, "--truth", few, *key),
        "has queries of 5": ("--queries", tmp_path / "narrow.npy"),
        "--truth needs --queries": ("--truth", gt),
        "ef": (*queries, "--ef", 10**9),
    }.items():
        assert words in measure(thin.name, *args, status=1)
    assert "no collection nowhere" in measure("nowhere", status=1)
    plain = Collection(client, "recall_no_vectors").create(key="int64", features={"a": "int64"})
    assert "no vectors" in measure(plain.name, status=1)


def test_png_without_matplotlib_says_so_before_measuring(thin, measure, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = measure(thin.name, "--png", tmp_path / "a.png", status=1)
    assert "apt-get install python3-matplotlib" in out and "recall@" not in out


def test_an_ivf_index_is_asked_by_nprobe(client, collection, measure, asked, truth, tmp_path):
    c = create(client, collection.name, BASE, kind="ivf", nlist=64)
    c.wait_indexed()
    gt = write_ibin(tmp_path / "gt.ibin", truth["l2"][0])
    args = ("--queries", asked, "--truth", gt, "--first-key", FIRST_KEY, "--rounds", 1)
    report, _ = measure(c.name, *args, "--concurrency", 2)
    points = {p["effort"]["nprobe"]: p["recall"] for p in report["points"]}
    assert list(points) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert points[1] == pytest.approx(independent_recall(c, truth["l2"][1][:, K - 1], nprobe=1))
    assert points[1] < points[8] and points[64] == 1.0
