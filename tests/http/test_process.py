"""The daemon as a process: starting errors in one sentence, locks, orderly shutdown, memory that
does not grow with a body, which io backend runs."""

import os
import re
import signal
import socket
import subprocess
import threading
import time

import numpy as np
import pytest

from client import NDJSON, OCTETS, Collection, RawExchange, request_head
from daemon import BINARY, MEMORY_ALLOWANCE

MIB = 2**20


def run(*args, env=None, timeout_s=5):
    return subprocess.run(
        [str(BINARY), *map(str, args)], capture_output=True, text=True, timeout=timeout_s, env=env
    )


def one_sentence(result, status, *words):
    assert result.returncode == status, (result.returncode, result.stderr)
    for word in words:
        assert str(word) in result.stderr, f"{word!r} is not in {result.stderr!r}"
    assert "Traceback" not in result.stderr and "Assertion" not in result.stderr


def test_version_names_version_and_commit():
    result = run("--version")
    assert result.returncode == 0
    assert re.match(r"loadstoned? \S+", result.stdout), result.stdout


@pytest.mark.parametrize(
    "args",
    [["--help"], ["-h"], ["help"], ["serve", "--help"], ["serve", "-h"], ["serve", "--data=x", "-h"]],
    ids=" ".join,
)
def test_help_names_the_commands(args):
    result = run(*args)
    assert result.returncode == 0
    assert "serve" in result.stdout and "--data" in result.stdout and "--listen" in result.stdout


@pytest.mark.parametrize(
    "args, word",
    [
        ([], "serve"),
        (["dance"], "dance"),
        (["serve"], "--data"),
        (["serve", "--data"], "--data"),
        (["serve", "--colour", "red", "--data", "x"], "--colour"),
        (["serve", "--colour=red", "--data=x"], "--colour"),
        (["serve", "--data=x", "--threads", "0"], "--threads takes a whole number from 1 to 1024"),
        (["serve", "--data=x", "--build-threads=2.5"], "--build-threads takes a whole number"),
        (["serve", "--data=x", "--log-level=loud"], "--log-level takes debug, info, warn or error"),
    ],
    ids=str,
)
def test_wrong_usage_ends_with_status_2(args, word):
    one_sentence(run(*args), 2, word)


def test_options_are_taken_with_an_equals_sign(scratch):
    """Every value is read: the last one, a foreign address, is what the start fails for."""
    values = [f"--data={scratch / 'unused'}", "--threads=2", "--build-threads=1", "--k-max=7"]
    rest = [f"--port-file={scratch / 'unused.port'}", "--log-level=warn", "--listen=0.0.0.0:0"]
    one_sentence(run("serve", *values, *rest), 1, "--allow-remote")


@pytest.mark.parametrize(
    "listen", ["nowhere", "127.0.0.1:99999", "127.0.0.1:x", "300.1.1.1:80", ""]
)
def test_bad_listen_address_is_refused(scratch, listen):
    result = run("serve", "--data", scratch / "unused", "--listen", listen)
    assert result.returncode in (1, 2), result
    assert "listen" in result.stderr or listen in result.stderr


def test_address_of_others_is_refused_unless_asked_for(scratch):
    result = run("serve", "--data", scratch / "unused", "--listen", "0.0.0.0:0")
    assert result.returncode in (1, 2), result
    assert "--allow-remote" in result.stderr


