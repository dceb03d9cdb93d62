"""What was acknowledged survives SIGKILL whole; what was not is wholly there or wholly absent.

The oracle is kept by the loaders: each batch carries its own number in every row, is written down
before it is sent and ticked off when it is acknowledged.
"""

import http.client
import os
import random
import struct
import subprocess
import threading
import time

import numpy as np
import pytest

from client import JSON, NDJSON, OCTETS, Collection, expect, problem
from daemon import BINARY, SANITIZED
from data import clustered

ROUNDS = int(os.environ.get("SOAK_ROUNDS", 10))
LOADERS = 4
DIM = 8


class Loader(threading.Thread):
    """Loads until the daemon dies: batches of new rows, and one row that each batch updates."""

    def __init__(self, collection, who, seed):
        super().__init__()
        self.collection, self.who, self.seed = collection, who, seed
        self.random = random.Random(seed)
        self.sent, self.acknowledged = {}, {}

    def run(self):
        number = 0
        while True:
            number += 1
            batch = f"{self.who}-{number}"
            size = self.random.choices([1, 5, 100, 2000, 20000], [60, 20, 12, 6, 2])[0]
            self.sent[batch] = size
            rows = [
                {"key": f"{batch}-{i}", "vector": self.vector(number, i), "batch": batch}
                for i in range(size)
            ]
            rows.append({"key": f"last-{self.who}", "batch": batch})
            try:
                answer = self.collection.send_rows(rows, self.random.choice([JSON, NDJSON]))
            except (OSError, http.client.HTTPException):
                return
            self.acknowledged[batch] = expect(answer)["version"]

    def vector(self, number, i):
        return [float(number), float(i), float(self.seed)] + [1.0] * (DIM - 3)


def batch_found(c, batch, size):
    """True when the whole batch is there, False when none of it is."""
    found = []
    for first in range(0, size, 5000):
        keys = [f"{batch}-{i}" for i in range(first, min(first + 5000, size))]
        got = c.fetch(keys, features=["batch"])
        found += got["found"]
        assert all(
            b == (batch if f else None)
            for f, b in zip(got["found"], got["features"]["batch"], strict=True)
        )
    assert len(set(found)) == 1, f"{sum(found)} of {size} rows of {batch} are there"
    return found[0]


def check_round(c, loaders):
    """Compares the restarted daemon with the loaders' books; returns the batches that are in."""
    landed = 0
    for loader in loaders:
        pending = set(loader.sent) - set(loader.acknowledged)
        assert len(pending) <= 1
        there = {b for b, size in loader.sent.items() if batch_found(c, b, size)}
        lost = set(loader.acknowledged) - there
        assert not lost, f"acknowledged and lost: {sorted(lost)}"
        landed += len(there)
        newest = max((b for b in there), key=lambda b: int(b.rsplit("-", 1)[1]), default=None)
        last = c.fetch([f"last-{loader.who}"], features=["batch"])["features"]["batch"]
        assert last == [newest], "the row that every batch updates tells the newest batch"
    return landed


def test_kill_loop_loses_nothing_that_was_acknowledged(own_daemon):
    c = Collection(own_daemon.client, "c").create(
        key="string", vector={"dim": DIM, "metric": "l2"}, features={"batch": "string"}
    )
    chance = random.Random(4711)
    commits = 0
    for n in range(ROUNDS):
        loaders = [Loader(c, f"r{n}w{w}", n * 100 + w) for w in range(LOADERS)]
        for loader in loaders:
            loader.start()
        time.sleep(chance.uniform(0.05, 0.8))
        own_daemon.kill()
        for loader in loaders:
            loader.join()
        checked = subprocess.run([str(BINARY), "check", str(own_daemon.data)], capture_output=True)
        assert checked.returncode == 0, checked.stdout.decode()
        own_daemon.start()
        c = c.on(own_daemon.client)
        commits += check_round(c, loaders)
        assert c.describe()["version"] == commits, "one version a commit, none twice, none lost"
        versions = [v for loader in loaders for v in loader.acknowledged.values()]
        assert len(set(versions)) == len(versions)
        for loader in loaders:
            for batch in list(loader.acknowledged)[-2:]:
                vector = loader.vector(int(batch.rsplit("-", 1)[1]), 0)
                hits = c.search(vector=vector, k=LOADERS * 2, exact=True)["hits"][0]
                assert f"{batch}-0" in [h["key"] for h in hits if h["distance"] == 0]
    print(f"{ROUNDS} rounds, {commits} commits acknowledged, 0 lost")
    assert commits > ROUNDS * (2 if SANITIZED else 20), "the loaders were too slow for the test to mean much"


