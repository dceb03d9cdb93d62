"""Collections: create, compare, list, describe, drop; what a schema may say."""

import re
import time

import numpy as np
import pytest

from client import OCTETS, Client, Collection, expect, problem

SCHEMA = {
    "key": "string",
    "vector": {"dim": 4, "metric": "l2"},
    "features": {"price": "float32", "tags": "string[]"},
}


def test_create_answers_201_then_200_for_the_same(collection):
    collection.create(**SCHEMA)
    collection.create(status=200, **SCHEMA)


def test_features_in_another_order_are_another_schema(collection):
    collection.create(**SCHEMA)
    turned = dict(SCHEMA, features={"tags": "string[]", "price": "float32"})
    problem(collection.client.put(collection.path, turned), 409, "'price'", "'tags'", "order")
    assert list(collection.describe()["schema"]["features"]) == ["price", "tags"]


def test_schema_is_compared_after_defaults(collection):
    collection.create(key="string", vector={"dim": 4})
    collection.create(
        status=200,
        key="string",
        vector={"dim": 4, "metric": "cosine"},
        index={"kind": "auto", "m": 32, "ef_construction": 200},
        retention={"versions": 100, "hours": 168},
    )


DROP, PATCH = "drop it", "PATCH"


@pytest.mark.parametrize(
    ("change", "difference", "advice"),
    [
        ({"key": "int64"}, "key is 'string' there and 'int64' in the body", DROP),
        ({"vector": {"dim": 5, "metric": "l2"}}, "vector.dim is 4 there and 5 in the body", DROP),
        ({"vector": None}, "it has vectors and the body names none", DROP),
        ({"vector": {"dim": 4, "metric": "ip"}}, "vector.metric is 'l2' there and 'ip'", DROP),
        (
            {"features": {"price": "float64", "tags": "string[]"}},
            "the feature 'price' is 'float32' there and 'float64' in the body",
            DROP,
        ),
        ({"features": {"price": "float32"}}, "the feature 'tags' is not in the body", "with it"),
        (
            {"features": {**SCHEMA["features"], "new": "bool"}},
            "the feature 'new' of the body is not there",
            PATCH,
        ),
        ({"index": {"kind": "flat"}}, "index.kind is 'auto' there and 'flat' in the body", PATCH),
        ({"index": {"m": 8}}, "index.m is 32 there and 8 in the body", PATCH),
        ({"retention": {"hours": 1}}, "retention.hours is 168 there and 1 in the body", PATCH),
    ],
    ids=lambda c: "-".join(c) if isinstance(c, dict) else "",
)
def test_different_schema_answers_409_and_keeps_the_first(collection, change, difference, advice):
    collection.create(**SCHEMA)
    before = collection.describe()["schema"]
    body = {name: v for name, v in dict(SCHEMA, **change).items() if v is not None}
    answer = collection.client.put(collection.path, body)
    problem(answer, 409, collection.name, difference, advice)
    assert collection.describe()["schema"] == before


def test_describe_names_everything(collection):
    collection.create(**SCHEMA)
    d = collection.describe()
    assert d["name"] == collection.name
    assert (d["rows"], d["version"]) == (0, 0)
    assert d["schema"]["key"] == "string"
    assert d["schema"]["vector"] == {"dim": 4, "metric": "l2"}
    assert d["schema"]["features"] == SCHEMA["features"]
    assert d["schema"]["index"]["kind"] in ("auto", "flat", "hnsw")
    assert d["bytes"] >= 0
    assert d["index"] == collection.index()
    collection.load([{"key": "a", "vector": [1, 2, 3, 4]}, {"key": "b"}])
    d = collection.describe()
    assert (d["rows"], d["version"]) == (2, 1), "a row without a vector counts"
    assert d["bytes"] > 0
    assert d["index"]["rows"] == 1, "the index counts rows with a vector"


def test_described_schema_creates_an_equal_collection(collection):
    collection.create(**SCHEMA)
    schema = collection.describe()["schema"]
    collection.create(status=200, **schema)
    Collection(collection.client, collection.name + "_twin").create(**schema)


