"""A Loadstone daemon over HTTP with the standard library and numpy: what both adapters need.

Vectors travel as little-endian float32 (application/octet-stream), keys come back as int64. One
connection, kept open; not for two threads or processes at once. Failure: RuntimeError with the
daemon's sentence.
"""

import http.client
import json
import time
from urllib.parse import quote, urlencode, urlsplit

import numpy as np

JSON, OCTETS = "application/json", "application/octet-stream"
BODY_BYTES, TIMEOUT_S, POLL_S = 64 << 20, 3600, 0.05


class Daemon:
    def __init__(self, url, token=None):
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, TIMEOUT_S)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def call(self, method, path, body=None, content_type=JSON, accept=JSON, missing_ok=False):
        if body is not None and content_type == JSON:
            body = json.dumps(body)
        headers = self.headers | {"Content-Type": content_type, "Accept": accept}
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status == 404 and missing_ok:
            return b""
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {data.decode(errors='replace')}")
        return data

    def close(self):
        self.connection.close()


class Collection:
    """One collection with int64 keys and no features but those that are named."""

    def __init__(self, daemon, name):
        self.daemon, self.path = daemon, f"/v1/collections/{quote(name, safe='')}"

    def create(self, dim, metric, index, features=None):
        """Drops the one of that name first."""
        self.drop()
        schema = {"key": "int64", "vector": {"dim": dim, "metric": metric}, "index": index}
        if features:
            schema["features"] = features
        self.daemon.call("PUT", self.path, schema)

    def drop(self):
        self.daemon.call("DELETE", self.path, missing_ok=True)

    def load(self, vectors, first_key=0):
        """Row i gets key first_key + i. Bodies of bounded size, each one commit."""
        step = max(BODY_BYTES // (4 * vectors.shape[1]), 1)
        for at in range(0, len(vectors), step):
            body = np.ascontiguousarray(vectors[at : at + step], "<f4").tobytes()
            options = urlencode({"first_key": first_key + at, "mode": "append"})
            self.daemon.call("POST", f"{self.path}/rows?{options}", body, OCTETS)

    def load_rows(self, rows):
        body = "".join(json.dumps(row) + "\n" for row in rows).encode()
        self.daemon.call("POST", f"{self.path}/rows?mode=upsert", body, "application/x-ndjson")

    def index(self):
        return json.loads(self.daemon.call("GET", f"{self.path}/index"))

    def wait_indexed(self):
        while self.index()["state"] != "ready":
            time.sleep(POLL_S)

    def search(self, queries, k, **options):
        """Keys and distances, n x k each; key -1 where there are fewer hits."""
        queries = np.atleast_2d(np.ascontiguousarray(queries, "<f4"))
        path = f"{self.path}/search?{urlencode({'k': k, **options})}"
        data = self.daemon.call("POST", path, queries.tobytes(), OCTETS, OCTETS)
        n = len(queries) * k
        keys = np.frombuffer(data, "<i8", n).reshape(-1, k)
        return keys, np.frombuffer(data, "<f4", n, offset=8 * n).reshape(-1, k)