def test_sigkill_right_after_each_kind_of_acknowledgement(own_daemon):
    """Bulk, small, update, delete, drop, create: each is there after a kill in the next instant."""
    base = clustered(50000, 32, seed=77)
    client = own_daemon.client
    c = Collection(client, "c").create(
        key="int64", vector={"dim": 32, "metric": "l2"}, features={"s": "string"}
    )

    def reborn():
        own_daemon.restart()
        return c.on(own_daemon.client)

    c.load_vectors(base)
    c = reborn()
    assert c.state() == (1, 50000)
    assert c.keys_of(vector=base[41234].tolist(), k=1) == [[41234]]

    c.load([{"key": 5, "s": "five"}, {"key": -1, "vector": [9.0] * 32}])
    c = reborn()
    assert c.state() == (2, 50001)
    row = c.row(5, with_vectors="true")
    assert row["features"] == {"s": "five"}
    assert np.array_equal(np.float32(row["vector"]), base[5])
    assert c.keys_of(vector=[9.0] * 32, k=1) == [[-1]]

    c.delete_rows([5, 7, 41234])
    c = reborn()
    assert c.state() == (3, 49998)
    assert c.fetch([5, 6, 7, 41234])["found"] == [False, True, False, False]
    assert c.keys_of(vector=base[41234].tolist(), k=1) != [[41234]]

    c.load_vectors(base[:20000] * 2, first_key=10000)
    c = reborn()
    assert c.state() == (4, 49998)
    assert c.fetch([5, 7, 41234])["found"] == [False] * 3
    assert c.keys_of(vector=(base[15] * 2).tolist(), k=1) == [[10015]]

    expect(own_daemon.client.delete(c.path), 204)
    own_daemon.restart()
    problem(own_daemon.client.get(c.path), 404)
    d = Collection(own_daemon.client, "d").create(key="int64", features={"n": "int64"})
    own_daemon.restart()
    d = d.on(own_daemon.client)
    assert d.state() == (0, 0)


def test_many_restarts_with_tail_and_segments_agree_with_the_books(own_daemon):
    """Small and large commits, deletes and restarts interleaved; every row compared at the end."""
    c = Collection(own_daemon.client, "c").create(
        key="int64", vector={"dim": 16, "metric": "l2"}, features={"n": "int64", "s": "string"}
    )
    rng = np.random.default_rng(99)
    books = {}
    for step in range(12):
        if step % 4 == 1:
            first = int(rng.integers(0, 20000))
            bulk = rng.standard_normal((30000, 16)).astype(np.float32)
            c.load_vectors(bulk, first_key=first)
            for i, v in enumerate(bulk):
                n, s, _ = books.get(first + i, (None, None, None))
                books[first + i] = (n, s, v)
        for _ in range(5):
            keys = [int(k) for k in set(rng.integers(0, 60000, 50))]
            c.load([{"key": k, "n": step} for k in keys])
            for k in keys:
                _, s, v = books.get(k, (None, None, None))
                books[k] = (step, s, v)
        keys = [int(k) for k in set(rng.integers(0, 60000, 300))]
        gone = [k for k in keys if k in books]
        assert c.delete_rows(keys)["deleted"] == len(gone)
        for k in gone:
            del books[k]
        c.load([{"key": step, "s": f"step {step}"}])
        n, _, v = books.get(step, (None, None, None))
        books[step] = (n, f"step {step}", v)
        own_daemon.restart() if step % 2 else (own_daemon.stop(), own_daemon.start())
        c = c.on(own_daemon.client)
        assert c.describe()["rows"] == len(books)
    keys = list(range(60000))
    for first in range(0, len(keys), 10000):
        part = keys[first : first + 10000]
        got = c.fetch(part, with_vectors=True)
        for i, k in enumerate(part):
            assert got["found"][i] == (k in books), k
            n, s, v = books.get(k, (None, None, None))
            assert (got["features"]["n"][i], got["features"]["s"][i]) == (n, s), k
            w = got["vectors"][i]
            assert (w is None) == (v is None) and (w is None or np.array_equal(np.float32(w), v)), k


def newest_log(daemon, name):
    return max((daemon.data / name / "log").iterdir(), key=lambda p: p.stat().st_mtime_ns)


def end_of_log(data):
    """Where the groups end and the blocks allocated ahead begin: wal_format.h."""
    at = 4096
    while data[at : at + 8] == b"STNGROUP":
        (payload,) = struct.unpack_from("<I", data, at + 32)
        at += (48 + payload + 63) // 64 * 64
    return at