def test_list_holds_each_collection_as_described(collection):
    collection.create(**SCHEMA)
    listed = expect(collection.client.get("/v1/collections"))["collections"]
    mine = [c for c in listed if c["name"] == collection.name]
    assert mine == [collection.describe()]
    names = [c["name"] for c in listed]
    assert names == sorted(names)


def test_drop_removes_and_recreate_goes_on_numbering(backend_server, backend_collection):
    c = backend_collection.create(**SCHEMA)
    for _ in range(3):
        c.load([{"key": "a", "price": 1}])
    response = c.client.delete(c.path)
    assert response.status == 204 and not response.body
    problem(c.client.get(c.path), 404, c.name)
    problem(c.client.delete(c.path), 404, c.name)
    listed = expect(c.client.get("/v1/collections"))["collections"]
    assert c.name not in [x["name"] for x in listed]
    c.create(key="int64", features={"n": "int64"})
    assert c.describe()["rows"] == 0
    assert c.load([{"key": 1, "n": 1}])["version"] >= 4, "versions of a name never come twice"


def test_numbering_goes_on_after_drop_and_restart(own_daemon):
    c = Collection(own_daemon.client, "again").create(**SCHEMA)
    c.load([{"key": "a"}])
    c.load([{"key": "b"}])
    expect(c.client.delete(c.path), 204)
    own_daemon.restart()
    c = c.on(own_daemon.client)
    problem(c.client.get(c.path), 404)
    c.create(**SCHEMA)
    assert c.load([{"key": "c"}])["version"] >= 3
    assert c.describe()["rows"] == 1


def test_collection_survives_restart_as_it_was(own_daemon):
    c = Collection(own_daemon.client, "kept").create(**SCHEMA)
    c.load([{"key": "a", "vector": [1, 2, 3, 4], "price": 2.5, "tags": ["x", "y"]}])
    before = c.describe(), c.row("a")
    own_daemon.restart()
    c = c.on(own_daemon.client)
    after = c.describe(), c.row("a")
    assert after[0]["schema"] == before[0]["schema"]
    assert (after[0]["version"], after[0]["rows"]) == (1, 1)
    assert after[1] == before[1]


def test_feature_table_without_vector(collection):
    collection.create(key="string", features={"n": "int64"})
    collection.load([{"key": "a", "n": 7}])
    assert collection.row("a")["features"] == {"n": 7}
    problem(collection.send_search(vector=[1.0]), 422, "vector")
    problem(collection.send_rows([{"key": "b", "vector": [1.0]}]), 422, row=0, field="vector")


@pytest.mark.parametrize("name", ["a", "_", "Z9_-", "x" * 128, "constructor"])
def test_good_names(client, name):
    c = Collection(client, name).create(key="int64", features={name: "bool"})
    assert c.describe()["schema"]["features"] == {name: "bool"}
    expect(client.delete(c.path), 204)


@pytest.mark.parametrize("name", ["9a", "-a", "a.b", "a%20b", "x" * 129, "%C3%A9", "a%0Ab", "..."])
def test_bad_collection_names_are_refused(client, name):
    before = client.get("/v1/collections").body
    response = client.put(f"/v1/collections/{name}", {"key": "string", "vector": {"dim": 2}})
    assert response.status in (400, 422), response
    problem(response, response.status, "name")
    assert client.get("/v1/collections").body == before


@pytest.mark.parametrize("name", ["key", "vector", "distance", "9a", "a b", "", "x" * 129, "é"])
def test_bad_feature_names_are_refused(collection, name):
    response = collection.client.put(collection.path, {"key": "string", "features": {name: "bool"}})
    problem(response, 422)
    problem(collection.client.get(collection.path), 404)


