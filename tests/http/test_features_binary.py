"""Features as application/octet-stream: the columns read by numpy equal those of the JSON answer."""

import numpy as np
import pytest
from client import OCTETS, expect

TYPES = {
    "b": ("bool", "<u1"),
    "i": ("int32", "<i4"),
    "l": ("int64", "<i8"),
    "f": ("float32", "<f4"),
    "d": ("float64", "<f8"),
    "t": ("timestamp", "<i8"),
}
NO_KEY, NULL, VALUE = 0, 1, 2
KEYS = [7, -3, 2**62, 7, 999, 0]  # 999 is not there; 7 comes twice


class Reader:
    """Walks the blocks of an answer; each starts at a multiple of 8."""

    def __init__(self, data, n):
        self.data, self.n, self.at = data, n, 0

    def block(self, dtype, per_key=1):
        values = np.frombuffer(self.data, dtype, self.n * per_key, self.at)
        end = self.at + values.nbytes
        self.at = (end + 7) // 8 * 8
        assert not any(self.data[end : self.at]), "padding is zero"
        return values

    def done(self):
        return self.at == len(self.data)


def values_of(key):
    return {
        "b": key % 2 == 1,
        "i": int(key) % 1000 - 500,
        "l": -int(key),
        "f": float(np.float32(key % 1000 / 7)),
        "d": key % 1000 / 7,
        "t": 1_700_000_000_000_000 + key % 1000,
    }


@pytest.fixture
def numbers(collection):
    """int64 keys; key 0 has nulls only, key -3 has a null in between."""
    c = collection.create(
        key="int64",
        vector={"dim": 3, "metric": "l2"},
        features={name: kind for name, (kind, _) in TYPES.items()} | {"s": "string"},
    )
    rows = [{"key": k, "vector": [k % 10, 0.5, -1], **values_of(k)} for k in (7, 2**62)]
    rows += [{"key": -3, **values_of(-3), "l": None}, {"key": 0}]
    c.load(rows)
    return c


def ask(c, keys, accept=OCTETS, **query):
    query = "&".join(f"{name}={value}" for name, value in query.items())
    return c.client.post(
        f"{c.path}/features" + (f"?{query}" if query else ""),
        np.array(keys, "<i8").tobytes(),
        headers={"Content-Type": OCTETS, "Accept": accept},
    )


def test_columns_equal_those_of_json(numbers):
    answer = ask(numbers, KEYS, features=",".join(TYPES), with_vectors="true")
    assert answer.status == 200
    assert answer.headers["content-type"] == OCTETS
    plain = numbers.fetch(KEYS, features=list(TYPES), with_vectors=True)
    assert answer.headers["loadstone-version"] == str(plain["version"])
    reader = Reader(answer.body, len(KEYS))
    assert reader.block("u1").tolist() == plain["found"] == [1, 1, 1, 1, 0, 1]
    for name, (_, dtype) in TYPES.items():
        states, values = reader.block("u1"), reader.block(dtype)
        for key, state, value in zip(KEYS, states.tolist(), values.tolist(), strict=True):
            has = key in (7, -3, 2**62) and (key, name) != (-3, "l")
            assert state == (VALUE if has else NO_KEY if key == 999 else NULL)
            assert value == (values_of(key)[name] if has else 0)
        if name != "t":  # JSON writes times as text
            shown = plain["features"][name]
            assert [v is not None for v in shown] == (states == VALUE).tolist()
            assert (np.array([v or 0 for v in shown], dtype) == values).all()
    states, vectors = reader.block("u1"), reader.block("<f4", 3).reshape(-1, 3)
    assert states.tolist() == [VALUE, NULL, VALUE, VALUE, NO_KEY, NULL]
    assert [v.tolist() if s == VALUE else None for s, v in zip(states, vectors, strict=True)] == (
        plain["vectors"]
    )
    assert reader.done()