@pytest.fixture
def logged(start_daemon):
    """A daemon that died with twenty small commits in the log of `c`, and a bystander."""
    daemon = start_daemon()
    c = Collection(daemon.client, "c").create(key="string", features={"n": "int64"})
    for i in range(20):
        c.load([{"key": f"key-number-{i:02}", "n": i}])
    Collection(daemon.client, "other").create(key="string", features={"n": "int64"}).load(
        [{"key": "a", "n": 1}]
    )
    daemon.kill()
    return daemon


@pytest.mark.parametrize("garbage", [b"\xff" * 100, b"\x00" * 40 + b"x", bytes(range(256)) * 300])
def test_torn_end_of_the_log_is_cut_off_and_nothing_else(logged, garbage):
    log = newest_log(logged, "c")
    data = log.read_bytes()
    end = end_of_log(data)
    log.write_bytes(data[:end] + garbage + data[end + len(garbage) :])
    for _ in range(2):
        logged.start()
        c = Collection(logged.client, "c")
        assert c.state() == (20, 20)
        assert c.fetch([f"key-number-{i:02}" for i in range(20)])["features"]["n"] == list(
            range(20)
        )
        logged.kill()
    logged.start()
    assert c.on(logged.client).load([{"key": "next", "n": 20}])["version"] == 21
    logged.restart()
    assert c.on(logged.client).state() == (21, 21)


def test_truncated_log_loses_only_what_was_cut(logged):
    log = newest_log(logged, "c")
    data = log.read_bytes()
    log.write_bytes(data[: data.index(b"key-number-19") + 4])
    logged.start()
    assert Collection(logged.client, "c").state() == (19, 19)


def test_damage_amid_the_log_quarantines_and_is_told(logged):
    """Valid commits behind a bad one: never skipped, never cut off, and the others open."""
    log = newest_log(logged, "c")
    data = bytearray(log.read_bytes())
    data[data.index(b"key-number-05")] ^= 0x01
    log.write_bytes(data)
    logged.start()
    client = logged.client
    problem(client.get("/v1/collections/c"), 503, "log")
    problem(Collection(client, "c").send_rows([{"key": "a"}]), 503)
    assert Collection(client, "other").state() == (1, 1)
    expect(client.get("/readyz"))
    assert log.read_bytes() == data, "the evidence is left alone"


def test_damaged_collection_does_not_keep_the_others_from_opening(start_daemon):
    daemon = start_daemon()
    good = Collection(daemon.client, "good").create(key="int64", features={"n": "int64"})
    bad = Collection(daemon.client, "bad").create(key="int64", vector={"dim": 32, "metric": "l2"})
    good.load([{"key": 1, "n": 1}])
    bad.load_vectors(clustered(50000, 32))
    daemon.kill()
    (segment,) = (daemon.data / "bad" / "segments").glob("*.seg")
    with open(segment, "r+b") as f:
        f.truncate(segment.stat().st_size // 2)
    daemon.start()
    good, bad = good.on(daemon.client), bad.on(daemon.client)
    assert good.row(1)["features"] == {"n": 1}
    problem(bad.send_search(vector=[0.0] * 32), 503, "bad")
    problem(bad.send_rows([{"key": 1}]), 503)
    listed = {c["name"]: c for c in expect(daemon.client.get("/v1/collections"))["collections"]}
    assert listed["bad"]["state"] == "quarantined" and listed["bad"]["detail"]
    assert segment.name in listed["bad"]["detail"] or "segment" in listed["bad"]["detail"]
    assert listed["good"]["rows"] == 1


@pytest.mark.parametrize("chunk", [1000, 100000])
def test_kill_in_the_middle_of_an_upload_leaves_nothing(own_daemon, chunk):
    c = Collection(own_daemon.client, "c").create(key="int64", vector={"dim": 32, "metric": "l2"})
    c.load_vectors(np.ones((10, 32), np.float32))
    reached = threading.Event()
    let_go = threading.Event()

    def body():
        for i in range(8):
            yield np.full((chunk, 32), i + 1, np.float32).tobytes()
        reached.set()
        let_go.wait(20)

    def upload():
        try:
            c.send_rows(body(), OCTETS, first_key=100)
        except (OSError, http.client.HTTPException):
            pass

    sender = threading.Thread(target=upload)
    sender.start()
    assert reached.wait(60)
    own_daemon.kill()
    let_go.set()
    sender.join()
    own_daemon.start()
    c = c.on(own_daemon.client)
    assert c.state() == (1, 10)
    assert list((own_daemon.data / "c" / "staging").glob("*")) == []
    assert len(list((own_daemon.data / "c" / "segments").glob("*"))) <= 1
