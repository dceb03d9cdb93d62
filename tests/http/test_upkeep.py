"""Compaction, vacuum, retention and purge, seen from outside: what is kept is equal to the bit
before and after, what is let go is 410, the disk gets its space back, and a kill at any moment
changes none of it."""

import json
import os
import random
import subprocess
import threading
import time

import numpy as np
import pytest

from client import NDJSON, Collection, expect, problem

DIM = 8
SCHEMA = {
    "vector": {"dim": DIM, "metric": "l2"},
    "features": {"name": "string", "n": "int64", "tags": "string[]"},
}
SETTINGS = ["--compaction=false"]  # where a test wants to see it happen at its own request


def row(key, n, mark=""):
    rng = np.random.default_rng(n * 1000003 + hash(key) % 1000)
    return {
        "key": key,
        "vector": [float(x) for x in rng.integers(-50, 50, DIM)],
        "name": f"name{n}{mark}",
        "n": n,
        "tags": ["a", str(n)] if n % 3 else None,
    }


def fill(c, versions=12, rows=400):
    """Versions that add, replace and delete; one is tagged."""
    for v in range(1, versions + 1):
        if v % 4 == 0:
            c.delete_rows([f"k{i}" for i in range(v * 10, v * 10 + 60)])
        else:
            first = v % 3 * rows // 2
            c.load([row(f"k{i}", v * 1000 + i) for i in range(first, first + rows)], NDJSON)
    c.tag("old", 2)
    return versions


def look(c, version):
    """What a version answers: its export and ETag, fetches, exact searches, its description."""
    keys = [f"k{i}" for i in range(0, 800, 37)]
    export = c.send_export(version, "ndjson")
    assert export.status == 200, export
    fetched = c.fetch(keys, version=version, with_vectors=True)
    queries = [[float(i)] * DIM for i in range(-20, 20, 7)]
    found = c.search(vectors=queries, k=7, exact=True, version=version, features=["n", "tags"])
    described = c.version(version)
    return (
        export.headers["ETag"],
        export.body,
        json.dumps(fetched, sort_keys=True),
        json.dumps(found["hits"]),
        [described[name] for name in ("digest", "live_rows", "live_vectors", "time", "mode")],
    )


def look_at_all(c, versions):
    return {v: look(c, v) for v in versions}


def compact(c):
    return expect(c.client.post(f"{c.path}/compact"))


def vacuum(c, **body):
    return expect(c.client.post(f"{c.path}/vacuum", body))


def purge(c, keys):
    return expect(c.client.post(f"{c.path}/purge", {"keys": keys}))


def disk(daemon, c):
    """Bytes of segment and index files."""
    total = 0
    for folder in ("segments", "index"):
        for entry in os.scandir(os.path.join(daemon.data, c.name, folder)):
            total += entry.stat().st_size
    return total


def own(start_daemon, args=SETTINGS, **kw):
    daemon = start_daemon(args=args, **kw)
    return daemon, Collection(daemon.client, "c")


def restart(daemon, c):
    daemon.restart()
    return c.on(daemon.client)


@pytest.mark.parametrize("key", ["string"])
def test_versions_are_the_same_before_and_after(start_daemon, key):
    daemon, c = own(start_daemon)
    c.create(key=key, **SCHEMA)
    newest = fill(c)
    before = look_at_all(c, range(1, newest + 1))
    c = restart(daemon, c)  # what was in the log is sealed in time
    assert look_at_all(c, before) == before
    compact(c)
    assert look_at_all(c, before) == before
    assert vacuum(c, versions=3, dry_run=True)["versions"] == newest - 4
    assert look_at_all(c, before) == before
    went = vacuum(c, versions=3)
    assert went["horizon"] == newest - 2 and went["versions"] == newest - 4
    for _ in range(2):
        for v in before:
            if v == 2 or v >= went["horizon"]:
                assert look(c, v) == before[v], f"version {v}"
            else:
                problem(c.send_export(v, "ndjson"), 410)
                problem(c.client.get(f"{c.path}/versions/{v}"), 410)
                problem(c.send_search(vector=[0.0] * DIM, version=v), 410)
        assert [v["version"] for v in c.versions()] == [*range(newest, newest - 3, -1), 2]
        c = restart(daemon, c)


