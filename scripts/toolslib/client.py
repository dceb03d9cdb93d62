"""Loadstone over HTTP with nothing but the standard library: one connection, kept open.

Client       one connection; not for two threads at once
Collection   the calls on one collection
Patience     repeats a call while the daemon is busy or away
"""

import http.client
import json
import os
import random
import socket
import time
from urllib.parse import quote, urlencode, urlsplit

JSON, NDJSON, OCTETS = "application/json", "application/x-ndjson", "application/octet-stream"
BLOCK_BYTES = 1 << 20
TIMEOUT_S = 600
FETCH_BYTES, FETCH_KEYS = 8 << 20, 256  # of one answer with vectors, as JSON
FRESH_S = 30  # a connection idle for longer is opened anew: the daemon may have closed it
TOKENS = ("LOADSTONE_WRITE_TOKEN", "LOADSTONE_READ_TOKEN")


class Refused(Exception):
    """The daemon said no, with a status and a sentence."""

    def __init__(self, status, detail, row=None, field=None, retry_after_s=None):
        super().__init__(status, detail, row, field, retry_after_s)
        self.status, self.detail = status, detail
        self.row, self.field = row, field
        self.retry_after_s = retry_after_s

    def __str__(self):
        return f"the daemon answered {self.status}: {self.detail}"


class Unreachable(Exception):
    """Nothing answers."""


class NoSuchHost(Unreachable):
    """The name of the host has no address."""


def system_sentence(e):
    """An OSError without its number."""
    if isinstance(e, FileNotFoundError) and e.filename:
        return f"{e.filename}: there is no such file"
    return f"{e.filename}: {e.strerror}" if e.filename and e.strerror else str(e)


class _File:
    """A body read from a file in large blocks; tells `progress` how far it is."""

    def __init__(self, file, progress):
        self.file, self.progress = file, progress

    def read(self, n):
        block = self.file.read(n)
        self.progress.advance(len(block))
        return block


def token_of(given=None, file=None):
    """The bearer token: as given, the first of a file, or from the environment; None without one."""
    if file:
        with open(file) as f:
            given = (f.read().split() or [None])[0]
    for name in TOKENS:
        given = given or os.environ.get(name, "").strip()
    return given or None


def add_arguments(parser):
    """The options by which every script finds its daemon."""
    group = parser.add_argument_group("the daemon")
    group.add_argument(
        "--url", default="http://127.0.0.1:7700", help="where it listens (%(default)s)"
    )
    group.add_argument(
        "--token-file",
        metavar="FILE",
        help="holds the bearer token; else LOADSTONE_WRITE_TOKEN or LOADSTONE_READ_TOKEN",
    )
    group.add_argument(
        "--token", help="the token itself (others on this machine can read it in ps)"
    )


