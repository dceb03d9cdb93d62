"""Everything at once against one daemon, for long: `make soak` under ASan, `make tsan` under TSan.

Loads of each kind, sessions and refreshes, searches, fetches, pages, deletes, index builds, altered
schemas, drops and creations, reads of old versions, exports, diffs, restores, tags, compaction,
vacuum and purge run side by side for SOAK_SECONDS, three times over. Whatever answers must be one of the
answers that are right at that moment; the daemon's log must hold no finding of a sanitizer; and the
second and third time may not need more memory than the first.

Not named test_*: it runs only where it is named.
"""

import http.client
import os
import random
import threading
import time

import numpy as np
import pytest

from client import NDJSON, OCTETS, Client, Collection, expect, ndjson
from data import clustered

SECONDS = float(os.environ.get("SOAK_SECONDS", 20))
TURNS = 3
DIM = 16
KEYS = 20000
GROWTH = 1.25
SLACK = 64 * 2**20


class Actor(threading.Thread):
    """Repeats one kind of request until time is up; anything but the answers allowed is kept."""

    def __init__(self, daemon, until, seed, act, allowed):
        super().__init__()
        self.client = Client(daemon.client.host, daemon.client.port)
        self.until, self.act, self.allowed = until, act, allowed
        self.random = random.Random(seed)
        self.answers, self.wrong = 0, []

    def run(self):
        while time.monotonic() < self.until and not self.wrong:
            try:
                answer = self.act(self.client, self.random)
            except (OSError, http.client.HTTPException) as e:
                self.wrong.append(repr(e))
                return
            self.answers += 1
            if answer.status not in self.allowed:
                self.wrong.append(f"{self.act.__name__}: {answer!r}")
        self.client.close()


def rows(rng, n):
    return [
        {
            "key": rng.randrange(KEYS),
            "vector": [rng.random() for _ in range(DIM)] if rng.random() < 0.9 else None,
            "n": rng.randrange(100),
            "text": "x" * rng.randrange(40),
        }
        for _ in range(n)
    ]


def vector(rng):
    return [rng.random() + 0.01 for _ in range(DIM)]


def load_small(client, rng):
    return Collection(client, "mixed").send_rows(rows(rng, rng.randrange(1, 30)), duplicates="last")


def load_stream(client, rng):
    body = ndjson(rows(rng, 3000))
    return Collection(client, "mixed").send_rows(body, NDJSON, duplicates="last")


def load_vectors(client, rng):
    vectors = clustered(8000, DIM, seed=rng.randrange(1000))
    return Collection(client, "vectors").send_rows(vectors.tobytes(), OCTETS, first_key=0)


def load_refused(client, rng):
    return Collection(client, "mixed").send_rows([{"key": 1, "vector": [1.0]}])


def delete(client, rng):
    return client.post(
        "/v1/collections/mixed/rows/delete", {"keys": [rng.randrange(KEYS) for _ in range(20)]}
    )


def search(client, rng):
    c = Collection(client, rng.choice(["mixed", "vectors"]))
    effort = rng.choice([{}, {"exact": True}, {"ef": 50}, {"nprobe": 2}])
    return c.send_search(vectors=[vector(rng) for _ in range(4)], k=10, **effort)


def search_by_key(client, rng):
    return Collection(client, "mixed").send_search(key=rng.randrange(KEYS), features=["n", "text"])


def fetch(client, rng):
    keys = [rng.randrange(KEYS) for _ in range(50)]
    return client.post("/v1/collections/mixed/features", {"keys": keys, "with_vectors": True})


def page(client, rng):
    return client.get(f"/v1/collections/mixed/rows?limit={rng.randrange(1, 300)}")


def look(client, rng):
    return client.get(rng.choice(["/v1/collections", "/metrics", "/readyz", "/v1/limits"]))


def index_state(client, rng):
    return client.get(f"/v1/collections/{rng.choice(['mixed', 'vectors'])}/index")


def rebuild(client, rng):
    time.sleep(0.5)
    body = rng.choice([{"kind": "hnsw", "m": 8}, {"kind": "ivf", "nlist": 20}, {}])
    return client.post("/v1/collections/vectors/index", body)


def alter(client, rng):
    time.sleep(0.3)
    return client.patch("/v1/collections/mixed", {"retention": {"versions": rng.randrange(1, 99)}})


def come_and_go(client, rng):
    c = Collection(client, "passing")
    path = "/v1/collections/passing"
    made = client.put(path, {"key": "int64", "vector": {"dim": DIM, "metric": "l2"}})
    if made.status not in (200, 201):
        return made
    c.send_rows([{"key": i, "vector": vector(rng)} for i in range(50)])
    c.send_search(vector=vector(rng), k=3)
    return client.delete(path)


