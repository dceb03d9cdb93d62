"""Rows as JSON columns: what rows can say columns can say too, and errors name row and column."""

import json

import numpy as np
import pytest

from client import JSON, Collection, problem

TYPES = {
    "f_bool": ("bool", [True, None, False]),
    "f_int32": ("int32", [-(2**31), 0, None]),
    "f_int64": ("int64", [2**63 - 1, None, -(2**63)]),
    "f_float32": ("float32", [0.5, "NaN", None]),
    "f_float64": ("float64", ["-Infinity", 1e300, None]),
    "f_string": ("string", ["", "naïve \u0001 \"", None]),
    "f_bytes": ("bytes", ["AAEC", "", None]),
    "f_timestamp": ("timestamp", ["2024-05-01T12:00:00Z", None, 0]),
    "f_floats": ("float32[]", [[1, 2.5], [], None]),
    "f_ints": ("int64[]", [None, [2**62], []]),
    "f_strings": ("string[]", [["a", "b"], None, [""]]),
}
SCHEMA = {
    "key": "string",
    "vector": {"dim": 2, "metric": "l2"},
    "features": {name: kind for name, (kind, _) in TYPES.items()},
}


def columns(c, body, **query):
    return c.load(json.dumps(body).encode(), JSON, **query)


def send(c, body, **query):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return c.send_rows(body, JSON, **query)


def content(c, keys):
    got = c.fetch(keys, with_vectors=True)
    return got["found"], got["features"], got["vectors"]


def test_every_type_as_columns_and_as_rows(collection, client):
    c = collection.create(**SCHEMA)
    keys, vectors = ["a", "b\n", "ç"], [[1, 2], None, [0, 0.25]]
    features = {name: values for name, (_, values) in TYPES.items()}
    answer = columns(c, {"keys": keys, "vectors": vectors, "features": features})
    assert (answer["version"], answer["rows"], answer["inserted"]) == (1, 3, 3)
    rows = [
        {"key": k, "vector": v, **{n: column[i] for n, column in features.items()}}
        for i, (k, v) in enumerate(zip(keys, vectors, strict=True))
    ]
    other = Collection(client, f"{c.name}_rows").create(**SCHEMA)
    other.load(rows)
    assert content(c, keys) == content(other, keys)


@pytest.mark.parametrize("order", ["kvf", "vfk", "fkv"])
def test_fields_in_any_order(collection, order):
    c = collection.create(key="int64", vector={"dim": 2}, features={"a": "int32", "b": "bool"})
    fields = {
        "k": ("keys", [5, "-7"]),
        "v": ("vectors", [[1, 2], None]),
        "f": ("features", {"b": [True, None], "a": [1, 2]}),
    }
    columns(c, dict(fields[o] for o in order))
    found, features, vectors = content(c, [5, -7])
    assert features == {"a": [1, 2], "b": [True, None]} and vectors == [[1, 2], None]


def test_column_left_out_is_absent_and_null_is_null(collection):
    c = collection.create(key="string", vector={"dim": 2}, features={"a": "int64", "b": "int64"})
    columns(c, {"keys": ["x"], "vectors": [[1, 2]], "features": {"a": [1], "b": [2]}})
    columns(c, {"keys": ["x", "y"], "features": {"b": [None, 5]}})
    assert content(c, ["x", "y"]) == ([True] * 2, {"a": [1, None], "b": [None, 5]}, [[1, 2], None])
    columns(c, {"features": {}, "keys": ["x"]})
    columns(c, {"keys": ["x"], "vectors": [None]})
    assert content(c, ["x"]) == ([True], {"a": [1], "b": [None]}, [None])


def test_no_rows_make_a_version(collection):
    c = collection.create(key="string", features={"a": "int64"})
    assert columns(c, {"keys": []})["rows"] == 0
    assert columns(c, {"features": {"a": []}, "keys": []})["version"] == 2


