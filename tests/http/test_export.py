"""Exports: every format holds what was loaded and is read by the library that owns it; the bytes and
the ETag never change; conditional requests and ranges; slow, gone and refused clients."""

import csv
import http.client
import io
import json
import socket
import threading
import time

import numpy as np
import pandas
import pytest

from client import NDJSON, Collection, RawExchange, expect, problem, raw, request_head
from daemon import MEMORY_ALLOWANCE

FEATURES = {
    "flag": "bool",
    "small": "int32",
    "big": "int64",
    "f": "float32",
    "d": "float64",
    "s": "string",
    "blob": "bytes",
    "at": "timestamp",
    "floats": "float32[]",
    "ids": "int64[]",
    "tags": "string[]",
}
ROWS = [
    {
        "key": "a",
        "vector": [1.5, -2, 0.1],
        "flag": True,
        "small": -7,
        "big": 2**62,
        "f": 0.1,
        "d": 1e300,
        "s": 'comma, "quote"\r\nline',
        "blob": "AAEC/w==",
        "at": "2024-05-01T12:00:00.25Z",
        "floats": [0.5, "NaN", "-Infinity"],
        "ids": [1, -(2**60)],
        "tags": ["x", "", 'q"q', "a,b"],
    },
    {"key": "b,\"c\"", "vector": None, **{name: None for name in FEATURES}},
    {
        "key": "ünï",
        "vector": [0, 1, 2],
        "flag": False,
        "small": 0,
        "big": 0,
        "f": "NaN",
        "d": "Infinity",
        "s": "",
        "blob": "",
        "at": "1969-12-31T23:59:59Z",
        "floats": [],
        "ids": [],
        "tags": [],
    },
    {"key": " blank ", "vector": [9, 9, 9], **{n: None for n in FEATURES}, "s": "null"},
]

WIDE = {"vector": {"dim": 64, "metric": "l2"}, "index": {"kind": "flat"}}


@pytest.fixture
def every_type(collection):
    collection.create(key="string", vector={"dim": 3, "metric": "l2"}, features=FEATURES)
    collection.load(ROWS)
    return collection


@pytest.fixture
def large(collection):
    """About 50 MB as NDJSON: more than sockets and buffers hold."""
    collection.create(key="int64", **WIDE)
    rng = np.random.default_rng(5)
    collection.load_vectors(rng.standard_normal((70000, 64)).astype(np.float32))
    return collection


def lines(body):
    return [json.loads(line) for line in body.splitlines()]


# ---- formats ----


def test_ndjson_holds_every_column_of_every_row_in_order(every_type):
    got = lines(every_type.export(1, "ndjson"))
    assert got == ROWS
    assert [list(row) for row in got] == [["key", "vector", *FEATURES]] * len(ROWS)


def test_ndjson_can_be_loaded_again(every_type, client, request):
    body = every_type.export(1, "ndjson")
    other = Collection(client, every_type.name + "_again")
    other.create(key="string", vector={"dim": 3, "metric": "l2"}, features=FEATURES)
    other.load(body, NDJSON)
    assert other.export(1, "ndjson") == body
    assert other.version(1)["digest"] == every_type.version(1)["digest"]


def csv_cells(row):
    """What the csv module reads for a row: text, '' for null."""

    def text(name, value):
        if value is None:
            return ""
        if name == "vector" or isinstance(value, list):
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        if isinstance(value, bool):
            return "true" if value else "false"
        return value if isinstance(value, str) else None

    return {name: text(name, value) for name, value in row.items()}


