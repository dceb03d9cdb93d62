"""wait=indexed: a version whose index is built before anyone sees it. Readers stay on the version
before until then; no answer is of both, none is of a version that is still scanned."""

import contextlib
import http.client
import threading

import pytest

from client import OCTETS, Collection, expect, problem
from data import clustered, faiss_exact, recall

N, DIM, K, EF = 12000, 32, 10, 128
WAIT_S = 110  # builds give way to whatever else the machine does
SECOND = 1_000_000  # keys of the second version begin here


@pytest.fixture(scope="module")
def worlds():
    """Two versions of everything, queries, and the nearest keys in each."""
    first, second = (clustered(N, DIM, seed=s, clusters=100) for s in (1, 2))
    queries = clustered(50, DIM, seed=3, clusters=100)
    truth = {
        version: faiss_exact("l2", base, queries, K)[0] + first_key
        for version, base, first_key in ((1, first, 0), (2, second, SECOND))
    }
    return first, second, queries, truth


def create(c, kind="hnsw", **more):
    index = {"kind": kind, "m": 8, "ef_construction": 80}
    return c.create(key="int64", vector={"dim": DIM, "metric": "l2"}, index=index, **more)


def open_load(c, **options):
    return f"{c.path}/loads/{expect(c.client.post(f'{c.path}/loads', options), 201)['load']}"


def put_parts(c, load, vectors, first_key, parts=4):
    for i in range(parts):
        lo, hi = N * i // parts, N * (i + 1) // parts
        path = f"{load}/parts/{i}?first_key={first_key + lo}"
        body = vectors[lo:hi].tobytes()
        expect(c.client.put(path, body, headers={"Content-Type": OCTETS}), 201)


def commit(c, load, **options):
    while (answer := c.client.post(f"{load}/commit", options)).status == 202:
        pass
    return expect(answer)


def ready(c, rows=N):
    state = c.index()
    return (state["state"], state["rows"], state["indexed_rows"]) == ("ready", rows, rows)


class Reader(threading.Thread):
    """Asks without a pause until told to stop; keeps what it was answered."""

    def __init__(self, c, queries):
        super().__init__()
        self.c, self.queries = Collection(c.client, c.name), queries.tolist()
        self.stopping, self.answers, self.states, self.error = threading.Event(), [], {}, None

    def run(self):
        try:
            i = 0
            while not self.stopping.is_set():
                i = (i + 1) % len(self.queries)
                answer = self.c.search(vector=self.queries[i], k=K, ef=EF)
                keys = [hit["key"] for hit in answer["hits"][0]]
                self.answers.append((answer["version"], i, keys))
                if answer["version"] not in self.states:
                    self.states[answer["version"]] = self.c.index()
        except BaseException as error:
            self.error = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join()
        if self.error:
            raise self.error


def test_a_full_refresh_switches_with_its_index_ready(collection, worlds):
    first, second, queries, truth = worlds
    c = create(collection)
    c.load_vectors(first, mode="append", wait="indexed", wait_s=WAIT_S)
    assert ready(c)
    with Reader(c, queries) as one, Reader(c, queries[::-1]) as two:
        load = open_load(c, mode="full_refresh")
        put_parts(c, load, second, SECOND)
        counts = commit(c, load)
        assert ready(c)
        assert recall(c.keys_of(vectors=queries.tolist(), k=K, ef=EF), truth[2]) > 0.9
    assert (counts["version"], counts["rows"], counts["inserted"], counts["deleted"]) == (2, N, N, N)
    for reader, at in ((one, range(50)), (two, range(49, -1, -1))):
        assert [v for v, _, _ in reader.answers] == sorted(v for v, _, _ in reader.answers)
        found, wanted = {1: [], 2: []}, {1: [], 2: []}
        for version, i, keys in reader.answers:
            assert all((key >= SECOND) == (version == 2) for key in keys), (version, keys)
            assert len(keys) == K
            found[version].append(keys)
            wanted[version].append(truth[version][at[i]])
        assert found[1], "no query ran during the build"
        for version in found:
            if len(found[version]) >= len(queries):  # a single one may miss a neighbour or two
                assert recall(found[version], wanted[version]) > 0.9
        for state in reader.states.values():
            assert state["indexed_rows"] == state["rows"] == N, state


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_rows_sent_at_once_wait_for_their_index(collection, worlds, mode):
    first, second, queries, truth = worlds
    c = create(collection)
    counts = c.load_vectors(first, mode=mode, wait="indexed", wait_s=WAIT_S)
    assert counts["inserted"] == N and ready(c)
    assert recall(c.keys_of(vectors=queries.tolist(), k=K, ef=EF), truth[1]) > 0.9
    c.load_vectors(second, first_key=SECOND, mode=mode, wait="indexed", wait_s=WAIT_S)
    assert ready(c, 2 * N)


def test_durable_full_refresh_is_visible_at_once(collection, worlds):
    first, second, queries, truth = worlds
    c = create(collection)
    c.load_vectors(first, mode="append")
    load = open_load(c, mode="full_refresh")
    put_parts(c, load, second, SECOND)
    assert commit(c, load, wait="durable")["version"] == 2
    assert recall(c.keys_of(vectors=queries.tolist(), k=K, ef=EF), truth[2]) > 0.9
    c.wait_indexed()
    assert ready(c)


def test_what_cannot_be_indexed_is_refused_and_stays_open(start_daemon, worlds):
    daemon = start_daemon(args=["--memory", "16M"])
    c = create(Collection(daemon.client, "c"))
    load = open_load(c, mode="full_refresh")
    put_parts(c, load, worlds[0], 0)
    answer = c.client.post(f"{load}/commit", {})
    problem(answer, 422, "memory", "ivf")
    assert c.describe()["version"] == 0
    assert commit(c, load, wait="durable")["rows"] == N


def test_killed_while_it_builds_the_load_is_committed_again(start_daemon, worlds):
    first, second, queries, truth = worlds
    daemon = start_daemon()
    c = create(Collection(daemon.client, "c"))
    c.load_vectors(first, mode="append", wait="indexed", wait_s=WAIT_S)
    load = open_load(c, mode="full_refresh")
    put_parts(c, load, second, SECOND)

    def commit_until_killed():
        with contextlib.suppress(OSError, http.client.HTTPException):
            Collection(daemon.client, "c").client.post(f"{load}/commit", {})

    committing = threading.Thread(target=commit_until_killed)
    committing.start()
    while not daemon.children():
        assert c.describe()["version"] == 1
    daemon.kill()
    committing.join()
    daemon.start()
    c = Collection(daemon.client, "c")
    assert c.describe()["version"] == 1 and ready(c)
    assert commit(c, load)["version"] == 2
    assert ready(c)
    assert recall(c.keys_of(vectors=queries.tolist(), k=K, ef=EF), truth[2]) > 0.9
    files = {f.stem for f in (daemon.data / "c" / "segments").iterdir()}
    assert {f.name[:16] for f in (daemon.data / "c" / "index").iterdir()} <= files
