"""What clients may do to the door: too many connections, floods of headers, bytes that trickle in,
answers that nobody reads, heads that other servers would read differently. Each is refused or cut
off in bounded time, and the others are served on."""

import json
import re
import socket
import time

import numpy as np
import pytest

from client import (
    NDJSON,
    OCTETS,
    Collection,
    RawExchange,
    expect,
    one_row_kept,
    problem,
    request_head,
)

ROW = b'{"key":2,"s":"x"}\n'


@pytest.fixture(scope="module")
def hasty(scratch):
    """A daemon that waits for nobody."""
    from daemon import Daemon

    daemon = Daemon(
        scratch / "hasty",
        args=[
            "--header-timeout-s=1",
            "--idle-timeout-s=30",
            "--transfer-grace-s=1",
            "--transfer-rate-min=100M",
            "--connections-per-ip-max=24",
        ],
    ).start()
    yield daemon
    daemon.forget()


@pytest.fixture
def table(hasty, request):
    c = Collection(hasty.client, f"t{abs(hash(request.node.name))}")
    with one_row_kept(c):
        yield c
    assert hasty.alive()


def closed_in(exchange, seconds):
    """Whether the daemon ends the connection within that time; what it says before is returned."""
    exchange.socket.settimeout(seconds)
    try:
        return exchange.reader.read()
    except ConnectionResetError:
        return b""


def trickle(exchange, text, pause_s=0.2):
    """Sends a byte at a time until the daemon has had enough; returns the bytes that went."""
    for n in range(len(text)):
        try:
            exchange.send(text[n : n + 1])
        except OSError:
            return n
        time.sleep(pause_s)
    return len(text)


# ---- slow clients ----


def test_head_that_trickles_in_is_cut_off(table):
    """Every byte restarts the library's own timeout; the whole head has one of its own."""
    head = request_head("GET", "/healthz", X_Filler="a" * 200)
    with RawExchange(table.client, timeout_s=20) as exchange:
        assert trickle(exchange, head) < 60
        assert b" 200 " not in closed_in(exchange, 10)


def test_body_that_trickles_in_is_408(table):
    head = request_head("POST", f"{table.path}/rows", Content_Type=NDJSON, Content_Length=4000)
    with RawExchange(table.client, timeout_s=20) as exchange:
        exchange.send(head)
        assert trickle(exchange, ROW * 10) < 60
        said = closed_in(exchange, 10)
        assert said == b"" or b" 408 " in said


def test_answer_that_nobody_reads_is_given_up(hasty, table):
    """More than the sockets buffer. What they hold is all that the client can read later."""
    rows = np.random.default_rng(1).random((2_000, 1024), np.float32)
    own = Collection(hasty.client, "unread").create(
        key="int64", vector={"dim": 1024, "metric": "l2"}
    )
    own.load(rows.tobytes(), OCTETS, first_key=0)
    body = json.dumps({"keys": list(range(2_000)), "with_vectors": True}).encode()
    head = request_head("POST", f"{own.path}/features", Content_Length=len(body))
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect((hasty.client.host, hasty.client.port))
        s.settimeout(20)
        s.sendall(head + body)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            expect(table.client.get("/healthz"))
            time.sleep(0.1)
        received = 0
        while piece := read_some(s):
            received += len(piece)
    promised = 2_000 * 1024 * len(b"0.12345,")
    assert received < promised / 2, "the answer came whole: it was not given up"


def read_some(s):
    try:
        return s.recv(1 << 20)
    except ConnectionResetError:
        return b""


def test_slow_clients_keep_no_one_waiting(table):
    """Four heads and four bodies stand half sent while others ask."""
    held = [RawExchange(table.client) for _ in range(8)]
    for i, exchange in enumerate(held):
        head = request_head("POST", f"{table.path}/rows", Content_Type=NDJSON, Content_Length=4000)
        exchange.send(head[:20] if i % 2 else head + ROW)
    for _ in range(50):
        expect(table.client.get(f"{table.path}/rows/1"))
    for exchange in held:
        exchange.socket.close()


# ---- floods ----


def test_one_address_cannot_take_all_connections(table):
    """The daemon closes what is over the limit, and serves those within it."""
    held = [RawExchange(table.client, timeout_s=10) for _ in range(40)]
    answered = 0
    for exchange in held:
        try:
            answer = exchange.send(request_head("GET", "/healthz")).answer()
        except OSError:
            continue
        answered += answer is not None and answer.status == 200
    assert 0 < answered <= 24
    for exchange in held:
        exchange.socket.close()
    deadline = time.monotonic() + 10
    while True:
        try:
            expect(table.client.get("/healthz"))
            break
        except (OSError, AssertionError):
            assert time.monotonic() < deadline, "no connection is taken any more"
            table.client.close()
            time.sleep(0.05)


