"""Partitions: overwritten whole, null is one, rows outside and keys elsewhere are refused."""

import pytest

from client import JSON, NDJSON, problem


@pytest.fixture(params=[JSON, NDJSON], ids=["json", "ndjson"])
def fmt(request):
    return request.param


@pytest.fixture
def table(collection):
    c = collection.create(
        key="string",
        vector={"dim": 2, "metric": "l2"},
        features={"day": "string", "shop": "int32", "n": "int64"},
        partition_by=["day", "shop"],
    )
    c.load(
        [
            {"key": "a", "day": "d1", "shop": 1, "n": 1},
            {"key": "b", "day": "d1", "shop": 1, "n": 2},
            {"key": "c", "day": "d1", "shop": 2, "n": 3},
            {"key": "d", "day": "d2", "shop": 1, "n": 4},
            {"key": "e", "shop": 1, "n": 5},
        ]
    )
    return c


def counts(answer):
    return tuple(answer[n] for n in ("rows", "inserted", "updated", "deleted"))


def contents(c):
    return {row["key"]: row["n"] for row in c.all_rows()}


def overwrite(c, rows, fmt=JSON, **query):
    return c.load(rows, fmt, mode="partition_overwrite", **query)


def test_a_partition_is_replaced_whole(table, fmt):
    answer = overwrite(
        table,
        [{"key": "b", "day": "d1", "shop": 1}, {"key": "x", "day": "d1", "shop": 1, "n": 9}],
        fmt,
    )
    assert counts(answer) == (2, 1, 1, 1)
    assert contents(table) == {"b": None, "x": 9, "c": 3, "d": 4, "e": 5}


def test_null_is_a_partition(table, fmt):
    assert counts(overwrite(table, [{"key": "f", "shop": 1, "n": 6}], fmt)) == (1, 1, 0, 1)
    assert contents(table) == {"a": 1, "b": 2, "c": 3, "d": 4, "f": 6}
    row = {"key": "g", "day": None, "shop": None, "n": 7}
    assert counts(overwrite(table, [row], fmt)) == (1, 1, 0, 0)
    assert contents(table)["f"] == 6, "one null is not two"


def test_a_key_moves_between_partitions_that_are_both_replaced(table):
    rows = [
        {"key": "a", "day": "d2", "shop": 1, "n": 10},
        {"key": "d", "day": "d1", "shop": 1, "n": 40},
    ]
    assert counts(overwrite(table, rows)) == (2, 0, 2, 1)
    assert contents(table) == {"a": 10, "d": 40, "c": 3, "e": 5}


def test_a_key_alive_in_another_partition_is_refused_naming_both(table, fmt):
    before = contents(table)
    refused = table.send_rows(
        [{"key": "y", "day": "d1", "shop": 1}, {"key": "c", "day": "d1", "shop": 1}],
        fmt,
        mode="partition_overwrite",
    )
    problem(refused, 422, "'c'", "day='d1', shop=1", "day='d1', shop=2", row=1, field="key")
    assert contents(table) == before and table.state() == (1, 5)


def test_an_upsert_moves_a_row_between_partitions(table):
    table.load([{"key": "a", "day": "d2"}])
    assert counts(overwrite(table, [{"key": "z", "day": "d2", "shop": 1}])) == (1, 1, 0, 2)
    assert contents(table) == {"b": 2, "c": 3, "e": 5, "z": None}


def test_repeated_keys(table):
    twice = [{"key": "a", "day": "d1", "shop": 1}, {"key": "a", "day": "d1", "shop": 1, "n": 8}]
    problem(table.send_rows(twice, mode="partition_overwrite"), 422, "'a'", "rows 0 and 1")
    assert counts(overwrite(table, twice, duplicates="last")) == (2, 0, 1, 1)
    assert contents(table)["a"] == 8


def test_no_rows_replace_no_partition(table):
    assert counts(overwrite(table, [])) == (0, 0, 0, 0)
    assert len(contents(table)) == 5


def test_many_rows(table):
    rows = [{"key": f"k{i}", "day": "d3", "shop": i % 3, "n": i} for i in range(30_000)]
    assert counts(overwrite(table, rows, NDJSON)) == (30_000, 30_000, 0, 0)
    again = [row for row in rows if row["shop"] == 1]
    assert counts(overwrite(table, again[:100], NDJSON)) == (100, 0, 100, len(again) - 100)
    assert table.state() == (3, 5 + 20_000 + 100)


def test_the_schema_says_what_partitions_there_are(table):
    assert table.describe()["schema"]["partition_by"] == ["day", "shop"]