def test_the_disk_gets_its_space_back(start_daemon):
    daemon, c = own(start_daemon)
    c.create(key="int64", vector={"dim": 64, "metric": "l2"}, index={"kind": "flat"})
    vectors = np.random.default_rng(1).standard_normal((20000, 64), dtype=np.float32)
    one = vectors.nbytes
    for v in range(4):
        c.load_vectors(vectors + v, first_key=v * 10000)
    full = disk(daemon, c)
    assert full > 4 * one
    before = look_rows(c, 4)
    result = compact(c)
    assert result["segments_after"] == 1 < result["segments_before"]
    assert result["bytes_after"] < result["bytes_before"]
    assert disk(daemon, c) > full  # the versions before need theirs
    would = vacuum(c, versions=1, dry_run=True)
    room = disk(daemon, c)
    went = vacuum(c, versions=1)
    assert {**would, "dry_run": False} == went
    assert room - disk(daemon, c) == went["bytes"] >= 4 * one
    assert look_rows(c, 4) == before
    c = restart(daemon, c)
    assert look_rows(c, 4) == before


def look_rows(c, version):
    response = c.send_export(version, "npy")
    assert response.status == 200, response
    return response.headers["ETag"], response.body


def test_retention_runs_by_itself(start_daemon):
    daemon, c = own(start_daemon, args=[])
    c.create(key="string", retention={"versions": 2, "hours": 1}, **SCHEMA)
    fill(c, versions=6)
    time.sleep(3)
    assert c.version(1)["version"] == 1  # the hour keeps it
    assert vacuum(c)["versions"] == 0


def test_segments_stay_few_however_many_loads(start_daemon):
    daemon, c = own(start_daemon, args=[])
    c.create(key="int64", vector={"dim": 8, "metric": "l2"}, index={"kind": "flat"})
    vectors = np.random.default_rng(2).standard_normal((17000, 8), dtype=np.float32)
    for v in range(10):
        c.load_vectors(vectors, first_key=v * 17000)
    segments = os.path.join(daemon.data, c.name, "segments")
    deadline = time.monotonic() + 60
    while len(os.listdir(segments)) >= 4:
        assert time.monotonic() < deadline, os.listdir(segments)
        vacuum(c, versions=1)
        time.sleep(0.2)
    assert c.count()["count"] == 170000


def test_what_is_merged_is_indexed_at_once(start_daemon):
    daemon, c = own(start_daemon)
    c.create(key="int64", vector={"dim": 4, "metric": "l2"}, index={"kind": "ivf", "nlist": 8})
    vectors = np.random.default_rng(2).standard_normal((17000, 4), dtype=np.float32)
    c.load_vectors(vectors)
    c.load_vectors(vectors, first_key=8500)
    assert compact(c)["segments_after"] == 1
    index = c.index()
    assert index["indexed_rows"] == index["rows"] == 25500
    c = restart(daemon, c)
    assert c.wait_indexed()[-1]["indexed_rows"] == 25500
    vacuum(c, versions=1)
    assert len(os.listdir(os.path.join(daemon.data, c.name, "index"))) == 1


def in_files(daemon, c, text):
    folder = os.path.join(daemon.data, c.name)
    found = subprocess.run(["grep", "-rqaF", "--", text, folder], check=False)
    assert found.returncode < 2
    return found.returncode == 0


@pytest.mark.parametrize("shape", ["loaded", "deleted", "twice", "tagged", "beside a file"])
def test_purge_of_every_row_that_is_not_in_a_file_yet(collection, shape):
    c = collection.create(key="int64", features={"s": "string"})
    if shape == "beside a file":
        c.load([{"key": k, "s": "file"} for k in range(100, 105000)], NDJSON)
        c.compact()
    c.load([{"key": k, "s": "secret-words"} for k in range(5)])
    if shape == "deleted":
        c.delete_rows(list(range(5)))
    if shape == "twice":
        c.load([{"key": k, "s": "secret-again"} for k in range(5)])
    if shape == "tagged":
        c.tag("old", 1)
        c.delete_rows([0, 1])
        c.load([{"key": 9, "s": "kept"}])
    before = c.describe()["rows"]
    assert purge(c, list(range(5)))["purged"] == 5
    gone = {"deleted": 0, "tagged": 3}.get(shape, 5)
    assert c.describe()["rows"] == before - gone
    for version in c.versions():
        assert b"secret" not in c.export(version["version"], "ndjson")
    assert purge(c, list(range(5)))["purged"] == 0
    c.load([{"key": 3, "s": "back"}])
    assert c.row(3)["features"] == {"s": "back"}


