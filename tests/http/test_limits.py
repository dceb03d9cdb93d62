"""Limits set by flag: what is over them is refused with the limit's name and number, and the daemon
goes on."""

import json
import threading
import time

import numpy as np
import pytest

from client import (
    JSON,
    NDJSON,
    OCTETS,
    Collection,
    RawExchange,
    expect,
    one_row_kept,
    problem,
    request_head,
)
from daemon import Daemon
from test_process import run

LIMITS = {
    "body_bytes_max": 1_000_000,
    "json_body_bytes_max": 100_000,
    "row_bytes_max": 50_000,
    "result_bytes_max": 200_000,
    "k_max": 50,
    "ef_max": 500,
    "queries_max": 20,
}


@pytest.fixture(scope="module")
def limited(scratch):
    args = [f"--{name.replace('_', '-')}={value}" for name, value in LIMITS.items()]
    daemon = Daemon(scratch / "limited", args=args).start()
    yield daemon
    daemon.forget()


@pytest.fixture
def table(limited, request):
    c = Collection(limited.client, f"t{abs(hash(request.node.name))}")
    with one_row_kept(c):
        yield c
    assert limited.alive()


def digits_of(detail):
    return detail.replace(",", "")


def test_limits_are_listed_as_set(limited):
    listed = expect(limited.client.get("/v1/limits"))
    for name, value in LIMITS.items():
        assert listed[name] == value


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("fmt, limit", [(NDJSON, 1_000_000), (OCTETS, 1_000_000), (JSON, 100_000)])
def test_body_over_the_limit_names_the_limit(table, fmt, limit, chunked):
    row = json.dumps({"key": 2, "s": "x" * 972}).encode()
    body = {
        NDJSON: (row + b"\n") * 1100,
        OCTETS: np.ones((70_000, 4), np.float32).tobytes(),
        JSON: b'{"rows":[' + b",".join([row] * 110) + b"]}",
    }[fmt]
    assert len(body) > limit
    query = {"first_key": 10} if fmt == OCTETS else {"duplicates": "last"}
    sent = iter([body[: limit // 2], body[limit // 2 :]]) if chunked else body
    detail = problem(table.send_rows(sent, fmt, **query), 413)["detail"]
    assert str(limit) in digits_of(detail) or f"{limit // 1000} kB" in detail, detail


@pytest.mark.parametrize("fmt", [NDJSON, JSON])
def test_row_over_the_limit_names_the_row(table, fmt):
    rows = [{"key": 2, "s": "y"}, {"key": 3, "s": "x" * 60_000}]
    response = table.send_rows(rows, fmt)
    assert response.status in (413, 422), response
    assert "50000" in digits_of(problem(response, response.status, row=1)["detail"])


def test_k_ef_and_queries_name_their_limits(table):
    vector = [1, 2, 3, 4]
    for body, number in (
        ({"vector": vector, "k": 51}, "50"),
        ({"vector": vector, "ef": 501}, "500"),
        ({"vectors": [vector] * 21}, "20"),
    ):
        response = table.send_search(**body)
        assert response.status in (400, 413, 422), response
        assert number in problem(response, response.status)["detail"]
    table.search(vector=vector, k=50, ef=500)
    table.search(vectors=[vector] * 20)


def test_results_over_the_limit_are_413(table):
    body = {"keys": [1] * 20_000}
    problem(table.client.post(f"{table.path}/features", body), 413)


@pytest.mark.parametrize(
    "value", ["", "x", "0", "-1", "1x", "10001", "99999999999999999999"]
)
def test_limits_out_of_range_are_refused_at_the_start_with_the_range(scratch, value):
    result = run("serve", f"--data={scratch / 'unused'}", f"--k-max={value}")
    assert result.returncode == 2
    assert "--k-max takes a whole number from 1 to 10000" in result.stderr


def test_unfinished_uploads_leave_room_for_small_bodies(start_daemon):
    """Three quarters of the buffers are for large bodies, the rest is for those up to 1 MiB."""
    client = start_daemon(args=["--buffer-bytes-max=16M", "--json-body-bytes-max=1M", "--row-bytes-max=1M"]).client
    c = Collection(client, "c").create(key="int64", vector={"dim": 4, "metric": "l2"})
    row = {"key": 1, "vector": [1, 2, 3, 4]}
    piece = np.ones((4, 4), np.float32).tobytes()
    head = request_head(
        "POST", f"{c.path}/rows?first_key=9", Content_Type=OCTETS, Content_Length=len(piece) << 20
    )
    silent = [RawExchange(client).send(head + piece) for _ in range(6)]
    deadline = time.monotonic() + 10
    while (refused := c.send_rows(iter([piece]), OCTETS, first_key=9)).status != 429:
        assert time.monotonic() < deadline, refused
        silent.append(RawExchange(client).send(head + piece))  # this one came in between: one more
        time.sleep(0.02)
    problem(refused, 429, "large bodies", "buffer_bytes_max")
    c.load([row])
    assert c.keys_of(vector=row["vector"], k=1) == [[1]]
    assert c.load(piece, OCTETS, first_key=2)["rows"] == 4
    for exchange in silent:
        exchange.socket.close()
    while c.send_rows(iter([piece]), OCTETS, first_key=9).status == 429:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_silent_connections_are_closed(start_daemon):
    args = ["--idle-timeout-s=1", "--header-timeout-s=2"]
    client = start_daemon(args=args).client
    with RawExchange(client, timeout_s=10) as silent, RawExchange(client, timeout_s=10) as trickle:
        assert silent.reader.read() == b""
        trickle.send(request_head("GET", "/healthz")[:5])
        answer = trickle.answer()
        assert answer is None or answer.status in (400, 408), answer


def test_connections_over_the_limit_do_not_starve_the_others(start_daemon):
    daemon = start_daemon(args=["--connections-max=64"])
    held = [RawExchange(daemon.client) for _ in range(60)]
    answered = []

    def ask(exchange):
        answered.append(exchange.send(request_head("GET", "/healthz")).answer().status)

    threads = [threading.Thread(target=ask, args=(e,)) for e in held]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert answered == [200] * 60
    for e in held:
        e.socket.close()
    expect(daemon.client.get("/healthz"))
