"""version, tag and as_of on every read: the answers of then, whatever came later."""

import json

import numpy as np
import pytest

from client import OCTETS, Collection, expect, problem, read_hits

NAMES = ["a", "b", "c", "d"]


def fill(c):
    """Version n: rows of the first n names, all with n in them; then a patch."""
    c.create(key="string", vector={"dim": 2, "metric": "l2"}, features={"n": "int32"})
    for n in range(1, 5):
        c.load([{"key": k, "vector": [i, n], "n": n} for i, k in enumerate(NAMES[:n])])
    c.tag("two", 2)
    c.patch(features={"later": "string"})
    return c


@pytest.fixture
def four(collection):
    return fill(collection)


def selectors(c, number):
    """Ways to say the same version."""
    yield {"version": number}
    if number == 2:
        yield {"tag": "two"}
    yield {"as_of": c.version(number)["time"]}


def check(c, number, selector):
    keys = NAMES[:number]
    hits = c.search(vector=[0, number], k=9, features=["n"], **selector)
    assert hits["version"] == number
    assert [(h["key"], h["features"]["n"]) for h in hits["hits"][0]] == [(k, number) for k in keys]
    assert c.keys_of(key="a", k=9, **selector) == [keys[1:]]
    fetched = c.fetch(NAMES, **selector)
    assert fetched["version"] == number
    assert fetched["features"] == {"n": [number] * number + [None] * (4 - number)}
    row = c.row("a", with_vectors="true", **selector)
    assert row == {"version": number, "key": "a", "features": {"n": number}, "vector": [0, number]}
    page = c.page(**selector)
    assert page["version"] == number
    assert page["rows"] == [{"key": k, "n": number} for k in keys]
    counted = expect(c.client.post(f"{c.path}/count", selector))
    assert counted == {"version": number, "count": number}
    query = "&".join(f"{k}={v}" for k, v in selector.items())
    answer = c.client.get(f"{c.path}?{query}")
    described = expect(answer)
    assert (described["version"], described["rows"]) == (number, number)
    assert list(described["schema"]["features"]) == ["n"]
    assert answer.headers["Loadstone-Version"] == str(number)


def test_every_read_of_every_version(four):
    for number in range(1, 5):
        for selector in selectors(four, number):
            check(four, number, selector)


def test_they_are_the_same_after_a_kill_and_a_restart(own_daemon):
    c = fill(Collection(own_daemon.client, "c"))
    own_daemon.restart()
    for number in range(1, 5):
        check(c.on(own_daemon.client), number, {"version": number})
    own_daemon.stop()
    own_daemon.start()
    c = c.on(own_daemon.client)
    c.load([{"key": "z", "vector": [0, 0]}])
    for number in (3, 1, 4, 2):
        check(c, number, {"version": number})


def test_without_one_it_is_the_newest_with_the_newest_schema(four):
    assert four.page()["rows"][0] == {"key": "a", "n": 4, "later": None}
    assert list(four.describe()["schema"]["features"]) == ["n", "later"]
    assert four.fetch(["a"])["features"] == {"n": [4], "later": [None]}


def test_a_key_that_the_newest_version_lacks(four):
    four.delete_rows(["b"])
    assert four.keys_of(key="b", k=1, version=3) == [["a"]] or four.keys_of(
        key="b", k=1, version=3
    ) == [["c"]]
    problem(four.send_search(key="b", k=1), 404, "b")
    assert four.fetch(["b"], version=3)["found"] == [True]
    assert four.row("b", version=3)["features"] == {"n": 3}
    problem(four.client.get(f"{four.path}/rows/d?version=3"), 404, "d")


def test_features_are_those_of_the_version(four):
    problem(four.send_search(vector=[0, 0], features=["later"], version=1), 422, "later")
    body = {"keys": ["a"], "features": ["later"]}
    problem(four.client.post(f"{four.path}/features", {**body, "version": 4}), 422, "later")
    assert expect(four.client.post(f"{four.path}/features", body))["features"] == {"later": [None]}


def test_the_place_of_the_selector_in_the_body_does_not_matter(four):
    for body in (
        b'{"version":2,"key":"b","k":9,"features":["n"]}',
        b'{"key":"b","k":9,"features":["n"],"version":2}',
        b'{"vector":[0,2],"version":2,"k":9}',
        b'{"vector":[0,2],"k":9,"tag":"two"}',
    ):
        answer = four.client.post(
            f"{four.path}/search", body, headers={"Content-Type": "application/json"}
        )
        assert expect(answer)["version"] == 2
        assert answer.headers["Loadstone-Version"] == "2"