def test_port_in_use_is_told(scratch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--data", scratch / "port", "--listen", f"127.0.0.1:{port}")
    one_sentence(result, 1, port)


def test_locked_data_directory_is_told_and_the_first_daemon_goes_on(start_daemon):
    first = start_daemon()
    c = Collection(first.client, "c").create(key="int64", features={"n": "int64"})
    c.load([{"key": 1, "n": 1}])
    result = run("serve", "--data", first.data, "--listen", "127.0.0.1:0")
    one_sentence(result, 1, first.data)
    assert c.load([{"key": 2, "n": 2}])["version"] == 2
    first.kill()
    first.start()
    assert c.on(first.client).state() == (2, 2)


@pytest.mark.parametrize("what", ["file", "foreign"])
def test_data_directory_that_is_none_is_told(scratch, what):
    path = scratch / f"not-data-{what}"
    if what == "file":
        path.write_text("hello")
    else:
        path.mkdir()
        (path / "FORMAT").write_text("something else entirely\n")
    one_sentence(run("serve", "--data", path, "--listen", "127.0.0.1:0"), 1, path)
    if what == "foreign":
        assert (path / "FORMAT").read_text() == "something else entirely\n"


def test_sigterm_ends_orderly_while_clients_are_connected(own_daemon):
    c = Collection(own_daemon.client, "c").create(
        key="int64", vector={"dim": 16, "metric": "l2"}, features={"n": "int64"}
    )
    acknowledged = []

    def write():
        try:
            for n in range(100000):
                c.load([{"key": n, "n": n}])
                acknowledged.append(n)
        except (OSError, AssertionError, ValueError):
            pass
        except Exception as e:
            if not type(e).__module__.startswith("http"):
                raise

    writers = threading.Thread(target=write)
    writers.start()
    idle = socket.create_connection((own_daemon.client.host, own_daemon.client.port))
    time.sleep(0.3)
    started = time.monotonic()
    assert own_daemon.stop() == 0
    assert time.monotonic() - started < 15
    writers.join()
    idle.close()
    own_daemon.start()
    c = c.on(own_daemon.client)
    assert acknowledged and all(c.fetch(acknowledged)["found"])
    assert c.describe()["rows"] - len(acknowledged) in (0, 1)


@pytest.fixture
def busy(start_daemon):
    """A daemon with a scan of minutes and half an upload under way, and one acknowledged row."""
    daemon = start_daemon(args=["--shutdown-timeout-s=60"])
    big = Collection(daemon.client, "big").create(
        key="int64", vector={"dim": 256, "metric": "l2"}, index={"kind": "flat"}
    )
    rows = np.random.default_rng(3).random((100_000, 256), np.float32)
    big.load(rows.tobytes(), OCTETS, first_key=0)
    kept = Collection(daemon.client, "kept").create(key="int64", features={"n": "int64"})
    kept.load([{"key": 1, "n": 1}])
    queries = rows[:10_000].tobytes()
    scan = RawExchange(daemon.client, timeout_s=60)
    path = f"{big.path}/search?k=1&exact=true"
    scan.send(request_head("POST", path, Content_Type=OCTETS, Content_Length=len(queries)) + queries)
    upload = RawExchange(daemon.client, timeout_s=60)
    path = f"{kept.path}/rows"
    upload.send(request_head("POST", path, Content_Type=NDJSON, Content_Length=1000) + b'{"key":2}\n')
    deadline = time.monotonic() + 20
    while busy_requests(daemon) < 2:
        assert time.monotonic() < deadline, "the scan and the upload do not run"
        time.sleep(0.02)
    yield daemon, scan
    scan.socket.close()
    upload.socket.close()


def busy_requests(daemon):
    text = expect_text(daemon.client.get("/metrics"))
    running = re.search(r"^loadstone_http_requests_running (\d+)", text, re.M)
    return int(running[1]) - 1


def expect_text(response):
    assert response.status == 200, response
    return response.body.decode()


def test_a_second_signal_hastens_the_end_and_keeps_what_was_acknowledged(busy):
    daemon, scan = busy
    daemon.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(1)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(20) == 0
    answer = scan.answer()
    assert answer is None or answer.status == 503, answer
    daemon.start()
    kept = Collection(daemon.client, "kept")
    assert kept.describe()["rows"] == 1


def test_posix_backend_is_used_when_asked_for_and_told(start_daemon):
    daemon = start_daemon(env={"LOADSTONE_IO": "posix"})
    daemon.wait_log("posix")
    assert "io_uring" not in open(f"/proc/{daemon.process.pid}/maps").read()


def test_unknown_backend_is_refused(scratch):
    env = dict(os.environ, LOADSTONE_IO="paper")
    result = run("serve", "--data", scratch / "unused", "--listen", "127.0.0.1:0", env=env)
    assert result.returncode in (1, 2) and "paper" in result.stderr


class Watch(threading.Thread):
    """Samples a daemon's anonymous memory until told to stop."""

    def __init__(self, daemon):
        super().__init__()
        self.daemon_watched, self.done, self.peak = daemon, threading.Event(), 0

    def run(self):
        while not self.done.wait(0.01):
            self.peak = max(self.peak, self.daemon_watched.memory())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.join()


def ndjson_body(rows, tail):
    """Rows with ever new keys and the same cells, in pieces of a thousand."""
    for first in range(0, rows, 1000):
        keys = range(first, min(first + 1000, rows))
        yield b"".join(b'{"key":%d,%s}\n' % (k, tail) for k in keys)


def test_memory_does_not_grow_with_an_ndjson_body(own_daemon):
    c = Collection(own_daemon.client, "c").create(
        key="int64",
        vector={"dim": 32, "metric": "l2"},
        features={"text": "string"},
        index={"kind": "flat"},
    )
    vector = ",".join(f"{i * 0.37:.4f}" for i in range(32)).encode()
    tail = b'"vector":[%s],"text":"%s"' % (vector, b"lorem ipsum " * 150)
    rows = 480 * MIB // (len(tail) + 16)
    idle = own_daemon.memory()
    with Watch(own_daemon) as watch:
        assert c.load(ndjson_body(rows, tail), NDJSON)["rows"] == rows
    assert watch.peak - idle < 240 * MIB + MEMORY_ALLOWANCE, (
        f"{(watch.peak - idle) / MIB:.0f} MiB for a body of 480"
    )
    assert c.row(rows - 1)["features"]["text"] == "lorem ipsum " * 150


def test_memory_does_not_grow_with_an_octet_stream(own_daemon):
    c = Collection(own_daemon.client, "c").create(
        key="int64", vector={"dim": 256, "metric": "l2"}, index={"kind": "flat"}
    )
    piece = np.random.default_rng(1).random((1024, 256), np.float32).tobytes()
    idle = own_daemon.memory()
    with Watch(own_daemon) as watch:
        c.load((piece for _ in range(300)), OCTETS, first_key=0)
    assert watch.peak - idle < 64 * MIB + MEMORY_ALLOWANCE, (watch.peak - idle) / MIB
    assert c.describe()["rows"] == 1024 * 300


def test_memory_is_given_back_after_refused_requests(own_daemon):
    """The same mistakes again and again: anonymous memory levels off."""
    c = Collection(own_daemon.client, "c").create(key="int64", vector={"dim": 64, "metric": "l2"})
    bad = np.full((20000, 64), np.nan, np.float32).tobytes()

    def mistakes(times):
        for _ in range(times):
            assert c.send_rows(bad, OCTETS, first_key=0).status == 422
            assert c.send_rows(b'{"rows":[{"key":1},' * 1000).status == 400
            assert c.send_search(vector=[1.0] * 63).status == 422

    mistakes(40)
    level = own_daemon.memory()
    mistakes(120)
    assert own_daemon.memory() < level + 12 * MIB + MEMORY_ALLOWANCE


def test_clients_that_vanish_are_forgotten(own_daemon):
    """Uploads that end with the client: connection, memory and staged files are given back soon."""
    client = own_daemon.client
    c = Collection(client, "c").create(key="int64", vector={"dim": 64, "metric": "l2"})
    rows = np.ones((8192, 64), np.float32).tobytes()
    head = request_head(
        "POST", f"{c.path}/rows?first_key=1", Content_Type=OCTETS, Content_Length=len(rows) * 2
    )

    def held():
        staged = len(list((own_daemon.data / "c" / "staging").glob("*")))
        return len(os.listdir(f"/proc/{own_daemon.process.pid}/fd")), staged

    before, memory = held(), own_daemon.memory()
    for _ in range(60):
        with RawExchange(client) as exchange:
            exchange.send(head + rows)
    deadline = time.monotonic() + 10
    while held()[0] > before[0] + 8 or held()[1] > 0:
        assert time.monotonic() < deadline, f"(descriptors, staged files): {before} -> {held()}"
        time.sleep(0.1)
    while own_daemon.memory() >= memory + 64 * MIB + MEMORY_ALLOWANCE:
        assert time.monotonic() < deadline, f"anonymous memory: {memory} -> {own_daemon.memory()}"
        time.sleep(0.1)
    assert c.state() == (0, 0)
