"""Content-Digest (RFC 9530): a body that is not the one its client sent changes nothing."""

import base64
import hashlib
import http.client

import numpy as np
import pytest

from client import JSON, NDJSON, OCTETS, expect, ndjson, problem


def sha256(body):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def sha512(body):
    return f"sha-512=:{base64.b64encode(hashlib.sha512(body).digest()).decode()}:"


@pytest.fixture
def table(collection):
    return collection.create(key="int64", vector={"dim": 4, "metric": "l2"}, features={"n": "int64"})


BODY = ndjson([{"key": i, "n": i} for i in range(20)])


def send(table, body, digest, content_type=NDJSON, **query):
    return table.send_rows(body, content_type, headers={"Content-Digest": digest}, **query)


@pytest.mark.parametrize(
    "digest",
    [
        sha256(BODY),
        sha512(BODY),
        f"{sha256(BODY)}, {sha512(BODY)}",
        f"md5=:AAAA:, {sha256(BODY)}",
        f"  {sha512(BODY)}",
        f"{sha256(BODY)};q=1",
    ],
)
def test_the_right_digest_is_taken(table, digest):
    assert expect(send(table, BODY, digest))["rows"] == 20


@pytest.mark.parametrize("make", [sha256, sha512])
def test_the_wrong_digest_changes_nothing(table, make):
    before = table.state()
    problem(send(table, BODY, make(BODY + b" ")), 422, "Content-Digest", "nothing was changed")
    problem(send(table, BODY, f"{sha256(BODY)}, {sha512(b'')}"), 422, "SHA-512")
    assert table.state() == before


def test_long_bodies_are_checked_too(table):
    floats = np.random.default_rng(3).standard_normal((300000, 4)).astype(np.float32).tobytes()
    broken = bytearray(floats)
    broken[len(broken) // 2] ^= 1
    before = table.state()
    problem(send(table, bytes(broken), sha256(floats), OCTETS, first_key=0), 422, "SHA-256")
    assert table.state() == before
    assert expect(send(table, floats, sha256(floats), OCTETS, first_key=0))["rows"] == 300000


def test_parts_are_checked(table):
    load = table.open_load()
    problem(table.put_part(load, "p", BODY, NDJSON, headers={"Content-Digest": sha256(b"x")}), 422)
    assert table.get_load(load)["parts"] == []
    expect(table.put_part(load, "p", BODY, NDJSON, headers={"Content-Digest": sha256(BODY)}), 201)
    # the same part again is checked as well, before it is compared
    problem(table.put_part(load, "p", BODY, NDJSON, headers={"Content-Digest": sha256(b"x")}), 422)
    expect(table.put_part(load, "p", BODY, NDJSON, headers={"Content-Digest": sha512(BODY)}), 200)
    assert table.commit_load(load)["rows"] == 20


def test_bodies_that_do_not_stream_are_checked(table):
    table.load([{"key": 1}])
    body = b'{"keys":[1]}'
    path = f"{table.path}/rows/delete"
    wrong = {"Content-Type": JSON, "Content-Digest": sha256(b"")}
    problem(table.client.post(path, body, headers=wrong), 422, "Content-Digest")
    assert table.count()["count"] == 1
    right = {"Content-Type": JSON, "Content-Digest": sha256(body)}
    assert expect(table.client.post(path, body, headers=right))["deleted"] == 1


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha-256",
        "sha-256=abc",
        "sha-256=:abc",
        "sha-256=:abc:",
        "sha-256=:!!!!:",
        "md5=:AAAA:",
        f"{sha256(BODY)},",
        f"{sha256(BODY)}, {sha256(BODY)}",
    ],
)
def test_what_does_not_parse_is_refused(table, digest):
    before = table.state()
    problem(send(table, BODY, digest), 400, "Content-Digest")
    assert table.state() == before


def test_given_twice_is_refused(server, table):
    connection = http.client.HTTPConnection(server.client.host, server.client.port)
    connection.putrequest("POST", f"{table.path}/rows")
    for name, value in [
        ("Content-Type", NDJSON),
        ("Content-Length", str(len(BODY))),
        ("Content-Digest", sha256(BODY)),
        ("Content-Digest", sha512(BODY)),
    ]:
        connection.putheader(name, value)
    connection.endheaders(BODY)
    answer = connection.getresponse()
    assert answer.status == 400 and b"more than once" in answer.read()
    connection.close()
