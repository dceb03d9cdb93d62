"""Every feature type goes in and comes back the same, at its edges too; what does not fit is
refused with row and field."""

import base64
import json
import math

import numpy as np
import pytest

from client import JSON, NDJSON, problem

TYPES = {
    "flag": "bool",
    "small": "int32",
    "big": "int64",
    "f": "float32",
    "d": "float64",
    "s": "string",
    "raw": "bytes",
    "at": "timestamp",
    "fs": "float32[]",
    "ns": "int64[]",
    "ss": "string[]",
}

F32_MAX = float(np.finfo(np.float32).max)
F32_TINY = float(np.float32(1e-45))
ALL_BYTES = base64.b64encode(bytes(range(256))).decode()

# field -> values that must come back exactly as written
SAME = {
    "flag": [True, False],
    "small": [0, 1, -1, 2**31 - 1, -(2**31)],
    "big": [0, 2**63 - 1, -(2**63), 2**53 + 1, -(2**53) - 1],
    "f": [0.0, 1.5, -2.25, F32_MAX, -F32_MAX, F32_TINY, "NaN", "Infinity", "-Infinity"],
    "d": [0.1, 1e308, 5e-324, -2.2250738585072014e-308, 1 / 3, "NaN", "Infinity", "-Infinity"],
    "s": ["", "a", "é日本\U0001f9f2", "\u0000", 'q"\\/\b\f\n\r\t', "\u2028\uffff", "x" * 100000],
    "raw": ["", "AA==", "AAA=", "AAAA", ALL_BYTES],
    "at": ["1970-01-01T00:00:00Z", "2024-02-29T23:59:59.999999Z", "1969-12-31T23:59:59.5Z"],
    "fs": [[], [1.5], [0.25, -0.5, F32_TINY, F32_MAX], [0.0] * 3000],
    "ns": [[], [0], [2**63 - 1, -(2**63)], list(range(1000))],
    "ss": [[], [""], ["", "a", ""], ["é", "\u0000", "x" * 5000], ["t"] * 1000],
}


@pytest.fixture
def typed(collection):
    return collection.create(key="string", features=TYPES)


@pytest.mark.parametrize("fmt", [JSON, NDJSON], ids=["json", "ndjson"])
@pytest.mark.parametrize("field", SAME)
def test_values_come_back_as_they_went_in(backend_collection, field, fmt):
    c = backend_collection.create(key="string", features=TYPES)
    values = SAME[field] + [None]
    keys = [f"k{i}" for i in range(len(values))]
    c.load([{"key": k, field: v} for k, v in zip(keys, values, strict=True)], fmt)
    got = c.fetch(keys, features=[field])["features"][field]
    if field in ("f", "fs"):
        for g, w in zip(got, values, strict=True):
            if isinstance(w, (float, list)):
                assert np.array_equal(np.float32(g), np.float32(w)), (g, w)
            else:
                assert g == w
    else:
        assert got == values
    single = [c.row(k, features=field)["features"][field] for k in keys]
    assert single == got


def test_types_survive_sealing_and_restart(own_daemon):
    """The same values once more, through the log and, with enough rows, a segment file."""
    from client import Collection

    c = Collection(own_daemon.client, "typed").create(key="string", features=TYPES)
    depth = max(map(len, SAME.values()))
    rows = [
        {"key": f"k{i}", **{f: v[i % len(v)] for f, v in SAME.items()}} for i in range(depth * 7)
    ]
    filler = [{"key": f"filler{i}", "s": "lorem ipsum " * 20, "big": i} for i in range(40000)]
    c.load(rows)
    c.load(filler, NDJSON)
    keys = [r["key"] for r in rows] + ["filler0", "filler39999"]
    before = c.fetch(keys)
    assert before["features"]["s"][: len(rows)] == [r["s"] for r in rows]
    own_daemon.restart()
    c = c.on(own_daemon.client)
    assert c.fetch(keys) == before
    assert c.describe()["rows"] == len(rows) + len(filler)


def test_float32_prints_as_its_shortest_decimal(typed):
    typed.load(b'{"rows":[{"key":"a","f":0.1,"fs":[0.1,16777217,1e10]}]}')
    body = typed.client.get(f"{typed.path}/rows/a?features=f,fs").body
    assert b'"f":0.1,' in body or b'"f":0.1}' in body
    got = typed.row("a")["features"]["fs"]
    assert np.array_equal(np.float32(got), np.float32([0.1, 16777216, 1e10]))
    assert got[0] == 0.1