@pytest.mark.parametrize("chunked", [False, True], ids=["length_given", "chunked"])
def test_large_body(backend_collection, chunked):
    n, dim = 10_000, 24
    c = backend_collection.create(
        key="int64", vector={"dim": dim, "metric": "l2"}, features={"i": "int32", "s": "string"}
    )
    v = np.random.default_rng(3).standard_normal((n, dim)).astype(np.float32)
    body = json.dumps(
        {
            "features": {"s": [f"n{i}" if i % 3 else None for i in range(n)], "i": list(range(n))},
            "vectors": [None if i % 1000 == 7 else x for i, x in enumerate(v.tolist())],
            "keys": list(range(-n, n, 2)),
        }
    ).encode()
    sent = (body[i : i + 300_000] for i in range(0, len(body), 300_000)) if chunked else body
    assert c.load(sent, JSON)["inserted"] == n
    some = [0, 1, 7, 1007, 5000, n - 1]
    _, features, vectors = content(c, [2 * i - n for i in some])
    assert features["i"] == some
    assert features["s"] == [f"n{i}" if i % 3 else None for i in some]
    for i, got in zip(some, vectors, strict=True):
        assert (got is None) == (i % 1000 == 7)
        assert got is None or np.array_equal(np.array(got, np.float32), v[i])
    assert c.describe()["rows"] == n


def test_modes_duplicates_and_versions_are_those_of_rows(collection):
    c = collection.create(key="string", features={"a": "int64"})
    columns(c, {"keys": ["x", "y"], "features": {"a": [1, 2]}}, mode="append")
    again = send(c, {"keys": ["z", "y"]}, mode="append")
    problem(again, 422, "y", row=1, field="key")
    problem(send(c, {"keys": ["z", "z"]}), 422, "rows 0 and 1", row=1, field="key")
    columns(c, {"keys": ["z", "z"], "features": {"a": [3, 4]}}, duplicates="last")
    assert c.fetch(["z"])["features"]["a"] == [4]
    problem(send(c, {"keys": ["q"]}, expected_version=7), 412)
    assert c.state() == (2, 3)


BAD = [
    ({"keys": ["a", "b"], "features": {"a": [1]}}, 422, "has 1 values, 'keys' has 2", None, "a"),
    ({"keys": ["a"], "vectors": [[1, 2]] * 3}, 422, "has 3 values, 'keys' has 1", None, "vectors"),
    ({"keys": ["a"], "features": {"c": [1]}}, 422, "no feature 'c'", None, "c"),
    ({"keys": ["a"], "colour": []}, 400, "known: keys, vectors, features", None, "colour"),
    ({"keys": ["a"], "rows": []}, 400, "known: keys, vectors, features", None, "rows"),
    ({"features": {"a": [1]}}, 400, "keys", None, None),
    ({"keys": ["a", 5]}, 422, "strings", 1, "key"),
    ({"keys": ["a", ""]}, 422, "key", 1, "key"),
    ({"keys": ["a", "b"], "features": {"a": [1, 1.5]}}, 422, "whole number", 1, "a"),
    ({"keys": ["a", "b"], "vectors": [[1, 2], [1, 2, 3]]}, 422, "3 elements", 1, "vectors"),
    ({"keys": ["a"], "vectors": [1, 2]}, 422, "array", 0, "vectors"),
    ({"keys": ["a"], "features": {"a": None}}, 422, "null", None, "a"),
    (b'{"keys":["a"],"keys":["a"]}', 400, "twice", None, "keys"),
    (b'{"keys":["a","b"', 400, "byte", None, None),
    (b'{"keys":["a"],"features":{"a":[NaN]}}', 400, "byte", None, None),
    (b'{"vectors":[[1,1e999]],"keys":["a"]}', 422, "1e999", 0, "vectors"),
    (b'{"colour":1}', 400, "known: rows", None, None),
]


@pytest.mark.parametrize("body, status, words, row, field", BAD, ids=range(len(BAD)))
def test_bad_columns_are_refused(collection, body, status, words, row, field):
    c = collection.create(key="string", vector={"dim": 2}, features={"a": "int64"})
    problem(send(c, body), status, words, row=row, field=field)
    assert c.state() == (0, 0)


def test_vectors_for_a_collection_without(collection):
    c = collection.create(key="string", features={"a": "int64"})
    answer = send(c, {"keys": ["a"], "vectors": [None]})
    problem(answer, 422, "leave 'vectors' out", field="vectors")


def test_columns_are_capped_like_any_json(collection):
    c = collection.create(key="int64")
    most = c.client.get("/v1/limits").json()["json_body_bytes_max"]

    def body():
        yield b'{"keys":['
        for _ in range(most // 2**20 + 1):
            yield b" " * 2**20

    problem(c.send_rows(body(), JSON), 413, str(most))
    assert c.state() == (0, 0)