def test_the_csv_module_reads_csv(every_type):
    body = every_type.export(1, "csv").decode()
    got = list(csv.DictReader(io.StringIO(body, newline="")))
    assert list(got[0]) == ["key", "vector", *FEATURES]
    for row, read in zip(ROWS, got, strict=True):
        for name, wanted in csv_cells(row).items():
            if name == "vector" and wanted:
                assert [np.float32(x) for x in json.loads(read[name])] == [
                    np.float32(x) for x in row["vector"]
                ]
            elif wanted is None:
                assert float(read[name]) == pytest.approx(float(row[name]), rel=1e-7)
            else:
                assert read[name] == wanted, (name, read[name])
    assert body.count("\r\n") == len(ROWS) + 2  # the header, and the one inside a cell


def test_csv_tells_null_from_the_empty_string(every_type):
    body = every_type.export(1, "csv", features="s", with_vectors="false").decode()
    assert body.split("\r\n")[2:] == ['"b,""c""",', 'ünï,""', " blank ,null", ""] or (
        body.endswith('"b,""c""",\r\nünï,""\r\n blank ,null\r\n')
    )


def test_pandas_reads_csv(every_type):
    table = pandas.read_csv(
        io.BytesIO(every_type.export(1, "csv")), keep_default_na=False, na_values=["", "NaN"]
    )
    assert list(table.columns) == ["key", "vector", *FEATURES]
    assert list(table["key"]) == [row["key"] for row in ROWS]
    assert table["big"].dropna().astype("int64").tolist() == [2**62, 0]
    assert table["f"].isna().tolist() == [False, True, True, True]
    assert table["f"][0] == pytest.approx(0.1)
    assert json.loads(table["tags"][0]) == ROWS[0]["tags"]


def test_numpy_reads_npy(every_type):
    got = np.load(io.BytesIO(every_type.export(1, "npy")))
    wanted = np.array([r["vector"] for r in ROWS if r["vector"]], np.float32)
    assert got.dtype == np.dtype("<f4") and np.array_equal(got, wanted)


def test_numpy_reads_an_empty_npy(collection):
    collection.create(key="int64", vector={"dim": 5, "metric": "l2"})
    collection.load([{"key": 1}])
    assert np.load(io.BytesIO(collection.export(1, "npy"))).shape == (0, 5)


def test_vectors_come_back_bit_for_bit(large):
    rng = np.random.default_rng(5)
    loaded = rng.standard_normal((70000, 64)).astype(np.float32)
    assert np.array_equal(np.load(io.BytesIO(large.export(1, "npy"))), loaded)
    first = json.loads(large.export(1, "ndjson").split(b"\n", 1)[0])
    assert np.array_equal(np.array(first["vector"], np.float32), loaded[0])


def test_a_collection_without_vectors_has_no_vector_column(collection):
    collection.create(key="int64", features={"n": "int32"})
    collection.load([{"key": 1, "n": 2}])
    assert collection.export(1, "csv") == b"key,n\r\n1,2\r\n"
    assert collection.export(1, "ndjson") == b'{"key":1,"n":2}\n'
    problem(collection.send_export(1, "npy"), 422, "no vectors")


# ---- what is shown ----


def test_a_projection_has_the_features_named_in_their_order(every_type):
    got = lines(every_type.export(1, "ndjson", features="s,flag"))
    assert [list(row) for row in got] == [["key", "vector", "s", "flag"]] * len(ROWS)
    got = lines(every_type.export(1, "ndjson", features="", with_vectors="false"))
    assert got == [{"key": row["key"]} for row in ROWS]
    problem(every_type.send_export(1, "csv", features="nope"), 422, "nope")


def test_a_filter_keeps_the_rows_that_match(every_type):
    got = lines(every_type.export(1, "ndjson", filter="small is not null"))
    assert [row["key"] for row in got] == ["a", "ünï"]
    got = np.load(io.BytesIO(every_type.export(1, "npy", filter="s = '' or s = 'null'")))
    assert got.tolist() == [[0, 1, 2], [9, 9, 9]]
    problem(every_type.send_export(1, "csv", filter="small ="), 400, "filter")
    problem(every_type.send_export(1, "csv", filter="nope = 1"), 422, "nope")