@pytest.mark.parametrize("n", [1, 7, 8, 9, 64, 65, 1000])
def test_blocks_are_aligned_whatever_the_number_of_keys(numbers, n):
    keys = np.resize([7, 999, -3], n)
    reader = Reader(ask(numbers, keys, features="b,i").body, n)
    found = reader.block("u1")
    assert found.tolist() == [int(k != 999) for k in keys]
    for name in ("b", "i"):
        states, values = reader.block("u1"), reader.block(TYPES[name][1])
        assert states.tolist() == [VALUE if k != 999 else NO_KEY for k in keys]
        assert values.tolist() == [values_of(int(k))[name] if k != 999 else 0 for k in keys]
    assert reader.done()


def test_string_keys_are_asked_in_json(collection):
    c = collection.create(key="string", features={"f": "float32"})
    c.load([{"key": 'a"b', "f": 1.5}, {"key": "c"}])
    answer = c.client.post(
        f"{c.path}/features", {"keys": ["c", "zz", 'a"b']}, headers={"Accept": OCTETS}
    )
    reader = Reader(expect_octets(answer), 3)
    assert reader.block("u1").tolist() == [1, 0, 1]
    assert reader.block("u1").tolist() == [NULL, NO_KEY, VALUE]
    assert reader.block("<f4").tolist() == [0, 0, 1.5]
    assert reader.done()
    refused = ask(c, [1])
    assert refused.status == 422 and "strings" in refused.json()["detail"]


def expect_octets(answer):
    assert answer.status == 200, answer.body
    return answer.body


def test_octet_keys_may_be_answered_in_json(numbers):
    answer = ask(numbers, KEYS, accept="application/json", features="d")
    assert expect(answer) == numbers.fetch(KEYS, features=["d"])


def test_a_feature_loaded_before_it_existed_is_null(collection):
    c = collection.create(key="int64", features={"a": "int32"})
    c.load([{"key": 1, "a": 5}])
    expect(c.client.patch(c.path, {"features": {"z": "float64"}}))
    c.load([{"key": 2, "a": 6, "z": 0.25}])
    reader = Reader(expect_octets(ask(c, [1, 2])), 2)
    assert reader.block("u1").tolist() == [1, 1]
    assert (reader.block("u1").tolist(), reader.block("<i4").tolist()) == ([VALUE, VALUE], [5, 6])
    assert (reader.block("u1").tolist(), reader.block("<f8").tolist()) == ([NULL, VALUE], [0, 0.25])


@pytest.mark.parametrize("query", [{}, {"features": "s"}, {"features": "i,s"}])
def test_a_feature_without_fixed_width_is_refused_by_name(numbers, query):
    refused = ask(numbers, [7], **query)
    assert refused.status == 406
    problem = refused.json()
    assert problem["field"] == "s" and "string" in problem["detail"]


@pytest.mark.parametrize("body", [b"", b"\0" * 7, b"\0" * 17])
def test_a_body_that_is_no_array_of_keys_is_refused(numbers, body):
    refused = numbers.client.post(
        f"{numbers.path}/features?features=i", body, headers={"Content-Type": OCTETS}
    )
    assert refused.status == 400 and "body" in refused.json()["detail"]


def test_settings_of_a_json_body_do_not_go_into_the_url(numbers):
    refused = numbers.client.post(f"{numbers.path}/features?features=i", {"keys": [7]})
    assert refused.status == 400 and "body" in refused.json()["detail"]


def test_an_answer_past_the_limit_is_refused(numbers):
    """400,000 keys x 9 features and states are more than 64 MiB by a little."""
    limit = numbers.client.get("/v1/limits").json()["result_bytes_max"]
    limit = limit["value"] if isinstance(limit, dict) else limit
    features = ",".join(TYPES)
    per_key = 1 + sum(1 + np.dtype(d).itemsize for _, d in TYPES.values())
    refused = ask(numbers, np.zeros(limit // per_key + 1000), features=features)
    assert refused.status == 413 and "result_bytes_max" in refused.json()["detail"]