@pytest.mark.parametrize(
    "schema, word",
    [
        ({}, "key"),
        ({"key": "uuid"}, "key"),
        ({"key": "string", "vector": {"dim": 0}}, "dim is 0; it must be 1 to 65536"),
        ({"key": "string", "vector": {"dim": 65537}}, "1 to 65536"),
        ({"key": "string", "vector": {"dim": -1}}, "dim"),
        ({"key": "string", "vector": {"dim": "4"}}, "dim"),
        ({"key": "string", "vector": {"dim": 4.5}}, "dim"),
        ({"key": "string", "vector": {}}, "dim"),
        ({"key": "string", "vector": {"dim": 4, "metric": "manhattan"}}, "metric"),
        ({"key": "string", "features": {"a": "float16"}}, "float16"),
        ({"key": "string", "features": {"a": 3}}, "a"),
        ({"key": "string", "features": ["a"]}, "features"),
        ({"key": "string", "vector": {"dim": 4}, "colour": 1}, "colour"),
        ({"key": "string", "vector": {"dim": 4, "size": 1}}, "size"),
        ({"key": "string", "vector": {"dim": 4}, "index": {"kind": "tree"}}, "hnsw"),
        ({"key": "string", "index": {"m": 0}}, "m is 0; it must be 2 to 512"),
        ({"key": "string", "index": {"m": 513}}, "2 to 512"),
        ({"key": "string", "index": {"ef_construction": 10001}}, "1 to 10000"),
        ({"key": "string", "index": {"nlist": 65537}}, "0 to 65536"),
        ({"key": "string", "vector": {"dim": 4}, "index": {"kind": "hnsw", "links": 3}}, "links"),
        ({"key": "string", "features": {"t": "timestamp"}, "event_time": "u"}, "event_time"),
        ({"key": "string", "features": {"t": "int64"}, "event_time": "t"}, "timestamp"),
        ({"key": "string", "features": {"t": "timestamp"}, "created_time": "t"}, "event_time"),
        ({"key": "string", "features": {"d": "string"}, "partition_by": ["e"]}, "partition_by"),
        ({"key": "string", "features": {"d": "string"}, "partition_by": ["d", "d"]}, "twice"),
        ({"key": "string", "features": {"d": "float32"}, "partition_by": ["d"]}, "float32"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_bad_schemas_are_refused_with_the_word_that_is_wrong(collection, schema, word):
    response = collection.client.put(collection.path, schema)
    assert response.status in (400, 422), response
    problem(response, response.status, word)
    problem(collection.client.get(collection.path), 404)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'"x"', b"{", b"null", b'{"key":"string","key":"int64"}']
)
def test_schema_that_is_no_json_object_is_refused(collection, body):
    response = collection.client.put(
        collection.path, body, headers={"Content-Type": "application/json"}
    )
    assert response.status in (400, 422), response
    problem(response, response.status)
    problem(collection.client.get(collection.path), 404)


def test_many_features_of_every_type(collection):
    types = ["bool", "int32", "int64", "float32", "float64", "string", "bytes", "timestamp"]
    types += ["float32[]", "int64[]", "string[]"]
    features = {f"f{i}": types[i % len(types)] for i in range(300)}
    collection.create(key="int64", features=features)
    collection.load([{"key": 1}])
    assert collection.row(1)["features"] == dict.fromkeys(features)


def test_a_load_that_meets_a_drop_ends_with_404(own_daemon):
    """Its successor of the same name takes rows at the same time and keeps them all."""
    c = Collection(own_daemon.client, "c")
    staging = own_daemon.data / "c" / "staging"
    block = np.ones((200_000, 16), "<f4").tobytes()  # of a load that streams into a segment file

    def rows():
        yield block
        deadline = time.monotonic() + 60
        while not list(staging.glob("*.seg")):
            assert time.monotonic() < deadline, own_daemon.log_tail()
            time.sleep(0.01)
        expect(other.delete("/v1/collections/c"), 204)
        c.on(other).create(key="int64", vector={"dim": 16, "metric": "l2"})
        c.on(other).load_vectors(np.zeros((20_000, 16), np.float32))
        yield block

    other = Client(own_daemon.client.host, own_daemon.client.port)
    c.create(key="int64", vector={"dim": 16, "metric": "l2"})
    refused = c.client.post(
        "/v1/collections/c/rows?first_key=0", rows(), headers={"Content-Type": OCTETS}
    )
    assert "dropped meanwhile" in problem(refused, 404)["detail"]
    assert c.on(other).describe()["rows"] == 20_000
    assert list((own_daemon.data / "c" / "segments").glob("*.seg"))
    assert not re.search("level=(warn|error)", own_daemon.log()), own_daemon.log()
