"""GET rows and POST count: every live row once, in the order of commits, whatever lies where."""

import threading

import numpy as np
import pytest

from client import NDJSON, Client, Collection, expect, ndjson, problem

FEATURES = {"n": "int64", "s": "string"}


def name_of(key_type, i):
    return i if key_type == "int64" else f"k{i:06}"


class Model:
    """What pages should hold: the newest row of each key, in the order of arrival."""

    def __init__(self, collection, key_type):
        self.c, self.key_type, self.rows = collection, key_type, {}

    def load(self, numbers, tag, fmt=NDJSON):
        rows = [{"key": name_of(self.key_type, i), "n": i, "s": f"{tag}{i}"} for i in numbers]
        self.c.load(ndjson(rows) if fmt == NDJSON else rows, fmt)
        for row in rows:
            self.rows.pop(row["key"], None)
            self.rows[row["key"]] = row

    def delete(self, numbers):
        keys = [name_of(self.key_type, i) for i in numbers]
        self.c.delete_rows(keys)
        for key in keys:
            self.rows.pop(key, None)

    def check(self, limit):
        assert self.c.all_rows(limit=limit) == list(self.rows.values())
        assert self.c.count()["count"] == len(self.rows)


@pytest.mark.parametrize("key_type", ["int64", "string"])
def test_every_live_row_once_in_order(own_daemon, key_type):
    c = Collection(own_daemon.client, "c").create(
        key=key_type, vector={"dim": 2}, features=FEATURES
    )
    m = Model(c, key_type)
    m.check(10)
    m.load(range(500), "a")
    m.load(range(400, 25_000), "b")  # a file of its own
    m.check(10_000)
    m.load(range(100, 600, 7), "c")
    m.delete(range(0, 25_000, 3))
    m.delete(range(5000, 9000))
    m.load([20_000, 3, 0], "d")
    m.check(9999)
    assert own_daemon.stop() == 0  # the tail becomes a file
    own_daemon.start()
    m.c = c.on(own_daemon.client)
    m.load(range(24_990, 25_010), "e")
    m.check(4096)
    own_daemon.restart()
    m.c = c.on(own_daemon.client)
    m.check(10_000)
    m.delete(range(30_000))
    m.check(100)
    m.load([5], "f")
    m.check(1)


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 100])
def test_pages_of_every_size(collection, limit):
    c = collection.create(key="int64", features=FEATURES)
    m = Model(c, "int64")
    m.load([5, 3, 1], "a")
    m.load([3], "b")
    m.load([9, 8, 1], "c")
    m.delete([8])
    m.load([7, 6], "d")
    pages = c.pages(limit=limit)
    assert [r for p in pages for r in p["rows"]] == list(m.rows.values())
    assert len(pages) == -(-6 // limit)
    assert {p["version"] for p in pages} == {5}
    assert all(len(p["rows"]) == limit for p in pages[:-1])


def test_what_a_row_shows(collection):
    c = collection.create(key="string", vector={"dim": 2}, features=FEATURES)
    c.load([{"key": "ä\n", "vector": [1, 0.5], "n": 2**62}, {"key": "b", "s": "x"}])
    whole = [{"key": "ä\n", "n": 2**62, "s": None}, {"key": "b", "n": None, "s": "x"}]
    assert c.page() == {"version": 1, "rows": whole, "next": None}
    assert c.all_rows(features="s") == [{"key": "ä\n", "s": None}, {"key": "b", "s": "x"}]
    assert c.all_rows(features="") == [{"key": "ä\n"}, {"key": "b"}]
    got = c.all_rows(features="n", with_vectors="true")
    assert got == [
        {"key": "ä\n", "vector": [1, 0.5], "n": 2**62},
        {"key": "b", "vector": None, "n": None},
    ]
    assert c.send_page().headers["Loadstone-Version"] == "1"


def test_rows_of_a_page_can_be_loaded_again(collection, client):
    c = collection.create(key="int64", vector={"dim": 3}, features=FEATURES)
    v = np.random.default_rng(1).standard_normal((50, 3)).astype(np.float32)
    c.load_vectors(v)
    c.load([{"key": i, "n": i, "s": f"s{i}"} for i in range(0, 60, 3)])
    other = Collection(client, f"{c.name}_copy").create(
        key="int64", vector={"dim": 3}, features=FEATURES
    )
    for page in c.pages(limit=7, with_vectors="true"):
        other.load(page["rows"])
    assert other.all_rows(with_vectors="true") == c.all_rows(with_vectors="true")


def test_empty_collection(collection):
    c = collection.create(key="int64")
    assert c.page() == {"version": 0, "rows": [], "next": None}
    assert c.page(after="12.7") == {"version": 0, "rows": [], "next": None}
    assert c.count() == {"version": 0, "count": 0}


def test_default_and_greatest_limit(collection):
    c = collection.create(key="int64", vector={"dim": 2})
    c.load_vectors(np.ones((10_100, 2), np.float32))
    most = expect(c.client.get("/v1/limits"))["rows_page_max"]
    assert (len(c.page()["rows"]), most) == (100, 10_000)
    assert len(c.page(limit=most)["rows"]) == most
    problem(c.send_page(limit=most + 1), 400, "rows_page_max", most, field="limit")
    for bad in 0, -1, "ten", "1.5", "", 2**64:
        problem(c.send_page(limit=bad), 400, f"from 1 to {most} (rows_page_max)", field="limit")


def test_cursor_may_lie_anywhere(collection):
    c = collection.create(key="int64", features=FEATURES)
    for first in 0, 10, 20:
        c.load([{"key": first + i} for i in range(5)])
    c.delete_rows([10, 14])

    def keys(after):
        return [r["key"] for r in c.all_rows(after=after)]

    everything = [0, 1, 2, 3, 4, 11, 12, 13, 20, 21, 22, 23, 24]
    assert keys("0.0") == keys("0.999") == everything
    assert keys("1.0") == everything[1:]
    assert keys("1.4") == keys("1.5") == keys("1.9223372036854775807") == everything[5:]
    assert keys("2.0") == everything[5:], "the row at the cursor itself may be gone"
    assert keys("2.3") == keys("2.4") == everything[8:]
    assert keys("3.3") == [24]
    assert keys("3.4") == keys("4.0") == keys("999.0") == []


@pytest.mark.parametrize(
    "after", ["", ".", "1", "1.", ".1", "1.2.3", "-1.0", "1.-1", "a.b", "1.0x", " 1.0", "+1.0",
              "1.99999999999999999999", "1e1.0"],
)  # fmt: skip
def test_what_is_no_cursor(collection, after):
    c = collection.create(key="int64")
    problem(c.send_page(after=after), 400, "after", field="after")


def test_unknown_names_and_collections(collection):
    c = collection.create(key="int64", features=FEATURES)
    problem(c.send_page(filters="n > 1"), 400, "filters", field="filters")
    problem(c.send_page(features="n,zz"), 422, "zz")
    problem(c.send_page(with_vectors="yes"), 400, "with_vectors")
    problem(c.client.get("/v1/collections/nothing_here/rows"), 404)
    problem(c.client.post("/v1/collections/nothing_here/count"), 404)
    problem(c.client.get(f"{c.path}/elsewhere"), 404, "count")


def test_page_ends_before_the_result_outgrows_its_limit(start_daemon):
    most = 100_000
    daemon = start_daemon(args=["--result-bytes-max", str(most)])
    c = Collection(daemon.client, "c").create(key="int64", features=FEATURES)
    c.load([{"key": i, "s": "x" * 9000} for i in range(25)])
    pages = c.pages()
    assert [len(p["rows"]) for p in pages] == [11, 11, 3]
    assert [r["key"] for p in pages for r in p["rows"]] == list(range(25))
    c.load([{"key": 25, "s": "x" * most}])
    problem(c.send_page(after="1.24"), 413, "2.0", "result_bytes_max", most, "features=")
    assert c.page(after="1.24", features="n")["rows"] == [{"key": 25, "n": None}]
    assert c.page(after="2.0")["rows"] == []
    assert len(c.page(after="1.20")["rows"]) == 4, "the row that is too long starts a page"


def test_writers_do_not_disturb(own_daemon):
    c = Collection(own_daemon.client, "c").create(key="int64", features=FEATURES)
    stay = list(range(0, 60_000, 2))
    c.load(ndjson([{"key": k, "n": k} for k in stay]), NDJSON)
    stop, errors = threading.Event(), []

    def write():
        own = c.on(Client(own_daemon.client.host, own_daemon.client.port))
        i = 0
        try:
            while not stop.is_set():
                odd = [2 * (i * 7919 % 30_000) + 1 for i in range(i, i + 20)]
                own.load([{"key": k, "n": -k} for k in dict.fromkeys(odd)])
                own.delete_rows(odd[:10])
                i += 20
        except AssertionError as e:
            errors.append(e)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            rows = c.all_rows(limit=1000)
            assert [r["key"] for r in rows if r["key"] % 2 == 0] == stay
            assert all(r["n"] == (r["key"] if r["key"] % 2 == 0 else -r["key"]) for r in rows)
    finally:
        stop.set()
        writer.join()
    assert not errors
    assert sum(1 for _ in c.all_rows(limit=10_000)) == c.count()["count"] == c.describe()["rows"]


def test_count(collection):
    c = collection.create(key="int64")
    c.load([{"key": i} for i in range(10)])
    c.delete_rows([3])
    path = f"{c.path}/count"
    wanted = {"version": 2, "count": 9}
    assert c.count() == expect(c.client.post(path, {})) == wanted
    problem(c.client.post(path, {"filters": "n > 1"}), 400, "filters", field="filters")
    for bad in b"[]", b"{", b"{} x", b"nothing":
        answer = c.client.post(path, bad, headers={"Content-Type": "application/json"})
        assert answer.status in (400, 422), answer
    answer = c.client.get(path)
    assert answer.status == 405 and answer.headers["Allow"] == "POST"