def test_octet_streams_name_it_in_the_query(collection):
    collection.create(key="int64", vector={"dim": 2, "metric": "l2"}, features={"n": "int32"})
    collection.load([{"key": 1, "vector": [0, 0], "n": 1}])
    collection.load([{"key": 2, "vector": [0, 0], "n": 2}])
    query = np.zeros((1, 2), np.float32).tobytes()
    octets = {"Content-Type": OCTETS, "Accept": OCTETS}
    for number, keys in [(1, [1, -1]), (2, [1, 2])]:
        path = f"{collection.path}/search?k=2&version={number}"
        answer = collection.client.post(path, query, headers=octets)
        assert read_hits(answer, 1, 2)[0] == [keys]
        assert answer.headers["Loadstone-Version"] == str(number)
        wanted = np.array([1, 2], np.int64).tobytes()
        path = f"{collection.path}/features?version={number}"
        answer = collection.client.post(
            path, wanted, headers={"Content-Type": OCTETS, "Accept": "application/json"}
        )
        assert expect(answer)["found"] == [True, number == 2]


def everywhere(c, selector):
    """The same selector on every read."""
    query = "&".join(f"{k}={v}" for k, v in selector.items())
    yield c.client.post(f"{c.path}/search", {"vector": [0, 0], **selector})
    yield c.client.post(f"{c.path}/search", {**selector, "key": "a"})
    yield c.client.post(f"{c.path}/features", {"keys": ["a"], **selector})
    yield c.client.post(f"{c.path}/count", selector)
    yield c.client.get(f"{c.path}/rows?{query}")
    yield c.client.get(f"{c.path}/rows/a?{query}")
    yield c.client.get(f"{c.path}?{query}")


def test_two_at_once_are_refused_everywhere(four):
    for answer in everywhere(four, {"version": 1, "tag": "two"}):
        problem(answer, 400, "two versions")
    for answer in everywhere(four, {"as_of": "2030-01-01T00:00:00Z", "version": 999}):
        problem(answer, 400, "two versions")
    body = json.dumps({"vector": [0, 0], "version": 1})[:-1] + ',"version":2}'
    answer = four.client.post(
        f"{four.path}/search", body.encode(), headers={"Content-Type": "application/json"}
    )
    problem(answer, 400, "twice")


def test_versions_that_are_not_there(four):
    for selector, word in [
        ({"version": 5}, "5"),
        ({"version": 2**62}, ""),
        ({"tag": "nope"}, "nope"),
        ({"as_of": "2001-01-01T00:00:00Z"}, ""),
    ]:
        for answer in everywhere(four, selector):
            problem(answer, 404, word)


def test_vacuumed_versions_are_gone_everywhere(four):
    expect(four.client.delete(f"{four.path}/tags/two"), 204)
    moment = four.version(2)["time"]
    four.load([{"key": "z"}])
    four.vacuum(versions=1)
    for selector in ({"version": 2}, {"as_of": moment}):
        for answer in everywhere(four, selector):
            problem(answer, 410)
    gone = [
        four.client.get(f"{four.path}/versions/2"),
        four.send_export(2, "csv"),
        four.client.get(f"{four.path}/diff?from=2"),
        four.client.get(f"{four.path}/diff?from=5&to=2"),
        four.client.put(f"{four.path}/tags/t", {"version": 2}),
        four.client.post(f"{four.path}/restore", {"version": 2}),
    ]
    for answer in gone:
        problem(answer, 410, "2")
    assert [v["version"] for v in four.versions()] == [5]


def test_tagged_versions_stay(four):
    four.load([{"key": "z"}])
    four.vacuum(versions=1)
    check(four, 2, {"tag": "two"})
    problem(four.client.get(f"{four.path}/versions/3"), 410, "3")


def test_selectors_that_do_not_parse(four):
    for selector in ({"tag": "a/b"}, {"as_of": "noon"}, {"version": -1}):
        for answer in everywhere(four, selector):
            problem(answer, 400)
    problem(four.send_search(vector=[0, 0], version="1"), 422, "version")
    problem(four.client.get(f"{four.path}/rows?version=x"), 400, "version")


def test_a_moment_is_that_of_the_newest_commit_before_it(four):
    times = [four.version(n)["time"] for n in range(1, 5)]
    assert four.page(as_of="2100-01-01T00:00:00Z")["version"] == 4
    assert [four.page(as_of=t)["version"] for t in times] == [1, 2, 3, 4]
    assert four.page(as_of="2100-01-01T00:00:00+02:00")["version"] == 4


def test_version_zero_is_empty(four):
    assert four.page(version=0) == {"version": 0, "rows": [], "next": None}
    assert four.search(vector=[0, 0], version=0)["hits"] == [[]]
    assert four.fetch(["a"], version=0)["found"] == [False]


def test_pages_stay_in_their_version(four):
    seen, after = [], {}
    while True:
        page = four.page(version=3, limit=1, **after)
        seen += [r["key"] for r in page["rows"]]
        four.load([{"key": f"new{len(seen)}", "vector": [0, 0]}])
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == NAMES[:3]