def test_npy_takes_nothing_that_it_cannot_show(every_type):
    problem(every_type.send_export(1, "npy", features="s"), 400, field="features")
    problem(every_type.send_export(1, "npy", with_vectors="false"), 400, field="with_vectors")


def test_a_format_that_is_not_there_names_those_that_are(every_type):
    for what in ("arrow", "tfrecord", "parquet", "NPY"):
        problem(every_type.send_export(1, what), 404, what, "ndjson, csv, npy")


def test_a_version_that_is_not_there(every_type, collection):
    problem(every_type.send_export(2, "csv"), 404, "2")
    problem(every_type.send_export("one", "csv"), 400, "one")
    assert every_type.send_export(0, "ndjson").body == b""
    problem(every_type.client.get("/v1/collections/nope/versions/1/export.csv"), 404, "nope")


# ---- the same every time ----

WHATS = [("ndjson", {}), ("csv", {"features": "n"}), ("npy", {}), ("ndjson", {"filter": "n < 500"})]


def fingerprints(c, number):
    answers = [c.send_export(number, what, **query) for what, query in WHATS]
    assert all(a.status == 200 for a in answers)
    return [(a.headers["ETag"], a.body) for a in answers]


def test_bytes_and_etag_outlast_loads_patches_deletions_and_restarts(own_daemon, request):
    c = Collection(own_daemon.client, "c")
    c.create(key="int64", vector={"dim": 2, "metric": "l2"}, features={"n": "int32"})
    for n in range(5):  # seqs of several commits, and rows that later ones replace
        c.load([{"key": k, "vector": [k, n], "n": k * n} for k in range(n * 100, 400 + n * 100)])
    before = fingerprints(c, 3), fingerprints(c, 5)
    c.load([{"key": k, "n": -1} for k in range(300)])
    c.delete_rows(list(range(500, 700)))
    c.patch(features={"later": "string"})
    c.load([{"key": 1, "later": "x"}])
    assert (fingerprints(c, 3), fingerprints(c, 5)) == before
    assert b"later" in c.export(8, "csv")
    own_daemon.stop()
    own_daemon.start()
    c = c.on(own_daemon.client)
    assert (fingerprints(c, 3), fingerprints(c, 5)) == before
    own_daemon.restart()
    c = c.on(own_daemon.client)
    assert (fingerprints(c, 3), fingerprints(c, 5)) == before


BULK = 17000  # more than one commit may leave in memory: a segment file


def test_a_compaction_changes_no_export(own_daemon):
    c = Collection(own_daemon.client, "c")
    c.create(key="int64", vector={"dim": 2, "metric": "l2"}, features={"n": "int32"})
    for n in range(5):
        first = n * 5000
        rows = [{"key": k, "vector": [k, n], "n": n} for k in range(first, first + BULK)]
        c.load(rows, NDJSON)
        c.load([{"key": first + 3, "n": -n}])
    c.delete_rows(list(range(8000, 12000)))
    before = [fingerprints(c, v) for v in range(1, 12)]
    done = c.compact()
    assert done["segments_after"] < max(done["segments_before"], 2), done
    assert [fingerprints(c, v) for v in range(1, 12)] == before
    own_daemon.restart()
    c = c.on(own_daemon.client)
    assert [fingerprints(c, v) for v in range(1, 12)] == before
    c.load([{"key": 1, "n": 9}])
    assert [fingerprints(c, v) for v in range(1, 12)] == before


def test_a_restore_has_the_etag_of_what_it_brings_back(collection):
    collection.create(key="int64", vector={"dim": 2, "metric": "l2"}, features={"n": "int32"})
    collection.load([{"key": k, "vector": [k, 1], "n": k} for k in range(50)])
    collection.load([{"key": k, "vector": [k, 2], "n": -k} for k in range(25, 75)])
    collection.restore(version=1)
    assert fingerprints(collection, 3) == fingerprints(collection, 1)


