"""scripts/load.py against the real daemon: every format arrives to the bit; a load that was broken
off ends, when it is run again, with exactly the rows of the file; wrong files are named as such."""

import contextlib
import gzip
import http.server
import io
import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time

import h5py
import numpy as np
import pytest

from client import Collection
from daemon import REPO

SCRIPT = REPO / "scripts" / "load.py"
sys.path.insert(0, str(SCRIPT.parent))
import load as load_script  # noqa: E402
import recall_latency  # noqa: E402
from toolslib.client import Patience, Refused, Unreachable  # noqa: E402

DIM = 12


def command(client, *args, port=None):
    url = f"http://127.0.0.1:{port or client.port}"
    return [sys.executable, str(SCRIPT), "--url", url, *map(str, args)]


@pytest.fixture
def load(client, tmp_path, monkeypatch):
    """Runs the script's main() to its end; asserts its status and returns all that it printed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*args, status=0, on=client):
        out = io.StringIO()
        ended = 0
        with contextlib.redirect_stdout(out):
            try:
                load_script.main(command(on, *args)[2:])
            except SystemExit as e:
                ended = 1 if isinstance(e.code, str) else e.code
                print(e.code)
        assert ended == status, out.getvalue()
        return out.getvalue()

    return run


def vectors(n=300, dim=DIM, seed=1):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def small_ints(dtype, n=300):
    return np.random.default_rng(2).integers(0, 100, (n, DIM)).astype(dtype)


def stored(c, keys):
    """What the collection holds for these keys, as float32 bits."""
    fetched = c.fetch(list(keys), with_vectors=True)
    assert all(fetched["found"])
    return np.array(fetched["vectors"], np.float32)


# ---- independent writers of the formats ----


def with_lengths(rows, code):
    return b"".join(struct.pack(f"<i{len(r)}{code}", len(r), *r.tolist()) for r in rows)


def with_head(rows):
    return struct.pack("<ii", *rows.shape) + rows.tobytes()


def npy(rows):
    def write(path):
        np.save(path, rows)

    return write


def raw(data):
    def write(path):
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)

    return write


def hdf5(rows):
    def write(path):
        with h5py.File(path, "w") as f:
            f.attrs["distance"] = "euclidean"
            f.create_dataset("train", data=rows, chunks=(64, DIM), compression="gzip")
            f.create_dataset("test", data=rows[:5])

    return write


FLOATS, BYTES, SIGNED = vectors(), small_ints(np.uint8), small_ints(np.int8) - 50
FORMATS = {
    "a.npy": (npy(FLOATS), FLOATS),
    "fortran.npy": (npy(np.asfortranarray(FLOATS)), FLOATS),
    "big_endian.npy": (npy(FLOATS.astype(">f4")), FLOATS),
    "double.npy": (npy(FLOATS.astype(np.float64) / 3), (FLOATS.astype(np.float64) / 3)),
    "half.npy": (npy(FLOATS.astype(np.float16)), FLOATS.astype(np.float16)),
    "signed.npy": (npy(SIGNED), SIGNED),
    "a.fvecs": (raw(with_lengths(FLOATS, "f")), FLOATS),
    "a.bvecs": (raw(with_lengths(BYTES, "B")), BYTES),
    "a.fbin": (raw(with_head(FLOATS)), FLOATS),
    "a.u8bin": (raw(with_head(BYTES)), BYTES),
    "a.i8bin": (raw(with_head(SIGNED)), SIGNED),
    "b.fvecs.gz": (raw(with_lengths(FLOATS, "f")), FLOATS),
    "b.u8bin.gz": (raw(with_head(BYTES)), BYTES),
    "a.hdf5": (hdf5(FLOATS), FLOATS),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_arrives_to_the_bit(load, collection, tmp_path, name):
    write, rows = FORMATS[name]
    write(tmp_path / name)
    load(tmp_path / name, "--collection", collection.name, "--first-key", -7, "--part-bytes", "4K")
    expected = rows.astype(np.float32)
    assert stored(collection, range(-7, len(rows) - 7)).tobytes() == expected.tobytes()
    described = collection.describe()
    assert described["rows"] == len(rows)
    metric = "l2" if name == "a.hdf5" else "cosine"
    assert described["schema"]["vector"] == {"dim": DIM, "metric": metric}


def lines_of(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def typed_rows(n=400):
    floats = vectors(n)
    return [
        {
            "key": f"k{i}",
            "vector": floats[i].tolist() if i % 7 else None,
            "price": i if i % 2 else i + 0.5,
            "name": f"Zeile {i} äöü",
            "tags": ["a", "b"][: i % 3],
            "sold": i % 2 == 0,
        }
        for i in range(n)
    ]


@pytest.mark.parametrize("suffix", [".ndjson", ".jsonl.gz"])
def test_ndjson_arrives_with_an_inferred_schema(load, collection, tmp_path, suffix):
    rows = typed_rows()
    text = lines_of(rows[:200]) + "\n  \n" + lines_of(rows[200:]).rstrip("\n")
    raw(text.encode())(tmp_path / f"rows{suffix}")
    load(tmp_path / f"rows{suffix}", "--collection", collection.name, "--part-bytes", "5K")
    schema = collection.describe()["schema"]
    assert (schema["key"], schema["vector"]["dim"]) == ("string", DIM)
    types = {"price": "float64", "name": "string", "tags": "string[]", "sold": "bool"}
    assert schema["features"] == types
    fetched = collection.fetch([row["key"] for row in rows], with_vectors=True)
    for name in types:
        assert fetched["features"][name] == [row[name] for row in rows]
    for got, row in zip(fetched["vectors"], rows, strict=True):
        assert (got is None) == (row["vector"] is None)
        assert got is None or np.float32(got).tobytes() == np.float32(row["vector"]).tobytes()


def test_a_collection_is_created_as_asked(load, collection, tmp_path):
    npy(FLOATS)(tmp_path / "a.npy")
    args = ("--metric", "ip", "--index", "hnsw", "--m", 8, "--ef-construction", 50, "--wait")
    out = load(tmp_path / "a.npy", "--collection", collection.name, *args)
    schema = collection.describe()["schema"]
    assert schema["vector"]["metric"] == "ip"
    wanted = {"kind": "hnsw", "m": 8, "ef_construction": 50}
    assert wanted.items() <= schema["index"].items()
    assert f"over {collection.index()['indexed_rows']} vectors" in out


def test_the_files_name_names_the_collection(load, client, tmp_path):
    npy(FLOATS)(tmp_path / "3d-shapes v2.npy")
    out = load(tmp_path / "3d-shapes v2.npy")
    made = Collection(client, "c_3d-shapes_v2")
    assert made.describe()["rows"] == len(FLOATS) and made.name in out
    client.delete(made.path)


# ---- again ----


def test_a_second_run_sends_nothing_and_a_changed_file_everything(load, collection, tmp_path):
    path = tmp_path / "a.npy"
    npy(FLOATS)(path)
    args = (path, "--collection", collection.name, "--part-bytes", "4K")
    load(*args)
    version = collection.describe()["version"]
    assert "everything is loaded already" in load(*args)
    assert "everything is loaded already" in load(path, "--collection", collection.name)
    assert collection.describe()["version"] == version
    changed = FLOATS.copy()
    changed[100] += 1  # no probed row, and the size stays
    npy(changed)(path)
    load(*args)
    assert stored(collection, range(len(changed))).tobytes() == changed.tobytes()
    assert collection.describe()["rows"] == len(changed)
    load(*args, "--again")
    assert collection.describe()["version"] == version * 3


def test_what_the_server_lost_is_sent_again(load, client, collection, tmp_path):
    path = tmp_path / "a.npy"
    npy(FLOATS)(path)
    args = (path, "--collection", collection.name, "--part-bytes", "4K")
    load(*args)
    collection.delete_rows([0, 85])  # the first and the last row of the first two parts
    assert "going on" in load(*args)
    assert stored(collection, range(len(FLOATS))).tobytes() == FLOATS.tobytes()
    client.delete(collection.path)
    load(*args)
    assert collection.describe()["rows"] == len(FLOATS)


ROWS, PART_ROWS = 40_000, 200
MANY = vectors(ROWS, dim=8, seed=3)
PARTS = ROWS // PART_ROWS


def _takes_ctrl_c():
    """A shell's background jobs, these tests perhaps, ignore it and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Running:
    """A load of many parts that is under way."""

    def __init__(self, client, tmp_path, name, *more):
        self.state = tmp_path / "load.state"
        path = tmp_path / "many.npy"
        if not path.exists():
            np.save(path, MANY)
        self.args = (path, "--collection", name, "--part-bytes", PART_ROWS * 32)
        self.args += ("--state", self.state, *more)
        self.process = subprocess.Popen(
            command(client, *self.args),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=_takes_ctrl_c,
        )

    def wait_parts(self, n):
        """Until n parts are acknowledged: the middle of the load."""
        deadline = time.monotonic() + 60
        while not (self.state.exists() and self.state.read_text().count("[") >= n):
            assert self.process.poll() is None, self.process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def end(self):
        out, _ = self.process.communicate(timeout=60)
        assert "Traceback" not in out, out
        return self.process.returncode, out

    def noted(self):
        return self.state.read_text().count("[")


