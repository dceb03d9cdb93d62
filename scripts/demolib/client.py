"""Loadstone over HTTP with nothing but the standard library: one connection, kept open."""

import http.client
import json
from urllib.parse import quote, urlsplit

JSON, NDJSON = "application/json", "application/x-ndjson"
BLOCK_BYTES = 1 << 20
TIMEOUT_S = 600


class Refused(Exception):
    """The daemon said no, with a status and a sentence."""

    def __init__(self, status, detail):
        super().__init__(f"the daemon answered {status}: {detail}")
        self.status = status


class Unreachable(Exception):
    """Nothing answers."""


class _File:
    """A body read from a file in large blocks; tells `progress` how far it is."""

    def __init__(self, file, progress):
        self.file, self.progress = file, progress

    def read(self, n):
        block = self.file.read(n)
        self.progress.advance(len(block))
        return block


class Client:
    def __init__(self, url):
        self.url = url
        self.connection = http.client.HTTPConnection(
            urlsplit(url).netloc, timeout=TIMEOUT_S, blocksize=BLOCK_BYTES
        )

    def _exchange(self, method, path, body, headers):
        try:
            self.connection.request(method, path, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # an early refusal: the answer is there to be read
        answer = self.connection.getresponse()
        return answer, answer.read()

    def _request(self, method, path, body=None, headers=None):
        try:
            answer, data = self._exchange(method, path, body, headers or {})
        except (OSError, http.client.HTTPException) as e:
            self.connection.close()
            raise Unreachable(f"no answer from {self.url}: {e or type(e).__name__}") from e
        if answer.status >= 400:
            raise Refused(answer.status, _detail(data))
        return json.loads(data) if data else None

    def get(self, path):
        return self._request("GET", path)

    def put(self, path, value):
        return self._request("PUT", path, json.dumps(value), {"Content-Type": JSON})

    def post(self, path, value):
        return self._request("POST", path, json.dumps(value), {"Content-Type": JSON})

    def delete(self, path):
        return self._request("DELETE", path)

    def post_file(self, path, file, size_bytes, content_type, progress):
        headers = {"Content-Type": content_type, "Content-Length": str(size_bytes)}
        return self._request("POST", path, _File(file, progress), headers)


class Collection:
    def __init__(self, client, name):
        self.client, self.path = client, f"/v1/collections/{name}"

    def describe(self):
        """The collection, or None when there is none."""
        try:
            return self.client.get(self.path)
        except Refused as e:
            if e.status == 404:
                return None
            raise

    def create(self, schema):
        return self.client.put(self.path, schema)

    def drop(self):
        self.client.delete(self.path)

    def load_ndjson(self, file, size_bytes, progress):
        return self.client.post_file(f"{self.path}/rows", file, size_bytes, NDJSON, progress)

    def index(self):
        return self.client.get(f"{self.path}/index")

    def search(self, **question):
        return self.client.post(f"{self.path}/search", question)

    def features(self, keys, names):
        return self.client.post(f"{self.path}/features", {"keys": keys, "features": names})

    def row(self, key):
        return self.client.get(f"{self.path}/rows/{quote(key, safe='')}")


def _detail(data):
    try:
        problem = json.loads(data)
        return problem.get("detail") or problem.get("title") or data.decode()
    except (ValueError, AttributeError):
        return data.decode(errors="replace").strip() or "without a word"