def test_a_version_being_exported_outlives_vacuum(start_daemon):
    daemon = start_daemon()
    c = Collection(daemon.client, "c").create(key="int64", **WIDE)
    c.load_vectors(np.random.default_rng(6).standard_normal((70000, 64)).astype(np.float32))
    whole = c.export(1, "ndjson")
    s, got = start_reading(c)
    for n in range(3):
        c.load_vectors(np.full((20000, 64), n, np.float32), first_key=n * 20000)
    c.compact()
    c.vacuum(versions=1)
    assert c.send_export(1, "npy", method="HEAD").status == 200, "it is pinned"
    while not got.endswith(b"0\r\n\r\n"):
        got += s.recv(1 << 20)
    s.close()
    assert b"".join(chunks(got[got.index(b"\r\n\r\n") + 4 :])) == whole
    wait_exports(daemon.client, 0)
    c.vacuum(versions=1)
    problem(c.send_export(1, "ndjson"), 410, "1")


def test_the_newest_version_by_number_has_the_columns_of_its_commit(collection):
    collection.create(key="int64", features={"n": "int32"})
    collection.load([{"key": 1, "n": 2}])
    before = collection.send_export(1, "csv")
    collection.patch(features={"later": "string"})
    after = collection.send_export(1, "csv")
    assert (after.body, after.headers["ETag"]) == (before.body, before.headers["ETag"])
    assert list(collection.row(1)["features"]) == ["n", "later"]


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match", "If-Range", "Range"])
def test_a_conditional_header_comes_once(every_type, name):
    path = f"{every_type.path}/versions/1/export.npy"
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    answer = raw(every_type.client, f'{head}{name}: "a"\r\n{name}: "b"\r\n\r\n'.encode())
    problem(answer, 400, name, "more than once")


def test_etags_differ_with_whatever_the_bytes_depend_on(every_type):
    queries = [
        {},
        {"features": "s"},
        {"features": "s,flag"},
        {"features": "flag,s"},
        {"with_vectors": "false"},
        {"filter": "small > 1"},
        {"filter": "small > 2"},
    ]
    tags = [every_type.send_export(1, "ndjson", **q).headers["ETag"] for q in queries]
    tags += [every_type.send_export(1, what).headers["ETag"] for what in ("csv", "npy")]
    assert len(set(tags)) == len(tags)
    spelled = every_type.send_export(1, "ndjson", filter="( SMALL>1 )".lower()).headers["ETag"]
    assert spelled == tags[5], "one filter, two spellings"
    every_type.load([{"key": "z"}])
    assert every_type.send_export(2, "ndjson").headers["ETag"] not in tags


# ---- conditional requests and ranges ----


def test_what_the_client_has_is_not_sent_again(every_type):
    for what in ("ndjson", "npy"):
        etag = every_type.send_export(1, what).headers["ETag"]
        assert etag.startswith('"') and etag.endswith('"')
        for have in (etag, f'"x", {etag}', f"W/{etag}", "*"):
            answer = every_type.send_export(1, what, headers={"If-None-Match": have})
            assert (answer.status, answer.body) == (304, b"")
            assert answer.headers["ETag"] == etag
            assert answer.headers["Loadstone-Version"] == "1"
        answer = every_type.send_export(1, what, headers={"If-None-Match": '"x"'})
        assert answer.status == 200
        problem(every_type.send_export(1, what, headers={"If-Match": '"x"'}), 412)
        problem(every_type.send_export(1, what, headers={"If-Match": f"W/{etag}"}), 412)
        assert every_type.send_export(1, what, headers={"If-Match": etag}).status == 200


