"""PATCH of a collection: features that come later, settings, what is refused, and that neither
restarts nor loads under way notice."""

import subprocess
import threading

import numpy as np
import pytest

from client import NDJSON, Client, Collection, expect, ndjson, problem
from daemon import BINARY

SCHEMA = {
    "key": "int64",
    "vector": {"dim": 4, "metric": "l2"},
    "features": {"price": "float32"},
}
LATER = {"rank": "int64", "note": "string", "tags": "string[]"}


@pytest.fixture
def table(collection):
    return collection.create(**SCHEMA)


def vectors(n):
    return np.arange(n * 4, dtype=np.float32).reshape(n, 4)


def test_feature_added_to_rows_in_files_and_tail_reads_null(own_daemon):
    c = Collection(own_daemon.client, "c").create(**SCHEMA)
    n = 300_000  # outgrows a log record: a segment file
    c.load_vectors(vectors(n))
    c.load([{"key": n + i, "price": i} for i in range(50)])
    before = c.describe()
    answer = c.patch(features=LATER)
    assert answer == c.describe()
    assert answer["schema"]["features"] == {"price": "float32", **LATER}
    assert (answer["version"], answer["rows"]) == (before["version"], before["rows"])
    keys = [0, n - 1, n, n + 49]
    empty = {"rank": [None] * 4, "note": [None] * 4, "tags": [None] * 4}
    for _ in range(2):
        got = c.fetch(keys)
        assert got["found"] == [True] * 4
        assert got["features"] == {"price": [None, None, 0, 49], **empty}
        own_daemon.restart()
        c = c.on(own_daemon.client)
    rows = [{"key": 0, "rank": 7, "note": "x", "tags": ["a", "b"]}, {"key": n, "note": "y"}]
    c.load([*rows, {"key": -1, "rank": -1}])
    for _ in range(2):
        got = c.fetch([0, 1, n, n + 1, -1], with_vectors=True)
        assert got["features"] == {
            "price": [None, None, 0, 1, None],
            "rank": [7, None, None, None, -1],
            "note": ["x", None, "y", None, None],
            "tags": [["a", "b"], None, None, None, None],
        }
        assert got["vectors"][:2] == vectors(2).tolist()
        assert c.search(vector=[0, 1, 2, 3], k=1, features=["rank"])["hits"] == [
            [{"key": 0, "distance": 0, "features": {"rank": 7}}]
        ]
        own_daemon.restart()
        c = c.on(own_daemon.client)
    assert c.patch(features={"last": "bool"})["rows"] == n + 51


def test_stop_and_start_keep_the_schema(start_daemon):
    daemon = start_daemon()
    c = Collection(daemon.client, "c").create(**SCHEMA)
    c.load([{"key": 1, "price": 2}])
    patched = c.patch(features=LATER, retention={"hours": 3})["schema"]
    assert daemon.stop() == 0
    daemon.start()
    c = c.on(daemon.client)
    assert c.describe()["schema"] == patched
    assert c.row(1)["features"] == {"price": 2, "rank": None, "note": None, "tags": None}


def test_check_finds_an_altered_collection_sound(start_daemon):
    daemon = start_daemon()
    c = Collection(daemon.client, "c").create(**SCHEMA)
    c.load([{"key": 1, "price": 2}])
    c.patch(features=LATER)
    c.load([{"key": 1, "note": "x"}])
    daemon.kill()
    check = [BINARY, "check", daemon.data]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "version 2, 1 rows" in done.stdout, done


def test_settings_are_merged_into_those_that_are_there(table):
    table.patch(retention={"hours": 5}, index={"m": 16})
    s = table.patch(retention={"versions": 9}, index={"ef_construction": 80})["schema"]
    assert s["retention"] == {"versions": 9, "hours": 5}
    assert (s["index"]["m"], s["index"]["ef_construction"]) == (16, 80)
    assert table.patch(index={"kind": "flat"})["schema"]["index"]["m"] == 16


def test_what_changes_nothing_is_no_error(table):
    before = table.describe()
    for body in {}, {"features": {"price": "float32"}}, {"features": {}}, {"index": None}:
        assert table.patch(**body) == before


def test_feature_of_another_type_conflicts_and_adds_nothing(table):
    before = table.describe()
    answer = table.send_patch(features={"new": "bool", "price": "float64"})
    problem(answer, 409, "price", "float32", field="price")
    assert table.describe() == before


@pytest.mark.parametrize(
    "field, value",
    [
        ("key", "int64"),
        ("vector", {"dim": 8}),
        ("vector", None),
        ("partition_by", ["price"]),
        ("event_time", "price"),
        ("created_time", "price"),
        ("join_keys", ["id"]),
    ],
)
def test_what_a_collection_is_cannot_be_changed(table, field, value):
    before = table.describe()
    answer = table.send_patch(features={"new": "bool"}, **{field: value})
    problem(answer, 422, field, "cannot be changed", field=field)
    assert table.describe() == before