def assert_exactly_the_rows(c):
    assert c.describe()["rows"] == ROWS
    picked = range(0, ROWS, 37)
    assert stored(c, picked).tobytes() == MANY[::37].tobytes()


@pytest.mark.parametrize("mode", ["upsert", "append"])
def test_a_killed_load_goes_on(load, client, collection, tmp_path, mode):
    running = Running(client, tmp_path, collection.name, "--mode", mode)
    running.wait_parts(PARTS // 4)
    running.process.kill()
    running.end()
    noted = running.noted()
    assert 0 < noted < PARTS
    out = load(*running.args)
    assert f"in {PARTS - noted} commits" in out
    assert_exactly_the_rows(collection)


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(load, client, collection, tmp_path):
    running = Running(client, tmp_path, collection.name)
    running.wait_parts(5)
    running.process.send_signal(signal.SIGINT)
    status, out = running.end()
    assert status == 130 and "the same command goes on" in out
    load(*running.args)
    assert_exactly_the_rows(collection)


def test_a_load_outlives_a_restart_of_the_server(start_daemon, tmp_path):
    daemon = start_daemon()
    running = Running(daemon.client, tmp_path, "many", "--patience", 60)
    running.wait_parts(PARTS // 4)
    daemon.listen = f"127.0.0.1:{daemon.client.port}"
    daemon.restart()
    status, out = running.end()
    assert status == 0, out
    assert_exactly_the_rows(Collection(daemon.client, "many"))


def test_after_a_crash_of_the_server_a_second_run_goes_on(load, start_daemon, tmp_path):
    daemon = start_daemon()
    daemon.listen = f"127.0.0.1:{daemon.client.port}"
    running = Running(daemon.client, tmp_path, "many", "--patience", 0)
    running.wait_parts(PARTS // 4)
    daemon.kill()
    status, out = running.end()
    assert status == 1 and "no answer from" in out
    daemon.start()
    out = load(*running.args, on=daemon.client)
    assert "going on" in out
    assert_exactly_the_rows(Collection(daemon.client, "many"))


def test_two_loads_of_one_file_exclude_each_other(load, client, collection, tmp_path):
    running = Running(client, tmp_path, collection.name)
    running.wait_parts(1)
    running.process.send_signal(19)  # SIGSTOP: it holds the lock and does nothing
    try:
        assert "another load" in load(*running.args, status=1)
    finally:
        running.process.send_signal(18)
    assert running.end()[0] == 0
    assert_exactly_the_rows(collection)


class Busy:
    """Stands before a daemon and answers the first few bodies with 429 or 503."""

    def __init__(self, client, refusals):
        refused = itertools.count()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.command == "POST" and (n := next(refused)) < refusals:
                    self.answer(429 if n % 2 else 503, b"{}", {"Retry-After": "0"})
                    return
                kept = {"Content-Type": self.headers.get("Content-Type", "")}
                there = client.request(self.command, self.path, body or None, headers=kept)
                self.answer(there.status, there.body, {})

            def answer(self, status, body, headers):
                self.send_response(status)
                for name, value in {**headers, "Content-Length": len(body)}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

            do_GET = do_PUT = do_POST = forward

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def test_a_busy_server_is_asked_again(load, client, collection, tmp_path):
    npy(FLOATS)(tmp_path / "a.npy")
    args = (tmp_path / "a.npy", "--collection", collection.name, "--part-bytes", "4K")
    with Busy(client, 5) as busy:
        out = load(*args, on=busy)
    assert "trying again" in out and "in 4 commits" in out
    assert collection.describe()["version"] == 4
    assert stored(collection, range(len(FLOATS))).tobytes() == FLOATS.tobytes()
    with Busy(client, 10**9) as busy:
        out = load(*args, "--again", "--patience", 0.1, on=busy, status=1)
    assert "the daemon answered 503" in out or "the daemon answered 429" in out


def test_patience_waits_as_long_as_it_is_told():
    refusals = [
        Refused(429, "busy", retry_after_s=7),
        Refused(503, "starting"),
        Unreachable("gone"),
    ]
    slept = []

    def action():
        if refusals:
            raise refusals.pop(0)
        return "done"

    assert Patience(60, sleep=slept.append).call(action) == "done"
    assert slept[0] == 7
    assert 0 < slept[1] < slept[2] < 7


# ---- wrong files ----


def broken(data, name="a.fvecs"):
    return name, raw(data)


WRONG = {
    "truncated fvecs": (*broken(with_lengths(FLOATS, "f")[:-5]), "truncated"),
    "fvecs of mixed lengths": (
        *broken(
            with_lengths(FLOATS[:9], "f")
            + struct.pack("<i", 11)
            + with_lengths(FLOATS[:20], "f")[4:]
        ),
        "row 9 says 11 dimensions",
    ),
    "no fvecs": (*broken(b"\xff" * 64), "begins with -1"),
    "truncated fbin": (*broken(with_head(FLOATS)[:-1], "a.fbin"), "promises 300 rows of 12"),
    "a huge fbin": (*broken(b"\xff" * 64, "a.fbin"), "promises 4,294,967,295 rows"),
    "headless fbin": (*broken(b"\1\0\0\0", "a.fbin"), "can't hold"),
    "empty": (*broken(b"", "a.fbin"), "is empty"),
    "no npy": (*broken(b"PK\3\4" + bytes(99), "a.npy"), "no npy file"),
    "npy of integers": ("a.npy", npy(np.zeros((4, 3), np.int64)), "holds int64"),
    "npy of one dimension": ("a.npy", npy(np.zeros(4, np.float32)), "shape is (4,)"),
    "npy of objects": ("a.npy", npy(np.array([["a", None]])), "holds object"),
    "npy without rows": ("a.npy", npy(np.zeros((0, 4), np.float32)), "no rows"),
    "truncated gz": (
        "a.fbin.gz",
        lambda path: path.write_bytes(gzip.compress(with_head(FLOATS))[:-9]),
        "no whole .gz",
    ),
    "no gz": ("a.fbin.gz", lambda path: path.write_bytes(b"abcd" * 9), "no whole .gz"),
    "no hdf5": (*broken(b"abcd" * 9, "a.hdf5"), "no HDF5 file"),
    "neighbours": (*broken(with_head(np.zeros((4, 4), np.int32)), "a.ibin"), "--truth"),
    "unknown suffix": (*broken(b"abcd", "a.parquet"), ".h5, .ndjson, .jsonl, or in one"),
    "no JSON": (*broken(b'{"key":1}\n{"key"\n', "a.ndjson"), "line 2 is no JSON"),
    "no rows of JSON": (*broken(b"\n \n", "a.ndjson"), "no rows"),
    "JSON of no type": (*broken(b'{"key":1,"a":{}}\n', "a.ndjson"), "type of a is not clear"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_named_and_loads_nothing(load, client, collection, tmp_path, what):
    name, write, sentence = WRONG[what]
    write(tmp_path / name)
    out = load(tmp_path / name, "--collection", collection.name, status=1)
    assert f"load: {tmp_path / name}" in out and sentence in out
    there = client.get(collection.path)
    assert there.status == 404 or there.json()["rows"] == 0


def test_a_missing_file_and_an_absent_server_are_sentences(load, tmp_path):
    missing = load(tmp_path / "none.npy", status=1)
    assert missing == f"load: {tmp_path / 'none.npy'}: there is no such file\n"
    npy(FLOATS)(tmp_path / "a.npy")
    nowhere = ("--url", "http://127.0.0.1:1", "--patience", 0)
    assert "no answer from" in load(tmp_path / "a.npy", *nowhere, status=1)
    assert "is no address" in load(tmp_path / "a.npy", "--url", "ftp://x", status=1)


def test_a_host_that_is_not_found_is_not_waited_for(load, tmp_path):
    npy(FLOATS)(tmp_path / "a.npy")
    out = load(tmp_path / "a.npy", "--url", "http://nowhere.invalid:1", status=1)
    assert "nowhere.invalid is not found" in out and "trying again" not in out


@pytest.mark.parametrize("script", ["load.py", "recall_latency.py"])
def test_help_needs_no_numpy(tmp_path, script):
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError('numpy')\n")
    path = SCRIPT.with_name(script)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def run(*args):
        return subprocess.run(
            [sys.executable, str(path), *args], env=environment, capture_output=True, text=True
        )

    assert run("--help").returncode == 0
    assert run("--bogus").returncode == 2


def test_loading_without_numpy_says_how_to_get_it(tmp_path):
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError('numpy')\n")
    npy(FLOATS)(tmp_path / "a.npy")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "a.npy")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("numpy is missing") and ended.stderr.count("\n") == 1


def test_a_refused_row_is_named_as_it_is_numbered_in_the_file(load, collection, tmp_path):
    rows = FLOATS.copy()
    rows[217, 3] = np.nan
    npy(rows)(tmp_path / "a.npy")
    args = ("--collection", collection.name, "--part-bytes", "4K", "--connections", 1)
    assert "row 217 of the file" in load(tmp_path / "a.npy", *args, status=1)
    assert collection.describe()["rows"] == 170  # the two parts before it
    rows[217, 3] = 0
    npy(rows)(tmp_path / "a.npy")
    load(tmp_path / "a.npy", *args)
    assert stored(collection, range(len(rows))).tobytes() == rows.tobytes()


def test_a_refused_line_is_named(load, collection, tmp_path):
    rows = [{"key": i, "vector": [1.0, float(i)]} for i in range(100)]
    rows[60]["vector"] = [1.0]
    (tmp_path / "a.ndjson").write_text("\n" + lines_of(rows))
    args = ("--collection", collection.name, "--part-bytes", "1K", "--connections", 1)
    assert "line 62:" in load(tmp_path / "a.ndjson", *args, status=1)


def test_a_file_that_does_not_fit_the_collection(load, collection, tmp_path):
    npy(FLOATS)(tmp_path / "a.npy")
    args = (tmp_path / "a.npy", "--collection", collection.name)
    collection.create(key="int64", vector={"dim": DIM + 1, "metric": "l2"})
    assert "has vectors of 13" in load(*args, status=1)
    collection.client.delete(collection.path)
    collection.create(key="string", vector={"dim": DIM, "metric": "l2"})
    assert "has string keys" in load(*args, status=1)
    collection.client.delete(collection.path)
    collection.create(key="int64", vector={"dim": DIM, "metric": "l2"})
    assert "exists with metric l2" in load(*args, "--metric", "ip", status=1)


def test_append_names_a_key_that_exists(load, collection, tmp_path):
    collection.create(key="int64", vector={"dim": DIM, "metric": "l2"})
    collection.load_vectors(FLOATS[:1] + 1, first_key=5)
    npy(FLOATS)(tmp_path / "a.npy")
    out = load(tmp_path / "a.npy", "--collection", collection.name, "--mode", "append", status=1)
    assert "row 5 of the file" in out
    assert collection.describe()["rows"] == 1


def test_options_that_do_not_fit_the_file_are_a_usage_error(load, tmp_path, capsys):
    (tmp_path / "schema.json").write_text("{}")
    for name, *args in (
        ("a.ndjson", "--rows", 3),
        ("a.ndjson", "--first-key", 3),
        ("a.npy", "--schema", tmp_path / "schema.json"),
        ("a.npy", "--part-bytes", "many"),
        ("a.npy", "--connections", 0),
        ("a.npy", "--m", 4, "--index", "ivf"),
        ("a.npy", "--ef-construction", 40, "--index", "flat"),
        ("a.npy", "--nlist", 4, "--index", "hnsw"),
    ):
        load(tmp_path / name, *args, status=2)
        assert args[0] in capsys.readouterr().err


# ---- tokens ----

WRITE, READ = "write-" + "w" * 32, "read-" + "r" * 32


def test_tokens_come_from_the_environment_a_file_or_an_option(
    load, start_daemon, tmp_path, monkeypatch
):
    daemon = start_daemon(env={"LOADSTONE_WRITE_TOKEN": WRITE, "LOADSTONE_READ_TOKEN": READ})
    for name in ("LOADSTONE_WRITE_TOKEN", "LOADSTONE_READ_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    npy(FLOATS)(tmp_path / "a.npy")
    (tmp_path / "token").write_text(f"{WRITE}\n{READ}\n")
    (tmp_path / "read").write_text(f"{READ}\n")

    def run(*args, status=0):
        return load(tmp_path / "a.npy", *args, on=daemon.client, status=status)

    assert "the daemon answered 401" in run(status=1)
    assert "the daemon answered 403" in run("--token-file", tmp_path / "read", status=1)
    assert "300 rows in 1 commit" in run("--token-file", tmp_path / "token")
    assert "300 rows in 1 commit" in run("--again", "--token", WRITE)
    monkeypatch.setenv("LOADSTONE_WRITE_TOKEN", WRITE)
    assert "300 rows in 1 commit" in run("--again")
    recall_latency.main(
        ["a", "--url", f"http://127.0.0.1:{daemon.client.port}", "--token-file"]
        + [str(tmp_path / "read"), "--rounds", "1", "--concurrency", "2"]
    )
