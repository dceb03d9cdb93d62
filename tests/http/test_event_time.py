"""Event times: which row of a key is current, what is history, and what a late row does."""

import json

import pytest

from client import JSON, NDJSON, problem

HOUR = "2024-05-01T{:02d}:00:00Z"


@pytest.fixture(params=[JSON, NDJSON], ids=["json", "ndjson"])
def fmt(request):
    return request.param


@pytest.fixture
def table(collection):
    return collection.create(
        key="string",
        vector={"dim": 2, "metric": "l2"},
        features={"at": "timestamp", "made": "timestamp", "n": "int64", "s": "string"},
        event_time="at",
        created_time="made",
        index={"kind": "flat"},
    )


def event(key, hour, n=None, made=None, **cells):
    row = {"key": key, "at": HOUR.format(hour), **cells}
    if n is not None:
        row["n"] = n
    if made is not None:
        row["made"] = HOUR.format(made)
    return row


def counts(answer):
    return tuple(answer[n] for n in ("rows", "inserted", "updated", "deleted", "stale"))


def current(c):
    return {row["key"]: row["n"] for row in c.all_rows()}


def history(c):
    """(key, hour, n) of all rows that the newest version keeps, in seq order."""
    lines = c.export(c.state()[0], "ndjson", history="true").splitlines()
    return [(r["key"], int(r["at"][11:13]), r["n"]) for r in map(json.loads, lines)]


def test_the_latest_event_is_current_and_late_ones_are_stale(table, fmt):
    assert counts(table.load([event("a", 5, 50)], fmt)) == (1, 1, 0, 0, 0)
    assert counts(table.load([event("a", 3, 30)], fmt)) == (1, 0, 0, 0, 1)
    assert current(table) == {"a": 50}
    assert counts(table.load([event("a", 7, 70)], fmt)) == (1, 0, 1, 0, 0)
    assert current(table) == {"a": 70} and table.state() == (3, 1)
    assert history(table) == [("a", 5, 50), ("a", 3, 30), ("a", 7, 70)]


def test_a_load_may_hold_a_keys_history_in_any_order(table, fmt):
    rows = [event("a", 4, 40), event("a", 6, 60), event("b", 1, 10), event("a", 5, 50)]
    assert counts(table.load(rows, fmt, mode="append")) == (4, 2, 0, 0, 2)
    assert current(table) == {"a": 60, "b": 10}
    assert counts(table.load([event("a", 9, 90)], fmt, mode="append")) == (1, 0, 1, 0, 0)
    assert len(history(table)) == 5


def test_same_times_replace(table, fmt):
    table.load([event("a", 4, 40), event("a", 6, 60)], fmt)
    assert counts(table.load([event("a", 6, 61)], fmt, mode="append")) == (1, 0, 1, 0, 0)
    assert counts(table.load([event("a", 4, 41)], fmt)) == (1, 0, 0, 0, 1)
    assert current(table) == {"a": 61}
    assert history(table) == [("a", 6, 61), ("a", 4, 41)]


def test_same_times_twice_in_one_load(table, fmt):
    twice = [event("a", 4, 1), event("a", 4, 2)]
    problem(table.send_rows(twice, fmt), 422, "rows 0 and 1", "same times", row=1)
    assert counts(table.load(twice, fmt, duplicates="last")) == (2, 1, 0, 0, 0)
    assert counts(table.load(twice, fmt, mode="append")) == (2, 0, 1, 0, 0)
    assert history(table) == [("a", 4, 2)]


def test_created_time_decides_between_equal_events_and_null_loses(table):
    table.load([event("a", 4, 1, made=9)])
    table.load([event("a", 4, 2)])
    table.load([event("a", 4, 3, made=8)])
    assert current(table) == {"a": 1}
    table.load([event("a", 4, 4, made=10)])
    assert current(table) == {"a": 4} and len(history(table)) == 4


def test_a_late_partial_row_takes_what_it_leaves_out_from_the_event_before_it(table, fmt):
    table.load([event("a", 2, 20, s="two", vector=[2, 2])])
    table.load([event("a", 8, 80, s="eight", vector=[8, 8])])
    table.load([event("a", 5, s="five")], fmt)
    assert ("a", 5, 20) in history(table)
    assert table.row("a")["features"]["s"] == "eight"
    table.load([event("a", 1, 10), event("a", 9)], fmt)
    row = table.row("a", with_vectors="true")
    assert row["features"]["n"] == 80 and row["features"]["s"] == "eight"
    assert row["vector"] == [8, 8] and ("a", 1, 10) in history(table)


def test_rows_of_one_load_complete_each_other_in_the_order_of_events(table, fmt):
    rows = [event("a", 3, s="three"), event("a", 1, 10, s="one"), event("a", 2, 20)]
    table.load(rows, fmt)
    assert table.row("a")["features"]["n"] == 20
    assert table.row("a")["features"]["s"] == "three"


def test_an_event_needs_its_time(table, fmt):
    problem(table.send_rows([event("a", 1), {"key": "b"}], fmt), 422, "at", row=1, field="at")
    problem(
        table.send_rows([{"key": "b", "at": None}], fmt), 422, "event_time", row=0, field="at"
    )
    assert table.state() == (0, 0)


def test_a_deletion_takes_history_too(table):
    table.load([event("a", 1, 1), event("a", 2, 2), event("b", 1, 3), event("b", 5, 4)])
    assert table.delete_rows(["a", "a", "none"])["deleted"] == 1
    assert history(table) == [("b", 1, 3), ("b", 5, 4)]
    table.load([event("a", 1, 9)])
    assert current(table) == {"a": 9, "b": 4}


def test_a_refresh_starts_history_anew(table):
    table.load([event("a", 9, 1), event("b", 9, 2)])
    answer = table.load([event("a", 1, 3), event("a", 2, 4)], mode="full_refresh")
    assert counts(answer) == (2, 0, 1, 1, 1)
    assert current(table) == {"a": 4} and history(table) == [("a", 1, 3), ("a", 2, 4)]


def test_only_current_rows_are_found(table):
    table.load([event("a", 1, 1, vector=[0, 0]), event("a", 2, 2, vector=[5, 5])])
    table.load([event("b", 2, 3, vector=[1, 1])])
    assert table.keys_of(vector=[0, 0], k=5) == [["b", "a"]]
    assert table.keys_of(vector=[0, 0], k=5, filter="n = 1") == [[]]
    assert table.count()["count"] == 2


def test_many_events(table):
    rows = [event(f"k{i % 5000}", i // 5000, i) for i in range(25_000)]
    assert counts(table.load(rows, NDJSON)) == (25_000, 5000, 0, 0, 20_000)
    late = [{"key": f"k{i}", "at": "2024-05-01T02:30:00Z"} for i in range(5000)]
    assert counts(table.load(late, NDJSON)) == (5000, 0, 0, 0, 5000)
    assert table.row("k7")["features"]["n"] == 20_007
    lines = history(table)
    assert len(lines) == 30_000 and lines[25_007] == ("k7", 2, 10_007)
    assert table.state() == (2, 5000)
