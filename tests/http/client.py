"""A thin HTTP client: keeps its connection, reads JSON, and speaks raw sockets where a test has to
break the rules that a proper client keeps.

Client        one keep-alive connection per thread; never repeats a request by itself
Collection    the calls on one collection, each asserting that it succeeded
RawExchange   bytes out, bytes in
"""

import contextlib
import http.client
import io
import json
import re
import socket
import struct
import threading
import time
from urllib.parse import quote, urlencode

JSON = "application/json"
NDJSON = "application/x-ndjson"
OCTETS = "application/octet-stream"
NPY = "application/x-npy"
IDLE_S_MAX = 4  # older connections are opened anew: the daemon may have closed them


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:600]!r}>"


class Client:
    def __init__(self, host, port, timeout_s=120, token=None):
        self.host, self.port, self.timeout_s = host, port, timeout_s
        self.token = token
        self.local = threading.local()

    def with_token(self, token):
        return Client(self.host, self.port, self.timeout_s, token)

    def connection(self):
        fresh = time.monotonic() - getattr(self.local, "used", 0) < IDLE_S_MAX
        if not (fresh and getattr(self.local, "connection", None)):
            self.close()
            self.local.connection = http.client.HTTPConnection(
                self.host, self.port, timeout=self.timeout_s
            )
        return self.local.connection

    def close(self):
        connection = getattr(self.local, "connection", None)
        if connection:
            connection.close()
        self.local.connection = None

    def request(self, method, path, body=None, headers=None):
        """`body`: bytes, an iterable of bytes (sent chunked), or anything else (sent as JSON)."""
        headers = dict(headers or {})
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None and not isinstance(body, (bytes, bytearray, memoryview)):
            if hasattr(body, "__next__"):
                headers.setdefault("Transfer-Encoding", "chunked")
            else:
                body = json.dumps(body).encode()
                headers.setdefault("Content-Type", JSON)
        connection = self.connection()
        try:
            connection.request(
                method, path, body, headers, encode_chunked="Transfer-Encoding" in headers
            )
            answer = connection.getresponse()
            response = Response(answer.status, answer.headers, answer.read())
        except BaseException:
            self.close()
            raise
        self.local.used = time.monotonic()
        return response

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body=None, **kw):
        return self.request("POST", path, body, **kw)

    def put(self, path, body=None, **kw):
        return self.request("PUT", path, body, **kw)

    def patch(self, path, body=None, **kw):
        return self.request("PATCH", path, body, **kw)

    def delete(self, path, body=None, **kw):
        return self.request("DELETE", path, body, **kw)


def expect(response, status=200):
    assert response.status == status, f"expected {status}, got {response!r}"
    return response.json() if response.body else None


def problem(response, status, *words, row=None, field=None):
    """Asserts an RFC 9457 answer whose sentence holds every word, and returns it."""
    assert response.status == status, f"expected {status}, got {response!r}"
    assert response.headers["Content-Type"].split(";")[0] == "application/problem+json"
    body = response.json()
    assert body["status"] == status and body["title"]
    detail = body["detail"]
    assert len(detail) > 10, f"no sentence: {detail!r}"
    for word in words:
        assert str(word).lower() in detail.lower(), f"{word!r} is not in {detail!r}"
    if row is not None:
        assert body.get("row") == row, body
    if field is not None:
        assert body.get("field") == field, body
    return body


