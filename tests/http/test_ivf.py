"""Inverted lists and what may replace what: they reach their recall, auto takes them when memory is
short, both kinds are mapped again after SIGKILL, and an index that is rebuilt with other settings
never gives a wrong answer meanwhile."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from client import Collection, expect, problem, read_hits
from data import clustered, faiss_exact, recall

N, DIM, K = 18000, 64, 10  # large enough a load to be a file at once
KINDS = ("hnsw", "ivf", "flat", "hnsw")


@pytest.fixture
def own_daemon(start_daemon):
    """One is enough: files are written by the same calls on both io backends."""
    return start_daemon()


@pytest.fixture(scope="module")
def vectors():
    base = clustered(N, DIM, seed=5, clusters=60)
    queries = clustered(60, DIM, seed=5, clusters=60) + np.float32(0.05)
    return base, queries


def create(client, name, kind, metric="l2", dim=DIM, **index):
    return Collection(client, name).create(
        key="int64",
        vector={"dim": dim, "metric": metric},
        index={"kind": kind, "m": 8, "ef_construction": 40, **index},
    )


def rebuild(c, status=202, **settings):
    return expect(c.client.post(f"{c.path}/index", settings), status)


def ann_files(daemon, name):
    files = (daemon.data / name / "index").glob("*.ann")
    return {f.name: (f.stat().st_ino, f.stat().st_mtime_ns, f.stat().st_size) for f in files}


def in_use(c):
    state = c.index()
    return state["state"], state["kind"], state["indexed_rows"]


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_ivf_reaches_recall_099_and_all_lists_are_exact(client, collection, vectors, metric):
    base, queries = vectors
    c = create(client, collection.name, "ivf", metric)
    c.load_vectors(base)
    seen = c.wait_indexed()
    progress = [s["progress"] for s in seen]
    assert all(0 <= p <= 1 for p in progress) and progress == sorted(progress)
    assert in_use(c) == ("ready", "ivf", N)
    truth, _ = faiss_exact(metric, base, queries, K)
    reached = {}
    for nprobe in (1, 4, 16, 64):
        found = c.keys_of(vectors=queries.tolist(), k=K, nprobe=nprobe)
        reached[nprobe] = recall(found, truth)
    assert reached[1] < reached[64], "the effort has an effect"
    assert max(reached.values()) >= 0.99, reached
    assert recall(c.keys_of(vectors=queries.tolist(), k=K), truth) >= 0.9
    exact = c.search(vectors=queries.tolist(), k=K, exact=True)["hits"]
    assert c.search(vectors=queries.tolist(), k=K, nprobe=65536)["hits"] == exact


def test_ivf_gives_k_rows_however_many_are_deleted(client, collection, vectors):
    base, queries = vectors
    c = create(client, collection.name, "ivf", nlist=300)
    c.load_vectors(base)
    c.wait_indexed()
    alive = [key for key in range(N) if key % 40 == 0]
    for part in np.array_split([k for k in range(N) if k % 40], 3):
        c.delete_rows(part.tolist())
    for nprobe in (1, 3):
        for k in (10, len(alive), 1000):
            found = c.keys_of(vectors=queries[:5].tolist(), k=k, nprobe=nprobe)
            assert all(len(row) == min(k, len(alive)) for row in found)
            assert all(set(row) <= set(alive) for row in found)


def test_both_kinds_are_mapped_again_after_sigkill(own_daemon, vectors):
    base, queries = vectors
    before = {}
    for kind in ("ivf", "hnsw"):
        c = create(own_daemon.client, kind, kind)
        c.load_vectors(base)
        c.wait_indexed()
        before[kind] = (c.index(), c.search(vectors=queries.tolist())["hits"])
    files = {kind: ann_files(own_daemon, kind) for kind in before}
    assert all(len(f) == 1 for f in files.values())
    own_daemon.restart()
    for kind in before:
        c = Collection(own_daemon.client, kind)
        assert (c.index(), c.search(vectors=queries.tolist())["hits"]) == before[kind]
        assert ann_files(own_daemon, kind) == files[kind]


def test_auto_picks_by_size_and_memory(start_daemon):
    wide = clustered(12000, 512, seed=8)  # 24 MB: a graph needs more than the budget
    daemon = start_daemon(args=["--memory", "48M"])
    for rows, kind in ((4095, "flat"), (4096, "hnsw"), (12000, "ivf")):
        c = create(daemon.client, f"auto{rows}", "auto", dim=512)
        c.load_vectors(wide[:rows])
        c.wait_indexed()
        assert in_use(c) == ("ready", kind, 0 if kind == "flat" else rows)

    c = create(daemon.client, "refused", "hnsw", dim=512)
    c.load_vectors(wide)
    state = c.index()
    assert (state["state"], state["kind"], state["indexed_rows"]) == ("ready", "flat", 0)
    for word in ("needs about", "the budget is 48 MiB", "--memory", "ivf"):
        assert word in state["error"]
    assert c.keys_of(vector=wide[77].tolist(), k=1) == [[77]]
    rebuild(c, kind="ivf")
    c.wait_indexed()
    assert in_use(c) == ("ready", "ivf", len(wide)) and "error" not in c.index()


def search_until(stop, c, queries, truth):
    """Searches without a pause; every answer must be good. Returns how often."""
    rounds = 0
    while not stop.is_set():
        exact = c.keys_of(vectors=queries.tolist(), k=K, exact=True)
        assert recall(exact, truth) == 1, "an exact search missed a row"
        near = c.keys_of(vectors=queries.tolist(), k=K)
        assert all(len(row) == K for row in near) and recall(near, truth) >= 0.85
        rounds += 1
    return rounds


def turn_around(daemon, c):
    for kind in KINDS[1:]:
        state = rebuild(c, kind=kind)
        assert state["state"] == ("ready" if kind == "flat" else "building")
        c.wait_indexed()
        assert in_use(c) == ("ready", kind, 0 if kind == "flat" else N)
        assert c.describe()["schema"]["index"]["kind"] == kind
        assert len(ann_files(daemon, c.name)) == (kind != "flat")
    old = ann_files(daemon, c.name)
    rebuild(c)  # the same once more
    c.wait_indexed()
    assert ann_files(daemon, c.name) != old


def test_rebuilds_while_searches_run_are_never_wrong(own_daemon, vectors):
    base, queries = vectors
    c = create(own_daemon.client, "turns", "hnsw")
    c.load_vectors(base)
    c.wait_indexed()
    version = c.state()
    truth, _ = faiss_exact("l2", base, queries, K)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        searching = pool.submit(search_until, stop, c, queries, truth)
        try:
            turn_around(own_daemon, c)
        finally:
            stop.set()
        assert searching.result() > 0
    assert c.state() == version, "settings make no version"


def test_many_changes_at_once_end_in_the_last_settings(own_daemon, vectors):
    base, queries = vectors
    c = create(own_daemon.client, "many", "flat")
    c.load_vectors(base)

    def change(i):
        for j in range(4):
            rebuild(c, kind=KINDS[(i + j) % 3], nlist=20 + i)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(4)))
    c.wait_indexed()
    c.patch(index={"kind": "ivf", "nlist": 77})
    c.wait_indexed()
    assert in_use(c) == ("ready", "ivf", N)
    exact = c.search(vectors=queries.tolist(), exact=True)["hits"]
    assert c.search(vectors=queries.tolist(), nprobe=77)["hits"] == exact


def test_restart_in_a_rebuild_finishes_it(own_daemon, vectors):
    base, queries = vectors
    c = create(own_daemon.client, "cut", "ivf")
    c.load_vectors(base)
    c.wait_indexed()
    assert rebuild(c, kind="hnsw", ef_construction=100)["state"] == "building"
    own_daemon.restart()
    c = c.on(own_daemon.client)
    truth, _ = faiss_exact("l2", base, queries, K)
    assert recall(c.keys_of(vectors=queries.tolist(), k=K), truth) >= 0.85
    c.wait_indexed()
    assert in_use(c) == ("ready", "hnsw", N)
    assert c.describe()["schema"]["index"]["ef_construction"] == 100


def test_drop_in_a_rebuild(own_daemon, vectors):
    c = create(own_daemon.client, "gone", "ivf")
    c.load_vectors(vectors[0])
    c.wait_indexed()
    rebuild(c, kind="hnsw", ef_construction=150)
    expect(own_daemon.client.delete(c.path), 204)
    problem(own_daemon.client.post(f"{c.path}/index", {}), 404, "gone")
    c = create(own_daemon.client, "gone", "ivf")
    c.load_vectors(vectors[0])
    c.wait_indexed()
    assert in_use(c) == ("ready", "ivf", N)


def test_index_settings_that_cannot_be(client, collection):
    c = create(client, collection.name, "flat")

    def post(body):
        return client.post(f"{c.path}/index", body)

    problem(post({"kind": "tree"}), 422, "auto, hnsw, ivf or flat", field="kind")
    problem(post({"nlist": 65537}), 422, "0 to 65536", field="nlist")
    problem(post({"nprobe": 3}), 400, "nprobe", "known: kind")
    assert c.describe()["schema"]["index"]["kind"] == "flat"
    expect(post({"nlist": 12}), 202)
    assert c.describe()["schema"]["index"]["nlist"] == 12


def test_efforts_and_radius_that_cannot_be(client, collection):
    c = create(client, collection.name, "flat")
    c.load_vectors(np.eye(DIM, dtype=np.float32))
    q = [1.0] + [0.0] * (DIM - 1)
    efforts = ({"ef": 5}, {"nprobe": 5}, {"exact": True}, {"recall": 0.9})
    for a, b in itertools.combinations(efforts, 2):
        refused = c.send_search(vector=q, **a, **b)
        problem(refused, 400, "two efforts", "one of recall, ef, nprobe, exact")
    for nprobe in (0, -1, 65537):
        problem(c.send_search(vector=q, nprobe=nprobe), 400, "1 to 65536 (nprobe_max)")
    problem(c.send_search(vector=q, radius=-0.5), 422, "never below 0", field="radius")
    problem(c.send_search(vector=q, radius="near"), 422, field="radius")
    bare = client.post(f"{c.path}/search", b'{"radius":NaN}')
    problem(bare, 400)
    octets = {"Content-Type": "application/octet-stream"}
    body = np.array(q, np.float32).tobytes()
    for text in ("nan", "inf", "1e999", "near", ""):
        problem(
            client.post(f"{c.path}/search?radius={text}", body, headers=octets),
            400,
            "not a finite number",
            field="radius",
        )
    problem(
        client.post(f"{c.path}/search?ef=3&nprobe=3", body, headers=octets), 400, "two efforts"
    )


def test_radius_is_inclusive_and_pads_octets(client, collection):
    c = create(client, collection.name, "flat")
    c.load_vectors(np.outer(np.arange(20), np.eye(DIM)[0]).astype(np.float32) / np.float32(3))
    zero = [0.0] * DIM
    hits = c.search(vector=zero, k=20)["hits"][0]
    for i in (0, 7, 19):
        inside = c.search(vector=zero, k=20, radius=hits[i]["distance"])["hits"][0]
        assert inside == hits[: i + 1]
    assert len(c.search(vector=zero, k=3, radius=100)["hits"][0]) == 3, "k is a cap"
    answer = client.post(
        f"{c.path}/search?k=20&radius={hits[7]['distance']}",
        np.zeros(DIM, np.float32).tobytes(),
        headers={
            "Content-Type": "application/octet-stream",
            "Accept": "application/octet-stream",
        },
    )
    keys, distances = read_hits(answer, 1, 20)
    assert keys[0] == list(range(8)) + [-1] * 12
    assert distances[0][8:] == [np.inf] * 12


@pytest.mark.parametrize("backend", ["uring", "posix"])
def test_a_collection_larger_than_memory_is_read_from_disk(start_daemon, backend):
    wide, queries = clustered(12000, 512, seed=8), clustered(20, 512, seed=8)  # 24 MB
    daemon = start_daemon(args=["--memory", "16M"], env={"LOADSTONE_IO": backend})
    c = create(daemon.client, "large", "auto", dim=512)
    c.load_vectors(wide)
    c.wait_indexed()
    for _ in range(2):
        state = c.index()
        assert (state["kind"], state["indexed_rows"]) == ("ivf", state["rows"])
        assert "its lists are read from disk" in daemon.log()
        truth = c.keys_of(vectors=queries.tolist(), k=K, exact=True)
        assert recall(c.keys_of(vectors=queries.tolist(), k=K, nprobe=40), truth) >= 0.95
        c.delete_rows([row[0] for row in truth])
        truth = c.keys_of(vectors=queries.tolist(), k=K, exact=True)
        assert recall(c.keys_of(vectors=queries.tolist(), k=K, nprobe=40), truth) >= 0.95
        daemon.restart()
        c = Collection(daemon.client, "large")
