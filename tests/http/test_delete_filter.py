"""Deleting by filter: what matches goes in one commit, what doesn't stays."""

import pytest

from client import NDJSON, expect, problem


@pytest.fixture
def table(collection):
    c = collection.create(
        key="int64",
        vector={"dim": 2, "metric": "l2"},
        features={"price": "float32", "brand": "string", "tags": "string[]"},
    )
    rows = [{"key": i, "vector": [i, 0], "price": i / 2, "brand": "ab"[i % 2]} for i in range(10)]
    rows += [{"key": 10, "tags": ["x"]}, {"key": 11, "tags": ["y", "x"]}]
    c.load(rows)
    return c


def keys(c):
    return [row["key"] for row in c.all_rows()]


def delete(c, expression, **query):
    q = "".join(f"&{k}={v}" for k, v in query.items())
    return expect(c.client.post(f"{c.path}/rows/delete?{q[1:]}", {"filter": expression}))


def test_what_matches_goes_and_null_does_not_match(table):
    answer = delete(table, "price < 2 or brand = 'b'")
    assert (answer["version"], answer["deleted"]) == (2, 7)
    assert keys(table) == [4, 6, 8, 10, 11]
    assert table.state() == (2, 5)


@pytest.mark.parametrize(
    "expression, left",
    [
        ("price is null", list(range(10))),
        ("contains(tags, 'x')", list(range(10))),
        ("key between 2 and 11", [0, 1]),
        ("not (price > 1)", [3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("vector is null", list(range(10))),
        ("true", []),
        ("price > 1000", list(range(12))),
    ],
)
def test_expressions(table, expression, left):
    answer = delete(table, expression)
    assert answer["deleted"] == 12 - len(left) and answer["version"] == 2
    assert keys(table) == left


def test_a_method_that_carries_a_body_does_the_same(table):
    response = table.client.delete(f"{table.path}/rows", {"filter": "price = 1"})
    assert expect(response)["deleted"] == 1
    assert 2 not in keys(table)


@pytest.mark.parametrize(
    "body, status, words",
    [
        ({"filter": "price <"}, 400, ["filter"]),
        ({"filter": "cost < 3"}, 422, ["cost"]),
        ({"filter": "price < 'a'"}, 422, ["price"]),
        ({"filter": 3}, 400, []),
        ({"filter": "price < 3", "keys": [1]}, 400, ["exclude"]),
        ({}, 400, ["keys", "filter"]),
        ({"filter": None}, 400, ["keys", "filter"]),
        ({"where": "price < 3"}, 400, ["where", "filter"]),
    ],
)
def test_bad_deletions_are_refused_and_change_nothing(table, body, status, words):
    response = table.client.post(f"{table.path}/rows/delete", body)
    assert response.status in ((status,) if status == 400 and body != {"filter": 3} else (400, 422))
    problem(response, response.status, *words)
    assert table.state() == (1, 12)


def test_expected_version_and_message(table):
    path = f"{table.path}/rows/delete?expected_version=0"
    problem(table.client.post(path, {"filter": "true"}), 412, "expected_version")
    delete(table, "brand = 'a'", expected_version=1, message="clean")
    assert table.state() == (2, 7)


def test_many_rows_and_old_versions_keep_theirs(table):
    rows = [{"key": i, "price": i % 100} for i in range(100, 40_100)]
    table.load(rows, NDJSON)
    assert delete(table, "price >= 50 and key >= 100")["deleted"] == 20_000
    assert table.state() == (3, 20_012)
    assert len(table.export(2, "ndjson").splitlines()) == 40_012
