"""Requests over slow_request_ms leave one line with their plan; others leave none."""

import re

import numpy as np
import pytest

from client import OCTETS, Collection, expect

ROWS, DIM = 30_000, 64


def lines(daemon):
    return [line for line in daemon.log().splitlines() if "slow request" in line]


def fields(line):
    found = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)', line)
    return {name: value.strip('"') for name, value in found}


@pytest.fixture
def slow(start_daemon):
    """Every search of this many queries takes longer than a millisecond."""
    daemon = start_daemon(args=["--slow-request-ms=1"])
    c = Collection(daemon.client, "slow")
    c.create(key="int64", vector={"dim": DIM, "metric": "l2"}, index={"kind": "flat"})
    c.load(np.random.default_rng(7).random((ROWS, DIM), np.float32).tobytes(), OCTETS, first_key=0)
    return daemon, c


def test_a_slow_search_is_logged_with_its_plan(slow):
    daemon, c = slow
    c.search(vectors=[[float(i)] * DIM for i in range(32)], k=7, exact=True)
    logged = [fields(line) for line in lines(daemon) if "/search" in line]
    assert len(logged) == 1
    got = logged[0]
    assert (got["method"], got["path"], got["status"]) == ("POST", f"{c.path}/search", "200")
    assert (got["queries"], got["k"], got["exact"]) == ("32", "7", "1")
    assert (got["scans"], got["rows_scanned"], got["graphs"]) == ("1", str(ROWS), "0")
    assert int(got["took_us"]) >= 1000 and int(got["bytes_in"]) > 32 * DIM


def test_a_slow_load_says_what_it_did(slow):
    daemon, c = slow
    logged = [fields(line) for line in lines(daemon) if line.count(f"{c.path}/rows")]
    assert logged and logged[0]["inserted"] == str(ROWS) and logged[0]["updated"] == "0"


def test_a_slow_fetch_says_for_how_many_keys(slow):
    daemon, c = slow
    c.fetch(list(range(20_000)), with_vectors=True)
    logged = [fields(line) for line in lines(daemon) if "/features" in line]
    assert logged and logged[0]["keys"] == "20000"


def test_fast_requests_leave_no_line(start_daemon):
    daemon = start_daemon(args=["--slow-request-ms=0"])
    c = Collection(daemon.client, "quiet").create(key="int64", features={"a": "int64"})
    c.load([{"key": i, "a": i} for i in range(5_000)])
    expect(daemon.client.get(f"{c.path}/rows?limit=5000"))
    assert lines(daemon) == []