def test_head_has_the_headers_of_get(every_type):
    for what in ("ndjson", "csv", "npy"):
        get = every_type.send_export(1, what)
        head = every_type.send_export(1, what, method="HEAD")
        # without a length the answer to HEAD has no chunks either, and the connection closes
        drop = {"Date", "Connection", "Transfer-Encoding"}
        assert head.status == 200 and head.body == b""
        assert {k: v for k, v in head.headers.items() if k not in drop} == {
            k: v for k, v in get.headers.items() if k not in drop
        }
    assert get.headers["Content-Length"] == str(len(get.body))
    assert get.headers["Content-Disposition"].endswith(f'{every_type.name}-v1.npy"')


def test_nothing_follows_the_head_that_was_asked_for(every_type):
    for what in ("ndjson", "npy"):
        path = f"{every_type.path}/versions/1/export.{what}"
        with RawExchange(every_type.client) as exchange:
            exchange.send(request_head("HEAD", path, Connection="close"))
            got = b""
            while piece := exchange.socket.recv(65536):
                got += piece
        assert got.startswith(b"HTTP/1.1 200") and got.index(b"\r\n\r\n") + 4 == len(got)


def test_npy_is_sent_in_parts(large):
    whole = large.export(1, "npy")
    n = len(whole)
    for asked, part in [
        ("0-9", whole[:10]),
        ("100-200", whole[100:201]),
        ("128-128", whole[128:129]),
        ("1000000-", whole[1000000:]),
        ("-7", whole[-7:]),
        (f"-{n + 5}", whole),
        (f"{n - 1}-{n + 100}", whole[-1:]),
    ]:
        answer = large.send_export(1, "npy", headers={"Range": f"bytes={asked}"})
        assert answer.status == 206 and answer.body == part, asked
        first = n - len(part) if asked.startswith("-") else int(asked.split("-")[0])
        wanted = f"bytes {first}-{first + len(part) - 1}/{n}"
        assert answer.headers["Content-Range"] == wanted
        assert answer.headers["Content-Length"] == str(len(part))


def test_ranges_that_cannot_be_met(large):
    whole = large.export(1, "npy")
    answer = large.send_export(1, "npy", headers={"Range": f"bytes={len(whole)}-"})
    problem(answer, 416, str(len(whole)))
    assert answer.headers["Content-Range"] == f"bytes */{len(whole)}"
    for asked in ("bytes=5-2", "bytes=1-2,5-6", "rows=1-2", "bytes=a-b", "bytes=-"):
        answer = large.send_export(1, "npy", headers={"Range": asked})
        assert (answer.status, answer.body) == (200, whole), asked
    assert large.send_export(1, "ndjson", headers={"Range": "bytes=0-9"}).status == 200


def test_a_part_of_something_else_is_not_sent(large):
    etag = large.send_export(1, "npy", method="HEAD").headers["ETag"]
    part = {"Range": "bytes=0-9"}
    same = large.send_export(1, "npy", headers={**part, "If-Range": etag})
    assert (same.status, len(same.body)) == (206, 10)
    for other in ('"x"', f"W/{etag}", "Tue, 24 Nov 2026 16:03:45 GMT"):
        answer = large.send_export(1, "npy", headers={**part, "If-Range": other})
        assert answer.status == 200 and len(answer.body) > 10


def test_a_filtered_npy_knows_its_length(every_type):
    answer = every_type.send_export(1, "npy", filter="small is null")
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert np.load(io.BytesIO(answer.body)).shape == (1, 3)


# ---- clients that are slow, gone, too many ----


