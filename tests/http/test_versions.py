"""Versions: listed, described, restored; what one says never changes."""

import re

import pytest

from client import Collection, expect, problem


@pytest.fixture
def some(collection):
    collection.create(key="string", features={"n": "int32"})
    collection.load([{"key": "a", "n": 1}, {"key": "b", "n": 2}], message="first")
    collection.load([{"key": "b", "n": 3}, {"key": "c", "n": 4}], message="ünï \"quoted\"")
    collection.delete_rows(["a", "nope"])
    return collection


def test_the_list_says_what_each_commit_did_newest_first(some):
    listed = some.versions()
    assert [v["version"] for v in listed] == [3, 2, 1]
    assert [v["mode"] for v in listed] == ["delete", "upsert", "upsert"]
    assert [v["message"] for v in listed] == [None, 'ünï "quoted"', "first"]
    assert [(v["rows"], v["inserted"], v["updated"], v["deleted"]) for v in listed] == [
        (2, 0, 0, 1),
        (2, 1, 1, 0),
        (2, 2, 0, 0),
    ]
    assert all(v["metadata"] is None and v["tags"] == [] for v in listed)
    assert all(re.fullmatch("[0-9a-f]{32}", v["digest"]) for v in listed)
    assert len({v["digest"] for v in listed}) == 3
    times = [v["time"] for v in listed]
    assert times == sorted(times, reverse=True) and all(t.endswith("Z") for t in times)
    assert "stale" not in listed[0]


def test_pages_of_versions(some):
    assert [v["version"] for v in some.versions(limit=2)] == [3, 2]
    assert [v["version"] for v in some.versions(limit=2, before=2)] == [1]
    assert some.versions(before=1) == []
    assert [v["version"] for v in some.versions(before=1000)] == [3, 2, 1]
    path = f"{some.path}/versions"
    problem(some.client.get(f"{path}?limit=0"), 400, "limit")
    problem(some.client.get(f"{path}?before=x"), 400, "before")
    problem(some.client.get(f"{path}?after=1"), 400, "after")


def test_many_versions_page_by_page(collection):
    collection.create(key="int64", features={"n": "int32"})
    for n in range(230):
        collection.load([{"key": n % 7, "n": n}])
    got, before = [], {}
    while page := collection.versions(limit=50, **before):
        got += [v["version"] for v in page]
        before = {"before": got[-1]}
    assert got == list(range(230, 0, -1))


def test_a_new_collection_has_no_versions(collection):
    collection.create(key="int64", features={"n": "int32"})
    assert collection.versions() == []
    problem(collection.client.get(f"{collection.path}/versions/0"), 404)
    problem(collection.client.get(f"{collection.path}/versions/1"), 404, "1")
    problem(collection.client.get("/v1/collections/none/versions"), 404, "none")


def test_one_version_is_described_with_what_it_holds(some):
    listed = {v["version"]: v for v in some.versions()}
    some.patch(features={"later": "string"})
    for number, rows in [(1, 2), (2, 3), (3, 2)]:
        described = some.version(number)
        assert {k: described[k] for k in listed[number]} == listed[number]
        assert (described["live_rows"], described["live_vectors"]) == (rows, 0)
        assert list(described["schema"]["features"]) == ["n"]
    problem(some.client.get(f"{some.path}/versions/4"), 404, "4")
    problem(some.client.get(f"{some.path}/versions/x"), 400, "x")


def test_the_list_outlasts_restarts(own_daemon):
    c = Collection(own_daemon.client, "c").create(key="int64", features={"n": "int32"})
    for n in range(20):
        c.load([{"key": n % 5, "n": n}], message=f"load {n}")
    before = c.versions(), [c.version(v)["live_rows"] for v in range(1, 21)]
    own_daemon.restart()
    c = c.on(own_daemon.client)
    assert (c.versions(), [c.version(v)["live_rows"] for v in range(1, 21)]) == before
    own_daemon.stop()
    own_daemon.start()
    c = c.on(own_daemon.client)
    assert (c.versions(), [c.version(v)["live_rows"] for v in range(1, 21)]) == before
    c.load([{"key": 1, "n": 1}])
    assert c.versions()[1:] == before[0]