@pytest.mark.parametrize(
    "flood",
    [
        "".join(f"X-{i}: {i}\r\n" for i in range(20_000)),
        "X: y\r\n" * 50_000,
        "Cookie: " + "a=b; " * 60_000 + "\r\n",
        "X-Long: " + "a" * 300_000 + "\r\n",
    ],
    ids=["names", "same", "cookies", "long"],
)
def test_flood_of_headers_is_refused(table, flood):
    with RawExchange(table.client, timeout_s=10) as exchange:
        try:
            exchange.send(f"GET /healthz HTTP/1.1\r\nHost: x\r\n{flood}\r\n".encode())
        except OSError:
            return  # closed while the flood still came
        said = closed_in(exchange, 10)
    assert b" 200 " not in said
    assert said == b"" or said.split()[1] in (b"400", b"413", b"431"), said[:80]


@pytest.mark.parametrize(
    "chunks",
    [
        b"5;" + b"a" * 300_000 + b"\r\nabcde\r\n0\r\n\r\n",
        b"0" * 300_000 + b"5\r\nabcde\r\n0\r\n\r\n",
        b"-5\r\nabcde\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\nabcde\r\n0\r\n\r\n",
        b"5 \x00\r\nabcde\r\n0\r\n\r\n",
        b"0x12\r\n" + ROW + b"\r\n0\r\n\r\n",
        b"12\r\n" + ROW + b"XX0\r\n\r\n",
    ],
    ids=["extension", "zeros", "negative", "huge", "nul", "hex-prefix", "no-end-of-chunk"],
)
def test_chunk_that_is_none_commits_nothing(table, chunks):
    head = request_head(
        "POST", f"{table.path}/rows", Content_Type=NDJSON, Transfer_Encoding="chunked"
    )
    with RawExchange(table.client, timeout_s=10) as exchange:
        try:
            exchange.send(head + chunks)
            exchange.finish_sending()
        except OSError:
            return  # closed while the flood still came
        assert b" 200 " not in closed_in(exchange, 10)


# ---- heads that others read differently ----


@pytest.mark.parametrize(
    "line",
    [
        "Transfer-Encoding: chunked\r\nContent-Length : 4",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\r\n : chunked",
        " Content-Length: 40",
        "Content-Length: 18\r\n\tContent-Length: 40",
        "Content-Length:\r\n 40",
        "Content-Length: 0x12",
        "Content-Length: 18\rTransfer-Encoding: chunked",
        "Content-Length: 18\x00",
        "Content_Length: 18\r\nTransfer-Encoding: identity",
    ],
)
def test_the_bytes_behind_an_odd_head_are_no_request(table, line):
    """Smuggling: a proxy and the daemon must not differ on where the body ends."""
    head = f"POST {table.path}/rows HTTP/1.1\r\nHost: x\r\nContent-Type: {NDJSON}\r\n{line}\r\n\r\n"
    behind = b"DELETE " + table.path.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    with RawExchange(table.client, timeout_s=10) as exchange:
        exchange.send(head.encode() + behind)
        exchange.finish_sending()
        said = closed_in(exchange, 10)
    assert not re.search(rb"HTTP/1.1 2\d\d", said), said


def test_request_behind_a_refused_body_is_not_read_from_within_it(table):
    """The refused body holds a request of its own; it stays a body."""
    inner = b"DELETE " + table.path.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    head = request_head("POST", "/v1/nowhere", Content_Length=len(inner))
    with RawExchange(table.client, timeout_s=10) as exchange:
        exchange.send(head + inner + request_head("GET", "/healthz"))
        problem(exchange.answer(), 404)
        assert exchange.answer().status == 200


def test_bare_line_feeds_do_not_split_a_request(table):
    with RawExchange(table.client, timeout_s=10) as exchange:
        exchange.send(b"GET /healthz HTTP/1.1\nHost: x\n\nGET /nowhere HTTP/1.1\nHost: x\n\n")
        exchange.finish_sending()
        said = closed_in(exchange, 10)
    statuses = re.findall(rb"HTTP/1.1 (\d\d\d) ", said)
    assert statuses in ([], [b"400"], [b"200", b"404"]), said