def start_reading(c, what="ndjson", received=100_000):
    """An export that is not read on; sockets hold little."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    s.settimeout(30)
    s.connect((c.client.host, c.client.port))
    s.sendall(request_head("GET", f"{c.path}/versions/1/export.{what}"))
    got = b""
    while len(got) < received:
        got += s.recv(65536)
    return s, got


def exports_running(client):
    text = client.get("/metrics").body.decode()
    return int(float(text.split("\nloadstone_exports ")[1].split("\n")[0]))


def wait_exports(client, n):
    deadline = time.monotonic() + 20
    while exports_running(client) != n:
        assert time.monotonic() < deadline, exports_running(client)
        time.sleep(0.02)


def test_slow_clients_hold_buffers_and_no_worker(start_daemon):
    daemon = start_daemon()
    c = Collection(daemon.client, "c").create(key="int64", **WIDE)
    vectors = np.random.default_rng(1).standard_normal((70000, 64)).astype(np.float32)
    c.load_vectors(vectors)
    before = daemon.memory()
    slow = [start_reading(c)[0] for _ in range(40)]
    wait_exports(daemon.client, 40)
    assert daemon.memory() - before < 60 * 2**20 + MEMORY_ALLOWANCE
    assert np.load(io.BytesIO(c.export(1, "npy"))).shape == (70000, 64)  # others get through
    for s in slow:
        s.close()
    wait_exports(daemon.client, 0)
    assert daemon.alive()


def test_a_client_that_comes_back_to_reading_gets_it_all(large):
    whole = large.export(1, "ndjson")
    s, got = start_reading(large)
    time.sleep(1)
    while not got.endswith(b"0\r\n\r\n"):
        got += s.recv(1 << 20)
    body = got[got.index(b"\r\n\r\n") + 4 :]
    assert b"".join(chunks(body)) == whole
    s.close()


def chunks(body):
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if size == 0:
            return
        yield body[end + 2 : end + 2 + size]
        at = end + 2 + size + 2


def test_more_exports_than_allowed_are_told_to_wait(start_daemon):
    daemon = start_daemon(args=["--exports-max=2"])
    c = Collection(daemon.client, "c").create(key="int64", **WIDE)
    c.load_vectors(np.ones((70000, 64), np.float32))
    slow = [start_reading(c)[0] for _ in range(2)]
    problem(c.send_export(1, "csv"), 429, "exports_max")
    slow[0].close()
    wait_exports(daemon.client, 1)
    assert c.send_export(1, "csv", method="HEAD").status == 200
    slow[1].close()


def test_an_old_export_goes_on_while_its_rows_are_replaced(large):
    whole = large.export(1, "ndjson")
    s, got = start_reading(large)
    large.load_vectors(np.zeros((70000, 64), np.float32))
    large.delete_rows(list(range(1000)))
    while not got.endswith(b"0\r\n\r\n"):
        got += s.recv(1 << 20)
    assert b"".join(chunks(got[got.index(b"\r\n\r\n") + 4 :])) == whole
    s.close()


def test_many_at_once_are_all_whole(large):
    whole = {what: large.export(1, what) for what in ("ndjson", "csv", "npy")}
    failed = []

    def run(what):
        try:
            assert large.export(1, what) == whole[what]
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=run, args=(w,)) for w in list(whole) * 3]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed


def test_the_daemon_stops_during_an_export(start_daemon):
    daemon = start_daemon(args=["--shutdown-timeout-s=1"])
    c = Collection(daemon.client, "c").create(key="int64", **WIDE)
    c.load_vectors(np.ones((70000, 64), np.float32))
    s, got = start_reading(c)
    assert daemon.stop(timeout_s=20) == 0
    with_end = got
    try:
        while piece := s.recv(1 << 20):
            with_end += piece
    except ConnectionError:
        pass
    assert not with_end.endswith(b"0\r\n\r\n"), "cut off, and looks whole"
    s.close()


# ---- damage ----


def damage(daemon, share):
    """Flips a byte in the largest segment file, so far into its data."""
    files = sorted(daemon.data.glob("*/segments/*.seg"), key=lambda p: p.stat().st_size)
    with open(files[-1], "r+b") as f:
        at = 65536 + int((files[-1].stat().st_size - 131072) * share)
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 0x10]))


@pytest.mark.parametrize("what", ["ndjson", "csv", "npy"])
def test_a_damaged_segment_never_gives_a_whole_export(start_daemon, what):
    daemon = start_daemon()
    c = Collection(daemon.client, "c").create(key="int64", **WIDE)
    c.load_vectors(np.random.default_rng(2).standard_normal((70000, 64)).astype(np.float32))
    whole = c.export(1, what)
    damage(daemon, 0.5)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer = c.send_export(1, what)
        assert answer.status == 200
    daemon.wait_log("checksum")
    assert daemon.alive()
    wait_exports(daemon.client, 0)
    head = c.send_export(1, what, method="HEAD")
    assert head.status == 200 and len(whole) > 2**20


def test_damage_in_the_first_piece_is_an_error(start_daemon):
    daemon = start_daemon()
    c = Collection(daemon.client, "c").create(key="int64", **WIDE)
    c.load_vectors(np.random.default_rng(2).standard_normal((70000, 64)).astype(np.float32))
    damage(daemon, 0.001)
    problem(c.send_export(1, "csv"), 500, "checksum")


def test_http_1_0_clients_are_reset_when_it_fails(start_daemon):
    """They have neither chunks nor a length: an end of stream would look like the end."""
    daemon = start_daemon()
    c = Collection(daemon.client, "c").create(key="int64", **WIDE)
    c.load_vectors(np.random.default_rng(2).standard_normal((70000, 64)).astype(np.float32))
    damage(daemon, 0.5)
    with RawExchange(daemon.client) as exchange:
        exchange.send(f"GET {c.path}/versions/1/export.csv HTTP/1.0\r\n\r\n".encode())
        with pytest.raises(ConnectionError):
            while exchange.socket.recv(1 << 20):
                pass


# ---- history ----


def test_history_shows_rows_that_are_not_current_any_more(collection):
    collection.create(key="string", features={"at": "timestamp", "n": "int32"}, event_time="at")
    day = "2024-01-0{}T00:00:00Z".format
    collection.load([{"key": "a", "at": day(2), "n": 2}, {"key": "b", "at": day(1), "n": 1}])
    collection.load([{"key": "a", "at": day(3), "n": 3}])
    collection.load([{"key": "a", "at": day(1), "n": 1}])  # late
    current = lines(collection.export(3, "ndjson"))
    assert [(r["key"], r["n"]) for r in current] == [("b", 1), ("a", 3)]
    everything = lines(collection.export(3, "ndjson", history="true"))
    assert [(r["key"], r["n"]) for r in everything] == [("a", 2), ("b", 1), ("a", 3), ("a", 1)]
    etags = {
        collection.send_export(3, "ndjson", history=h).headers["ETag"] for h in ("true", "false")
    }
    assert len(etags) == 2
    assert [r["n"] for r in lines(collection.export(1, "ndjson", history="true"))] == [2, 1]


def test_without_an_event_time_history_is_what_is_current(every_type):
    every_type.load([{"key": "a", "small": 1}])
    body = every_type.export(2, "ndjson", history="true")
    assert body == every_type.export(2, "ndjson")


def test_an_export_needs_no_more_than_a_read_token(start_daemon):
    daemon = start_daemon(
        env={
            "LOADSTONE_WRITE_TOKEN": "write-token-0123456789",
            "LOADSTONE_READ_TOKEN": "read-token-0123456789",
        }
    )
    writer = daemon.client.with_token("write-token-0123456789")
    c = Collection(writer, "c").create(key="int64", features={"n": "int32"})
    c.load([{"key": 1, "n": 1}])
    reader = c.on(daemon.client.with_token("read-token-0123456789"))
    assert reader.export(1, "csv") == b"key,n\r\n1,1\r\n"
    assert reader.diff(**{"from": 0})["added"] == [1]
    problem(reader.client.put(f"{c.path}/tags/t", {"version": 1}), 403)
    problem(reader.client.post(f"{c.path}/restore", {"version": 1}), 403)
    assert c.on(daemon.client).send_export(1, "csv").status == 401
    expect(c.client.get(c.path))