def test_a_dropped_collection_goes_on_numbering(some):
    expect(some.client.delete(some.path), 204)
    some.create(key="string", features={"n": "int32"})
    assert some.versions() == []
    assert some.load([{"key": "z"}])["version"] == 4
    assert [v["version"] for v in some.versions()] == [4]
    problem(some.client.get(f"{some.path}/versions/2"), 410, "2")


# ---- restore ----


def all_of(c, number):
    return c.export(number, "ndjson")


def test_a_restore_is_a_commit_that_brings_the_rows_back(some):
    digest = some.version(1)["digest"]
    answer = some.restore(version=1, message="back", metadata={"why": ["x", 1]})
    assert answer == {"version": 4, "rows": 2, "inserted": 1, "updated": 1, "deleted": 1}
    assert all_of(some, 4) == all_of(some, 1)
    newest = some.versions(limit=1)[0]
    assert newest["mode"] == "restore" and newest["message"] == "back"
    assert newest["metadata"] == {"why": ["x", 1]} and newest["digest"] == digest
    assert some.fetch(["a", "b", "c"])["found"] == [True, True, False]
    assert some.row("b")["features"] == {"n": 2}


def test_by_tag_and_by_time(some):
    some.tag("good", 2)
    assert some.restore(tag="good")["version"] == 4
    assert all_of(some, 4) == all_of(some, 2)
    moment = some.version(3)["time"]
    some.restore(as_of=moment)
    assert all_of(some, 5) == all_of(some, 3)


def test_it_goes_on_from_there(some):
    some.restore(version=1)
    some.load([{"key": "d", "n": 9}])
    assert [r["key"] for r in some.all_rows()] == ["a", "b", "d"]
    some.restore(version=3)
    assert all_of(some, 6) == all_of(some, 3)


def test_the_newest_schema_is_kept(some):
    some.patch(features={"later": "string"})
    some.load([{"key": "a", "later": "x"}])
    some.restore(version=1)
    assert some.row("a")["features"] == {"n": 1, "later": None}


def test_version_zero_is_empty(some):
    answer = some.restore(version=0)
    assert (answer["rows"], answer["deleted"]) == (0, 2)
    assert some.count()["count"] == 0


def test_over_restarts(own_daemon):
    c = Collection(own_daemon.client, "c").create(key="int64", features={"n": "int32"})
    for n in range(6):
        c.load([{"key": k, "n": n} for k in range(n * 50, n * 50 + 100)])
    c.restore(version=2)
    own_daemon.restart()
    c = c.on(own_daemon.client)
    assert all_of(c, 7) == all_of(c, 2)
    own_daemon.stop()
    own_daemon.start()
    c = c.on(own_daemon.client)
    assert all_of(c, 7) == all_of(c, 2) and c.count()["count"] == 150
    c.restore(version=6)
    assert all_of(c, 8) == all_of(c, 6)


def test_what_cannot_be_restored(some):
    def refuse(status, body, *words, **kw):
        problem(some.client.post(f"{some.path}/restore", body), status, *words, **kw)

    refuse(400, {"version": 1, "tag": "x"}, "two versions")
    refuse(400, {"version": 1, "as_of": "2024-01-01T00:00:00Z"}, "two versions")
    refuse(400, {}, "version, tag or as_of")
    refuse(400, {"message": "x"}, "version, tag or as_of")
    refuse(400, {"version": 1, "x": 1}, "x")
    refuse(400, {"version": 1, "metadata": [1]}, "object", field="metadata")
    refuse(400, {"as_of": "yesterday"}, "yesterday", field="as_of")
    refuse(404, {"version": 9}, "9")
    refuse(404, {"tag": "nope"}, "nope")
    refuse(404, {"as_of": "2000-01-01T00:00:00Z"})
    refuse(412, {"version": 1, "expected_version": 2}, "3")
    assert some.describe()["version"] == 3
    assert some.restore(version=1, expected_version=3)["version"] == 4