def ndjson(rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def key_path(key):
    return quote(str(key), safe="")


class Collection:
    def __init__(self, client, name):
        self.client, self.name = client, name
        self.path = f"/v1/collections/{name}"

    def on(self, client):
        """The same collection through another client, after a restart for instance."""
        return Collection(client, self.name)

    def create(self, status=201, **schema):
        expect(self.client.put(self.path, schema), status)
        return self

    def send_patch(self, **changes):
        return self.client.patch(self.path, changes)

    def patch(self, **changes):
        return expect(self.send_patch(**changes))

    def describe(self):
        return expect(self.client.get(self.path))

    def state(self):
        """What a refused request must leave alone."""
        d = self.describe()
        return d["version"], d["rows"]

    def send_rows(self, body, content_type=JSON, headers=None, **query):
        if content_type == JSON and not isinstance(body, bytes) and not hasattr(body, "__next__"):
            body = {"rows": body}
        if content_type == NDJSON and isinstance(body, list):
            body = ndjson(body)
        path = f"{self.path}/rows" + (f"?{urlencode(query)}" if query else "")
        return self.client.post(path, body, headers={"Content-Type": content_type, **(headers or {})})

    def load(self, body, content_type=JSON, **query):
        return expect(self.send_rows(body, content_type, **query))

    def load_vectors(self, vectors, first_key=0, **query):
        return self.load(vectors.tobytes(), OCTETS, first_key=first_key, **query)

    def delete_rows(self, keys):
        return expect(self.client.post(f"{self.path}/rows/delete", {"keys": keys}))

    def send_open(self, headers=None, **options):
        return self.client.post(f"{self.path}/loads", options, headers=headers)

    def open_load(self, headers=None, **options):
        return expect(self.send_open(headers, **options), 201)

    def part_path(self, load, name):
        return f"{self.path}/loads/{load['load']}/parts/{quote(name)}"

    def put_part(self, load, name, body, content_type=JSON, headers=None, **query):
        path = self.part_path(load, name) + (f"?{urlencode(query)}" if query else "")
        headers = {"Content-Type": content_type, **(headers or {})}
        return self.client.put(path, body, headers=headers)

    def send_commit(self, load, **options):
        return self.client.post(f"{self.path}/loads/{load['load']}/commit", options)

    def commit_load(self, load, **options):
        return expect(self.send_commit(load, **options))

    def get_load(self, load, **query):
        path = f"{self.path}/loads/{load['load']}" + (f"?{urlencode(query)}" if query else "")
        return expect(self.client.get(path))

    def send_abort(self, load):
        return self.client.delete(f"{self.path}/loads/{load['load']}")

    def send_search(self, **body):
        return self.client.post(f"{self.path}/search", body)

    def search(self, **body):
        return expect(self.send_search(**body))

    def keys_of(self, **body):
        """The keys of each query's hits."""
        return [[hit["key"] for hit in hits] for hits in self.search(**body)["hits"]]

    def fetch(self, keys, **body):
        return expect(self.client.post(f"{self.path}/features", {"keys": keys, **body}))

    def send_page(self, **query):
        return self.client.get(f"{self.path}/rows" + (f"?{urlencode(query)}" if query else ""))

    def page(self, **query):
        return expect(self.send_page(**query))

    def pages(self, **query):
        """All pages, following the cursor."""
        got = [self.page(**query)]
        while got[-1]["next"] is not None:
            assert got[-1]["rows"], "a page that says there is more has rows"
            got.append(self.page(**{**query, "after": got[-1]["next"]}))
        return got

    def all_rows(self, **query):
        return [row for page in self.pages(**query) for row in page["rows"]]

    def count(self):
        return expect(self.client.post(f"{self.path}/count"))

    def row(self, key, **query):
        path = f"{self.path}/rows/{key_path(key)}" + (f"?{urlencode(query)}" if query else "")
        return expect(self.client.get(path))

    def versions(self, **query):
        path = f"{self.path}/versions" + (f"?{urlencode(query)}" if query else "")
        return expect(self.client.get(path))["versions"]

    def version(self, number):
        return expect(self.client.get(f"{self.path}/versions/{number}"))

    def send_export(self, number, what, method="GET", headers=None, **query):
        path = f"{self.path}/versions/{number}/export.{what}"
        path += f"?{urlencode(query)}" if query else ""
        return self.client.request(method, path, headers=headers)

    def export(self, number, what, **query):
        response = self.send_export(number, what, **query)
        assert response.status == 200, response
        return response.body

    def tag(self, name, number, status=201):
        return expect(self.client.put(f"{self.path}/tags/{name}", {"version": number}), status)

    def restore(self, **body):
        return expect(self.client.post(f"{self.path}/restore", body))

    def compact(self):
        return expect(self.client.post(f"{self.path}/compact"))

    def vacuum(self, **body):
        return expect(self.client.post(f"{self.path}/vacuum", body))

    def diff(self, **query):
        return expect(self.client.get(f"{self.path}/diff?{urlencode(query)}"))

    def index(self):
        return expect(self.client.get(f"{self.path}/index"))

    def wait_indexed(self, timeout_s=120):
        """Polls until no build runs or waits; returns every state seen, the last one ready."""
        deadline = time.monotonic() + timeout_s
        seen = [self.index()]
        while seen[-1]["state"] != "ready":
            assert time.monotonic() < deadline, f"still building: {seen[-1]}"
            time.sleep(0.02)
            seen.append(self.index())
        return seen


@contextlib.contextmanager
def one_row_kept(c):
    """A collection with one row, which must look the same after the test."""
    c.create(key="int64", vector={"dim": 4, "metric": "l2"}, features={"s": "string"})
    c.load([{"key": 1, "vector": [1, 2, 3, 4], "s": "kept"}])
    yield c
    assert c.state() == (1, 1)
    assert c.row(1)["features"] == {"s": "kept"}
    expect(c.client.get("/healthz"))


def read_hits(response, nq, k):
    """Octet-stream results: nq x k int64 keys, then nq x k float32 distances."""
    assert response.status == 200, response
    assert len(response.body) == nq * k * 12, (len(response.body), nq, k)
    keys = struct.unpack(f"<{nq * k}q", response.body[: nq * k * 8])
    distances = struct.unpack(f"<{nq * k}f", response.body[nq * k * 8 :])
    return (
        [list(keys[i * k : (i + 1) * k]) for i in range(nq)],
        [list(distances[i * k : (i + 1) * k]) for i in range(nq)],
    )


class _SharedReader(io.BufferedReader):
    """What HTTPResponse takes for its own file: answers that follow each other share the buffer."""

    def makefile(self, *_):
        return self

    def close(self):
        pass


class RawExchange:
    """A socket that sends what it is told and reads the answers."""

    def __init__(self, client, timeout_s=30):
        self.socket = socket.create_connection((client.host, client.port), timeout_s)
        self.reader = _SharedReader(socket.SocketIO(self.socket, "r"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)
        return self

    def finish_sending(self):
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def answer(self):
        """The next whole answer, or None when the daemon closed without one."""
        response = http.client.HTTPResponse(self.reader)
        try:
            response.begin()
            return Response(response.status, response.headers, response.read())
        except (http.client.BadStatusLine, ConnectionError):
            return None


def raw(client, data, timeout_s=30):
    with RawExchange(client, timeout_s) as exchange:
        return exchange.send(data).answer()


def request_head(method, path, **headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def byte_position(detail):
    """N of a sentence that says "byte N"."""
    found = re.findall(r"byte (\d+)\b", detail)
    assert found, f"no byte position in {detail!r}"
    return int(found[-1])