def session(client, rng):
    """A load in parts; a full refresh of a collection that is searched meanwhile, or an upsert."""
    c = Collection(client, rng.choice(["mixed", "vectors"]))
    mode = "upsert" if c.name == "mixed" else "full_refresh"
    opened = client.post(f"{c.path}/loads", {"mode": mode, "duplicates": "last"})
    if opened.status != 201:
        return opened
    load = f"{c.path}/loads/{opened.json()['load']}"
    for part in range(3):
        if mode == "upsert":
            body, kind, query = ndjson(rows(rng, 200)), NDJSON, ""
        else:
            vectors = clustered(1500, DIM, seed=rng.randrange(1000))
            body, kind, query = vectors.tobytes(), OCTETS, f"?first_key={part * 1500}"
        put = client.put(f"{load}/parts/{part}{query}", body, headers={"Content-Type": kind})
        if put.status != 201:
            return put
    return client.post(f"{load}/commit", {})


def some_version(client, rng):
    described = client.get("/v1/collections/mixed").json()
    return rng.randrange(max(1, described["version"] - 30), described["version"] + 2)


def read_old(client, rng):
    version = some_version(client, rng)
    if rng.random() < 0.5:
        keys = [rng.randrange(KEYS) for _ in range(20)]
        return client.post("/v1/collections/mixed/features", {"keys": keys, "version": version})
    return Collection(client, "mixed").send_search(
        vector=vector(rng), k=5, version=version, filter="n < 50 or text is null"
    )


def export(client, rng):
    kind = rng.choice(["ndjson", "csv", "npy"])
    version = some_version(client, rng)
    return client.get(f"/v1/collections/mixed/versions/{version}/export.{kind}")


def diff(client, rng):
    a, b = some_version(client, rng), some_version(client, rng)
    return client.get(f"/v1/collections/mixed/diff?from={a}&to={b}")


def delete_where(client, rng):
    body = {"filter": f"n = {rng.randrange(100)} and text like 'xx%'"}
    return client.post("/v1/collections/mixed/rows/delete", body)


def tag(client, rng):
    path = f"/v1/collections/mixed/tags/t{rng.randrange(5)}"
    if rng.random() < 0.3:
        return client.delete(path)
    return client.put(path, {"version": some_version(client, rng)})


def restore(client, rng):
    time.sleep(0.3)
    version = some_version(client, rng)
    return client.post("/v1/collections/mixed/restore", {"version": version})


def upkeep(client, rng):
    time.sleep(0.2)
    name = rng.choice(["mixed", "vectors"])
    if rng.random() < 0.5:
        return client.post(f"/v1/collections/{name}/compact")
    return client.post(f"/v1/collections/{name}/vacuum", {"versions": rng.randrange(1, 20)})


def purge(client, rng):
    time.sleep(0.5)
    return client.post("/v1/collections/mixed/purge", {"keys": [rng.randrange(KEYS)]})


ACTORS = [
    (load_small, {200, 429}),
    (load_small, {200, 429}),
    (load_stream, {200, 429}),
    (load_vectors, {200, 429}),
    (load_refused, {422}),
    (delete, {200, 429}),
    (search, {200}),
    (search, {200}),
    (search_by_key, {200, 404, 422}),
    (fetch, {200}),
    (page, {200}),
    (look, {200}),
    (index_state, {200}),
    (rebuild, {202, 429}),
    (alter, {200, 409}),
    (come_and_go, {204}),
    (session, {200, 409, 429}),
    (read_old, {200, 404, 410}),
    (export, {200, 404, 410}),
    (diff, {200, 404, 410}),
    (delete_where, {200, 429}),
    (tag, {200, 201, 204, 404, 410}),
    (restore, {200, 404, 409, 410, 429}),
    (upkeep, {200, 409}),
    (purge, {200, 409}),
]


def one_turn(daemon):
    mixed = Collection(daemon.client, "mixed").create(
        key="int64",
        vector={"dim": DIM, "metric": "cosine"},
        features={"n": "int32", "text": "string"},
        index={"kind": "hnsw", "m": 8, "ef_construction": 40},
    )
    vectors = Collection(daemon.client, "vectors").create(
        key="int64", vector={"dim": DIM, "metric": "l2"}, index={"kind": "ivf"}
    )
    vectors.load_vectors(np.ones((10, DIM), np.float32))
    until = time.monotonic() + SECONDS
    actors = [Actor(daemon, until, i, act, ok) for i, (act, ok) in enumerate(ACTORS)]
    for actor in actors:
        actor.start()
    for actor in actors:
        actor.join()
    assert daemon.alive(), daemon.log_tail()
    wrong = [w for actor in actors for w in actor.wrong]
    assert not wrong, wrong[:5]
    idle = [actor.act.__name__ for actor in actors if not actor.answers]
    assert not idle, f"never answered: {idle}"
    for c in (mixed, vectors):
        expect(daemon.client.delete(f"/v1/collections/{c.name}"), 204)
    return sum(actor.answers for actor in actors)


@pytest.mark.timeout(0)
def test_everything_at_once_stays_right_and_flat(start_daemon):
    daemon = start_daemon(args=["--build-threads", "1"])
    first = None
    for turn in range(TURNS):
        answers = one_turn(daemon)
        time.sleep(1)  # builds under way end, readers leave
        memory = daemon.memory()
        print(f"turn {turn + 1}: {answers} answers, {memory >> 20} MiB")
        first = first or memory
        assert memory < first * GROWTH + SLACK, "memory grows from turn to turn"
    assert daemon.stop() == 0
