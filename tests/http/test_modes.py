"""Modes of a load over HTTP: what each does to rows, to counts, and what it refuses."""

import numpy as np
import pytest

from client import JSON, NDJSON, OCTETS, problem

FORMATS = [JSON, NDJSON]


@pytest.fixture(params=FORMATS, ids=["json", "ndjson"])
def fmt(request):
    return request.param


@pytest.fixture
def table(collection):
    return collection.create(
        key="string", vector={"dim": 2, "metric": "l2"}, features={"a": "int64", "b": "string"}
    )


def counts(answer):
    return tuple(answer[n] for n in ("rows", "inserted", "updated", "deleted"))


def contents(c):
    return {row["key"]: row["a"] for row in c.all_rows(features="a")}


def many(n, shift=0):
    return [{"key": f"k{i}", "vector": [i, shift], "a": i + shift} for i in range(n)]


def test_full_refresh_is_the_whole_new_content(table, fmt):
    table.load([{"key": "x", "a": 1, "b": "one"}, {"key": "y", "a": 2}, {"key": "z", "a": 3}])
    answer = table.load([{"key": "y", "a": 5}, {"key": "w"}], fmt, mode="full_refresh")
    assert counts(answer) == (2, 1, 1, 2)
    assert contents(table) == {"y": 5, "w": None}
    assert table.row("y")["features"]["b"] is None, "absent is null: nothing of before is kept"
    assert table.state() == (2, 2)


def test_full_refresh_without_rows_empties(table):
    table.load(many(3))
    assert counts(table.load([], mode="full_refresh")) == (0, 0, 0, 3)
    assert table.state() == (2, 0) and table.all_rows() == []


@pytest.mark.parametrize("rows", [100, 20_000], ids=["small", "large"])
def test_full_refresh_of_many_rows(table, rows):
    table.load(many(rows), NDJSON)
    answer = table.load(many(rows // 2, shift=1), NDJSON, mode="full_refresh")
    assert counts(answer) == (rows // 2, 0, rows // 2, rows // 2)
    assert table.keys_of(vector=[3, 1], k=1) == [["k3"]]
    assert table.fetch([f"k{rows - 1}"])["found"] == [False]
    assert [r["key"] for r in table.all_rows()] == [f"k{i}" for i in range(rows // 2)]


def test_full_refresh_may_repeat_a_key_only_where_the_last_wins(table, fmt):
    table.load(many(2))
    twice = [{"key": "d", "a": 1}, {"key": "e", "a": 2}, {"key": "d", "a": 3}]
    problem(table.send_rows(twice, fmt, mode="full_refresh"), 422, "0", "2", "'d'", field="key")
    assert table.state() == (1, 2)
    answer = table.load(twice, fmt, mode="full_refresh", duplicates="last")
    assert counts(answer) == (3, 2, 0, 2)
    assert contents(table) == {"d": 3, "e": 2}


def test_append_refuses_a_repeated_key_whatever_duplicates_says(table, fmt):
    twice = [{"key": "d"}, {"key": "d"}]
    problem(table.send_rows(twice, fmt, mode="append", duplicates="last"), 422, "'d'", row=1)
    assert table.state() == (0, 0)


def test_append_of_many_rows_names_the_row_that_exists(table):
    table.load([{"key": "k17000"}])
    refused = table.send_rows(many(20_000), NDJSON, mode="append")
    problem(refused, 422, "k17000", row=17_000, field="key")
    assert table.state() == (1, 1)


def test_full_refresh_of_vectors_alone(collection):
    c = collection.create(key="int64", vector={"dim": 8, "metric": "l2"})
    vectors = np.random.default_rng(1).random((30_000, 8), np.float32)
    c.load_vectors(vectors, first_key=100)
    answer = c.load(vectors[:9000].tobytes(), OCTETS, first_key=29_100, mode="full_refresh")
    assert counts(answer) == (9000, 8000, 1000, 29_000)
    assert c.keys_of(vector=vectors[5].tolist(), k=1) == [[29_105]]


def test_a_mode_of_partitions_needs_partitions(table):
    problem(table.send_rows([], mode="partition_overwrite"), 422, "partition_by", field="mode")
    assert table.state() == (0, 0)


def test_expected_version_guards_every_mode(table):
    table.load(many(2))
    for mode in ("upsert", "append", "full_refresh"):
        refused = table.send_rows([{"key": "n"}], mode=mode, expected_version=0)
        problem(refused, 412, "expected_version is 0", "newest version is 1")
    assert table.state() == (1, 2)
    assert table.load([{"key": "n"}], mode="full_refresh", expected_version=1)["version"] == 2


@pytest.mark.parametrize("rows", [50, 30_000], ids=["small", "large"])
def test_partial_rows_keep_what_they_leave_out(table, rows):
    table.load([{**row, "b": "kept"} for row in many(rows)], NDJSON)
    changed = [{"key": f"k{i}", "a": -i} for i in range(rows)]
    assert counts(table.load(changed, NDJSON)) == (rows, 0, rows, 0)
    row = table.row("k7", with_vectors="true")
    assert row["features"] == {"a": -7, "b": "kept"} and row["vector"] == [7, 0]