@pytest.mark.parametrize("hours", [2562047789, 2**32 - 1])
def test_vacuum_that_keeps_more_hours_than_there_were_removes_nothing(collection, hours):
    c = collection.create(key="int64", features={"s": "string"})
    for n in range(5):
        c.load([{"key": n, "s": "x"}])
    c.vacuum(versions=1, hours=hours)
    assert [v["version"] for v in c.versions()] == [5, 4, 3, 2, 1]


def test_purge_leaves_nothing_in_any_version_or_file(start_daemon):
    daemon, c = own(start_daemon, args=[])
    c.create(key="string", **SCHEMA)
    newest = fill(c)
    gone = ["k7", "k77", "k333", "secret-key"]
    c.load([row("secret-key", 5, "-to-forget"), row("k7", 6, "-to-forget")], NDJSON)
    c.load([row("other", 7)], NDJSON)
    c.tag("with-secret", newest + 1)
    newest += 2
    exports = {v: c.export(v, "ndjson") for v in range(1, newest + 1)}
    assert in_files(daemon, c, "-to-forget")
    assert purge(c, [*gone, "never-was"]) == {"version": newest + 1, "purged": 4}
    for _ in range(2):
        assert not in_files(daemon, c, "-to-forget")
        assert not in_files(daemon, c, "secret-key")
        for v, export in exports.items():
            left = [l for l in export.splitlines(True) if json.loads(l)["key"] not in gone]
            assert c.export(v, "ndjson") == b"".join(left), f"version {v}"
            assert c.version(v)["live_rows"] == len(left)
            assert not any(c.fetch(gone, version=v)["found"])
        assert not any(c.fetch(gone, tag="with-secret")["found"])
        c = restart(daemon, c)
    assert purge(c, gone) == {"version": newest + 2, "purged": 0}
    assert c.versions()[0]["mode"] == "purge"


def test_a_kill_in_the_middle_changes_nothing(start_daemon):
    """Compaction, vacuum of nothing that is looked at, and purges of keys that are not, killed at
    random moments."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    daemon, c = own(start_daemon)
    c.create(key="string", **SCHEMA)
    newest = fill(c)
    kept = [2, *range(newest - 2, newest + 1)]
    before = {v: look(c, v)[1:4] for v in kept}
    for round_ in range(6):
        c.load([row(f"extra{round_}-{i}", i) for i in range(2000)], NDJSON)

        def work(c=c.on(daemon.client), round_=round_):
            calls = [
                lambda: c.client.post(f"{c.path}/compact"),
                lambda: c.client.post(f"{c.path}/purge", {"keys": [f"extra{round_}-7"]}),
            ]
            rng.shuffle(calls)
            try:
                for call in calls:
                    call()
            except OSError:
                pass
            except Exception as e:  # the connection broke in the middle of an answer
                assert "http.client" in type(e).__module__, e

        worker = threading.Thread(target=work)
        worker.start()
        time.sleep(rng.uniform(0, 0.3))
        daemon.kill()
        worker.join()
        daemon.start()
        c = c.on(daemon.client)
        for v in kept:
            assert look(c, v)[1:4] == before[v], f"round {round_}, version {v}, seed {seed}"
    compact(c)
    for v in kept:
        assert look(c, v)[1:4] == before[v]


def test_bad_requests(collection):
    c = collection
    problem(c.client.post(f"{c.path}/compact"), 404)
    problem(c.client.post(f"{c.path}/vacuum"), 404)
    problem(c.client.post(f"{c.path}/purge", {"keys": []}), 404)
    c.create(key="string", **SCHEMA)
    c.load([row("a", 1)])
    state = c.state()
    problem(c.client.post(f"{c.path}/compact", {"now": True}), 400, "now")
    problem(c.client.post(f"{c.path}/vacuum", {"versions": 0}), 400, "versions", field="versions")
    problem(c.client.post(f"{c.path}/vacuum", {"days": 3}), 400, "days", "hours")
    problem(c.client.post(f"{c.path}/vacuum", {"dry_run": 1}), 422)
    problem(c.client.post(f"{c.path}/purge"), 400, "keys")
    problem(c.client.post(f"{c.path}/purge", {}), 400, "keys")
    problem(c.client.post(f"{c.path}/purge", {"keys": "a"}), 422)
    problem(c.client.post(f"{c.path}/purge", {"keys": ["a"], "filter": "n > 1"}), 400, "filter")
    assert c.state() == state
    assert vacuum(c, dry_run=True)["dry_run"] is True
    assert compact(c)["segments_before"] == 1  # rows in memory become one first