class Client:
    def __init__(self, url, token=None, timeout_s=TIMEOUT_S):
        parts = urlsplit(url if "//" in url else f"http://{url}")
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        if parts.scheme not in kinds or not parts.hostname:
            raise Unreachable(f"{url} is no address: write http://HOST:PORT")
        self.url = url
        self.connection = kinds[parts.scheme](
            parts.netloc, timeout=timeout_s, blocksize=BLOCK_BYTES
        )
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.used = time.monotonic()

    def _exchange(self, method, path, body, headers):
        if time.monotonic() - self.used > FRESH_S:
            self.connection.close()
        try:
            self.connection.request(method, path, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # an early refusal: the answer is there to be read
        answer = self.connection.getresponse()
        return answer, answer.read()

    def exchange(self, method, path, body=None, headers=None):
        """Status 2xx: the headers and the bytes of the answer. `body`: bytes, a file, or an
        iterable of blocks (with Content-Length among the headers)."""
        try:
            answer, data = self._exchange(method, path, body, self.headers | (headers or {}))
        except socket.gaierror as e:
            host = self.connection.host
            raise NoSuchHost(f"{self.url}: the host {host} is not found ({e.strerror})") from e
        except (OSError, http.client.HTTPException) as e:
            self.connection.close()
            raise Unreachable(f"no answer from {self.url}: {e or type(e).__name__}") from e
        except BaseException:
            self.connection.close()
            raise
        self.used = time.monotonic()
        if answer.status >= 300:
            raise refusal(answer.status, data, answer.headers.get("Retry-After", ""))
        return answer.headers, data

    def _request(self, method, path, body=None, headers=None):
        _, data = self.exchange(method, path, body, headers)
        return json.loads(data) if data else None

    def get(self, path):
        return self._request("GET", path)

    def put(self, path, value):
        return self._request("PUT", path, json.dumps(value), {"Content-Type": JSON})

    def post(self, path, value):
        return self._request("POST", path, json.dumps(value), {"Content-Type": JSON})

    def delete(self, path):
        return self._request("DELETE", path)

    def put_blocks(self, path, body, content_type):
        return self._request("PUT", path, body, {"Content-Type": content_type})

    def post_blocks(self, path, blocks, size_bytes, content_type):
        headers = {"Content-Type": content_type, "Content-Length": str(size_bytes)}
        return self._request("POST", path, blocks, headers)


class Collection:
    def __init__(self, client, name):
        self.client, self.name = client, name
        self.path = f"/v1/collections/{quote(name, safe='')}"

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

    def load_blocks(self, blocks, size_bytes, content_type, **query):
        """One body, one commit; `blocks` as Client.exchange takes them."""
        path = f"{self.path}/rows" + (f"?{urlencode(query)}" if query else "")
        return self.client.post_blocks(path, blocks, size_bytes, content_type)

    def load_ndjson(self, file, size_bytes, progress):
        return self.load_blocks(_File(file, progress), size_bytes, NDJSON)

    def begin_load(self, mode, message=None):
        """A load of several parts: {"load", "expires_at"}."""
        return self.client.post(f"{self.path}/loads", {"mode": mode, "message": message})

    def put_part(self, load, part, body, content_type):
        path = f"{self.path}/loads/{load}/parts/{quote(part, safe='/')}"
        return self.client.put_blocks(path, body, content_type)

    def commit(self, load, **options):
        """The result; without "version" while it still runs: ask again."""
        return self.client.post(f"{self.path}/loads/{load}/commit", options) or {}

    def load_state(self, load):
        return self.client.get(f"{self.path}/loads/{load}")

    def tag(self, name, version):
        return self.client.put(f"{self.path}/tags/{quote(name, safe='')}", {"version": version})

    def versions(self):
        """Newest first."""
        return self.client.get(f"{self.path}/versions")["versions"]

    def version(self, number):
        return self.client.get(f"{self.path}/versions/{number}")

    def diff(self, before, after):
        return self.client.get(f"{self.path}/diff?{urlencode({'from': before, 'to': after})}")

    def restore(self, **what):
        return self.client.post(f"{self.path}/restore", what)

    def index(self):
        return self.client.get(f"{self.path}/index")

    def search(self, **question):
        return self.client.post(f"{self.path}/search", question)

    def features(self, keys, names, **options):
        question = {"keys": keys, "features": names, **options}
        return self.client.post(f"{self.path}/features", question)

    def fetch_vectors(self, keys, dim):
        """(found, vector or None) of each key, in requests of bounded size."""
        step = min(max(FETCH_BYTES // (dim * 12), 1), FETCH_KEYS)
        for at in range(0, len(keys), step):
            answer = self.features(keys[at : at + step], [], with_vectors=True)
            yield from zip(answer["found"], answer.get("vectors") or [None] * step)

    def row(self, key):
        return self.client.get(f"{self.path}/rows/{quote(str(key), safe='')}")

    def page(self, **query):
        """Rows in the order of their loading: {"version", "rows", "next"}."""
        return self.client.get(f"{self.path}/rows?{urlencode(query)}")


def refusal(status, data, retry_after=""):
    """An answer that is no success, as an exception; takes problem+json apart."""
    problem = {}
    try:
        problem = json.loads(data)
        detail = problem.get("detail") or problem.get("title") or data.decode()
    except (ValueError, AttributeError):
        detail = data.decode(errors="replace").strip() or "without a word"
        problem = {}
    wait_s = int(retry_after) if retry_after.isdigit() else None
    return Refused(status, detail, problem.get("row"), problem.get("field"), wait_s)


class Patience:
    """Repeats a call that met a busy (429, 503) or absent daemon, waiting as long as its
    Retry-After says, else twice as long each time; gives up `seconds` after the first failure. A
    host that is not found is waited for only when it was there before (`met`)."""

    FIRST_S, LONGEST_S = 0.25, 10.0

    def __init__(self, seconds, tell=lambda sentence: None, sleep=time.sleep, met=False):
        self.seconds, self.tell, self.sleep, self.met = seconds, tell, sleep, met

    def call(self, action):
        pause_s, deadline = self.FIRST_S, None
        while True:
            try:
                result = action()
                self.met = True
                return result
            except (Refused, Unreachable) as e:
                if isinstance(e, Refused) and e.status not in (429, 503):
                    raise
                if isinstance(e, NoSuchHost) and not self.met:
                    raise
                now = time.monotonic()
                if deadline is None:
                    deadline = now + self.seconds
                    self.tell(f"{e}; trying again for up to {self.seconds:.0f} s")
                if now >= deadline:
                    raise
                asked_s = getattr(e, "retry_after_s", None)
                wait_s = pause_s * random.uniform(0.75, 1.25) if asked_s is None else asked_s
                self.sleep(min(wait_s, max(deadline - now, 0.01)))
                pause_s = min(pause_s * 2, self.LONGEST_S)