@pytest.mark.parametrize(
    "body, status, words",
    [
        (b"", 400, ["empty"]),
        (b"[]", 422, []),
        (b'{"features":', 400, ["byte"]),
        (b'{"colour":1}', 400, ["colour", "features, index, retention"]),
        (b'{"retention":{"days":1}}', 400, ["days"]),
        (b'{"features":{"a":"bool","a":"bool"}}', 422, ["twice"]),
        (b'{"features":{"a":"decimal"}}', 422, ["decimal", "float32"]),
        (b'{"features":{"vector":"bool"}}', 422, ["reserved"]),
        (b'{"features":{"9":"bool"}}', 422, ["9"]),
        (b'{"features":["a"]}', 422, ["features"]),
        (b'{"index":{"m":1}}', 422, ["m is 1"]),
        (b'{"index":{"kind":"tree"}}', 422, ["tree"]),
        (b'{"retention":{"hours":-1}}', 422, ["hours"]),
        (b'{"features":{},"features":{}}', 400, ["twice"]),
    ],
    ids=lambda v: v.decode() if isinstance(v, bytes) else None,
)
def test_bad_patch_is_refused_and_changes_nothing(table, body, status, words):
    before = table.describe()
    answer = table.client.patch(table.path, body, headers={"Content-Type": "application/json"})
    problem(answer, status, *words)
    assert table.describe() == before


def test_more_features_than_a_collection_may_have(table):
    most = expect(table.client.get("/v1/limits"))["features_max"]
    before = table.describe()
    many = {f"f{i}": "bool" for i in range(most)}
    problem(table.send_patch(features=many), 422, most)
    assert table.describe() == before
    many.popitem()
    assert len(table.patch(features=many)["schema"]["features"]) == most
    table.load([{"key": 1, "f0": True, f"f{most - 2}": False}])
    assert table.row(1)["features"][f"f{most - 2}"] is False


def test_unknown_collection_and_wrong_method(table):
    problem(table.client.patch("/v1/collections/nothing_here", {}), 404, "nothing_here")
    answer = table.client.post(table.path, {})
    assert answer.status == 405 and "PATCH" in answer.headers["Allow"]


def test_patches_at_once_all_take_effect(table):
    errors = []

    def add(i):
        own = table.on(Client(table.client.host, table.client.port))
        try:
            for j in range(5):
                own.patch(features={f"f{i}_{j}": "int32"}, retention={"versions": i * 10 + j})
        except AssertionError as e:
            errors.append(e)

    threads = [threading.Thread(target=add, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    features = table.describe()["schema"]["features"]
    assert sorted(features) == sorted(["price"] + [f"f{i}_{j}" for i in range(6) for j in range(5)])


def test_load_that_spans_a_patch_keeps_what_others_set(own_daemon):
    c = Collection(own_daemon.client, "c").create(**SCHEMA)
    other = c.on(Client(own_daemon.client.host, own_daemon.client.port))
    n = 60_000

    def body():
        for start in range(0, n, 1000):
            yield ndjson(
                [{"key": k, "vector": [k, 0, 0, 1], "price": 1} for k in range(start, start + 1000)]
            )
            if start == n // 2:
                other.patch(features={"rank": "int64"})
                other.load([{"key": k, "rank": k} for k in range(0, n, 6000)])

    c.load([{"key": k, "price": 0} for k in range(0, n, 6000)])
    c.load(body(), NDJSON)
    for _ in range(2):
        got = c.fetch(list(range(0, n, 3000)), with_vectors=True)
        assert got["features"]["rank"] == [k if k % 6000 == 0 else None for k in range(0, n, 3000)]
        assert got["features"]["price"] == [1] * (n // 3000)
        assert got["vectors"] == [[k, 0, 0, 1] for k in range(0, n, 3000)]
        own_daemon.restart()
        c = c.on(own_daemon.client)
    assert c.describe()["rows"] == n


def test_patches_while_others_load(own_daemon):
    c = Collection(own_daemon.client, "c").create(**SCHEMA)
    errors = []

    def load(part):
        own = c.on(Client(own_daemon.client.host, own_daemon.client.port))
        try:
            for i in range(30):
                own.load([{"key": part * 10_000 + i * 100 + j, "price": j} for j in range(100)])
        except AssertionError as e:
            errors.append(e)

    threads = [threading.Thread(target=load, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    for i in range(12):
        c.patch(features={f"f{i}": "string"})
    for t in threads:
        t.join()
    assert not errors
    for _ in range(2):
        assert c.state() == (90, 9000)
        got = c.fetch([p * 10_000 + k for p in range(3) for k in range(3000)])
        assert got["found"] == [True] * 9000
        assert got["features"]["price"] == [k % 100 for k in range(3000)] * 3
        assert got["features"]["f11"] == [None] * 9000
        own_daemon.restart()
        c = c.on(own_daemon.client)