def test_negative_zero_and_integers_given_as_floats(typed):
    typed.load(b'{"rows":[{"key":"a","d":-0.0,"small":1.0,"big":1e3,"f":3}]}')
    got = json.loads(typed.client.get(f"{typed.path}/rows/a").body, parse_int=float)["features"]
    assert math.copysign(1, got["d"]) == -1
    assert (got["small"], got["big"], got["f"]) == (1, 1000, 3)


@pytest.mark.parametrize(
    "given, micros",
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000001Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (1714564800250000, "2024-05-01T12:00:00.25Z"),
        ("2024-05-01T14:00:00.25+02:00", "2024-05-01T12:00:00.25Z"),
        ("2024-05-01 12:00:00Z", "2024-05-01T12:00:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        (253402300799999999, "9999-12-31T23:59:59.999999Z"),
        (-62135596800000000, "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_timestamps_are_read_from_text_and_microseconds(typed, given, micros):
    typed.load([{"key": "a", "at": given}])
    assert typed.row("a")["features"]["at"] == micros


WRONG = [
    ("flag", 1),
    ("flag", "true"),
    ("small", 2**31),
    ("small", -(2**31) - 1),
    ("small", 1.5),
    ("small", "1"),
    ("small", True),
    ("big", 2**63),
    ("at", 253402300800000000),
    ("at", -62135596800000001),
    ("at", 2**63 - 1),
    ("big", -(2**63) - 1),
    ("big", 0.5),
    ("big", "one"),
    ("big", [1]),
    ("f", "1.5"),
    ("f", "nan"),
    ("f", 1e39),
    ("f", True),
    ("d", "x"),
    ("d", {}),
    ("s", 1),
    ("s", ["a"]),
    ("raw", "***"),
    ("raw", "A"),
    ("raw", 7),
    ("at", "yesterday"),
    ("at", "2024-02-30T00:00:00Z"),
    ("at", "2024-05-01T25:00:00Z"),
    ("at", "2024-05-01"),
    ("at", 1.5),
    ("fs", [1, None]),
    ("fs", ["x"]),
    ("fs", 1.0),
    ("fs", [[1.0]]),
    ("ns", [1.5]),
    ("ns", [2**63]),
    ("ns", "1"),
    ("ss", [1]),
    ("ss", ["a", None]),
    ("ss", "a"),
]


@pytest.mark.parametrize("field, value", WRONG, ids=lambda v: str(v)[:20])
def test_wrong_type_is_refused_with_row_and_field(typed, field, value):
    rows = [{"key": "good"}, {"key": "bad", field: value}]
    for fmt in (JSON, NDJSON):
        problem(typed.send_rows(rows, fmt), 422, field, row=1, field=field)
        assert typed.state() == (0, 0)


def test_unpaired_surrogates_and_bad_utf8_are_refused(typed):
    for text in (rb'"\ud800"', rb'"\udc00x"', b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"'):
        response = typed.send_rows(b'{"rows":[{"key":"a","s":' + text + b"}]}")
        assert response.status in (400, 422), (text, response)
        problem(response, response.status)
    assert typed.state() == (0, 0)


def test_fetch_keeps_order_and_repeats(typed):
    typed.load([{"key": k, "big": i} for i, k in enumerate("abc")])
    got = typed.fetch(["c", "nope", "a", "c"], features=["big"])
    assert got["version"] == 1
    assert got["keys"] == ["c", "nope", "a", "c"]
    assert got["found"] == [True, False, True, True]
    assert got["features"] == {"big": [2, None, 0, 2]}
    assert "vectors" not in got


def test_fetch_without_features_gives_all_in_schema_order(typed):
    typed.load([{"key": "a", "flag": True}])
    assert list(typed.fetch(["a"])["features"]) == list(TYPES)
    assert list(typed.row("a")["features"]) == list(TYPES)
    assert typed.fetch([])["keys"] == []


def test_fetch_of_chosen_features_only(typed):
    typed.load([{"key": "a", "flag": True, "big": 5}])
    assert typed.fetch(["a"], features=["big", "flag"])["features"] == {"big": [5], "flag": [True]}
    assert typed.row("a", features="big")["features"] == {"big": 5}


def test_fetch_refuses_what_it_does_not_know(typed):
    typed.load([{"key": "a"}])
    post, path = typed.client.post, f"{typed.path}/features"
    problem(post(path, {"keys": ["a"], "features": ["nope"]}), 422, "nope")
    problem(typed.client.get(f"{typed.path}/rows/a?features=nope"), 422, "nope")
    problem(typed.client.get(f"{typed.path}/rows/zzz"), 404, "zzz")
    problem(post(path, {"keys": ["a"], "colour": 1}), 400, "colour")
    for body in ({}, {"keys": "a"}, {"keys": [1]}, {"keys": ["a"], "features": "big"}):
        assert post(path, body).status in (400, 422), body
