"""Tags: set, move, list, remove, over restarts; exports under a tag's address."""

import pytest

from client import Collection, expect, problem


@pytest.fixture
def three(collection):
    collection.create(key="int64", features={"n": "int32"})
    for n in range(3):
        collection.load([{"key": n, "n": n}])
    return collection


def get(c, name):
    return c.client.get(f"{c.path}/tags/{name}")


def tags(c):
    return {t["tag"]: t["version"] for t in expect(c.client.get(f"{c.path}/tags"))["tags"]}


def test_a_tag_names_a_version_and_may_move(three):
    assert three.tag("prod", 1) == {"tag": "prod", "version": 1}
    assert expect(get(three, "prod")) == {"tag": "prod", "version": 1}
    assert three.tag("prod", 3, status=200) == {"tag": "prod", "version": 3}
    assert three.tag("prod", 3, status=200) == {"tag": "prod", "version": 3}
    assert tags(three) == {"prod": 3}


def test_tags_make_no_version(three):
    three.tag("a", 1)
    expect(three.client.delete(f"{three.path}/tags/a"), 204)
    assert three.describe()["version"] == 3


def test_they_are_listed_by_name_and_with_their_versions(three):
    for name, number in [("b", 1), ("a.b-c_1", 3), ("B", 1), ("2024", 2)]:
        three.tag(name, number)
    listed = expect(three.client.get(f"{three.path}/tags"))["tags"]
    assert listed == sorted(listed, key=lambda t: t["tag"])
    assert {v["version"]: sorted(v["tags"]) for v in three.versions()} == {
        1: ["B", "b"],
        2: ["2024"],
        3: ["a.b-c_1"],
    }
    assert sorted(three.version(1)["tags"]) == ["B", "b"]


def test_a_removed_tag_is_gone(three):
    three.tag("t", 2)
    expect(three.client.delete(f"{three.path}/tags/t"), 204)
    problem(get(three, "t"), 404, "t")
    problem(three.client.delete(f"{three.path}/tags/t"), 404, "t")
    assert tags(three) == {}


def test_what_cannot_be_tagged(three):
    path = f"{three.path}/tags"
    problem(three.client.put(f"{path}/t", {"version": 9}), 404, "9")
    problem(three.client.put(f"{path}/a%2Fb", {"version": 1}), 400)
    problem(three.client.put(f"{path}/{'x' * 129}", {"version": 1}), 400)
    problem(three.client.put(f"{path}/t", {"version": -1}), 400, field="version")
    problem(three.client.put(f"{path}/t", {"version": "1"}), 422, field="version")
    problem(three.client.put(f"{path}/t", {}), 400, "version")
    problem(three.client.put(f"{path}/t", {"version": 1, "x": 1}), 400, "x")
    problem(three.client.put(f"{path}/t"), 400, "empty")
    problem(three.client.put("/v1/collections/none/tags/t", {"version": 1}), 404, "none")
    assert tags(three) == {}


def test_they_survive_a_kill(own_daemon):
    c = Collection(own_daemon.client, "c").create(key="int64", features={"n": "int32"})
    for n in range(3):
        c.load([{"key": n, "n": n}])
    c.tag("kept", 2)
    c.tag("moved", 1)
    c.tag("moved", 3, status=200)
    c.tag("gone", 1)
    expect(c.client.delete(f"{c.path}/tags/gone"), 204)
    own_daemon.restart()
    c = c.on(own_daemon.client)
    assert tags(c) == {"kept": 2, "moved": 3}
    own_daemon.stop()
    own_daemon.start()
    assert tags(c.on(own_daemon.client)) == {"kept": 2, "moved": 3}


def test_an_export_by_tag_leads_to_the_version(three):
    three.tag("t", 2)
    answer = three.client.get(f"{three.path}/tags/t/export.csv?features=n&filter=n%20%3E%3D%200%26")
    assert answer.status == 307 and answer.headers["Loadstone-Version"] == "2"
    assert answer.headers["Location"] == (
        f"{three.path}/versions/2/export.csv?features=n&filter=n%20%3E%3D%200%26"
    )
    answer = three.client.get(f"{three.path}/tags/t/export.csv?filter=n%3D1")
    followed = three.client.get(answer.headers["Location"])
    assert followed.body == b"key,n\r\n1,1\r\n"
    assert three.client.request("HEAD", f"{three.path}/tags/t/export.npy").status == 307
    problem(three.client.get(f"{three.path}/tags/none/export.csv"), 404, "none")
    problem(three.client.get(f"{three.path}/tags/t/export.xls"), 404, "xls")
