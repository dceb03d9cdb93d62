"""Backups: hot ones under load are a prefix of history that holds all that was acknowledged; cold
ones start anywhere; what can't be copied is named."""

import random
import re
import shutil
import subprocess
import threading

import numpy as np
import pytest

from client import Collection, expect
from daemon import BINARY

DIM = 16
BULK = 17_000  # rows of a load that streams into a segment file
LARGE = 12_000  # rows of a large commit that goes into the log itself
LARGE_EVERY = 4


def back_up(daemon, dest, status=0):
    done = subprocess.run(
        [BINARY, "backup", daemon.data, dest], capture_output=True, text=True, env=daemon.env
    )
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done


@pytest.fixture
def daemon(start_daemon):
    return start_daemon()


@pytest.fixture
def restore(start_daemon):
    """Starts a daemon on a copy, which must be whole."""

    def start(data):
        checked = subprocess.run([BINARY, "check", data], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        copy = start_daemon(data=data)
        assert expect(copy.client.get("/readyz"))["faults"] == []
        assert "cut off" not in copy.log(), "a backup's log ends cleanly"
        return copy

    return start


def fill(daemon, index=None):
    c = Collection(daemon.client, "c")
    c.create(
        key="int64", vector={"dim": DIM, "metric": "l2"}, features={"n": "int64"}, index=index
    )
    c.load_vectors(np.random.default_rng(1).random((BULK, DIM), np.float32))
    c.load([{"key": -1, "n": 1}, {"key": 5, "n": 5}])
    c.delete_rows([7])
    return c


def state(c):
    d = c.describe()
    hits = c.keys_of(vectors=[[0.5] * DIM, [0.1] * DIM], k=20, exact=True)
    return d["version"], d["rows"], hits, c.fetch([-1, 5, 7, 8])["features"]


def test_a_hot_backup_is_the_collection_as_it_was(own_daemon, restore):
    c = fill(own_daemon, {"kind": "hnsw", "m": 4, "ef_construction": 20})
    Collection(own_daemon.client, "empty").create(key="string", features={"a": "bool"})
    c.wait_indexed()
    before, dest = state(c), own_daemon.root / "backup"
    report = back_up(own_daemon, dest).stdout
    assert f"c: version {before[0]}, {before[1]} rows" in report and "empty: version 0" in report
    c.load([{"key": -8, "n": 8}])
    copy = restore(dest)
    restored = c.on(copy.client)
    assert state(restored) == before
    assert c.index()["indexed_rows"] > 0 and restored.index() == c.index(), "nothing is rebuilt"
    restored.load([{"key": 9, "n": 9}])
    assert restored.row(9)["features"] == {"n": 9}


class Writer(threading.Thread):
    """Commits k = 0, 1, 2 ... of its collection, every fourth one large; notes the acknowledged."""

    def __init__(self, collection, stop):
        super().__init__()
        self.collection, self.stop = collection, stop
        self.acknowledged = -1
        self.error = None

    def run(self):
        try:
            for k in range(1_000_000):
                if self.stop.is_set():
                    return
                rows = [{"key": key, "k": k} for key in range(first_key(k), last_key(k) + 1)]
                self.collection.load(rows)
                self.acknowledged = k
        except BaseException as e:
            self.error = e


def first_key(k):
    return k * LARGE


def last_key(k):
    return k * LARGE + (LARGE - 1 if k % LARGE_EVERY == 0 else 0)


def commits_of(collection, upto):
    """Which commits have their first and their last row."""
    return [
        collection.fetch([key(k) for k in range(upto)], features=["k"])["found"]
        for key in (first_key, last_key)
    ]


def test_hot_backups_under_load_are_prefixes_with_all_that_was_acknowledged(own_daemon, restore):
    """Commits, sealings and checkpoints go on while the backups run."""
    stop, writers = threading.Event(), []
    for n in range(3):
        c = Collection(own_daemon.client, f"w{n}").create(key="int64", features={"k": "int64"})
        writers.append(Writer(c, stop))
    for w in writers:
        w.start()
    backups = []
    try:
        for n in range(6):
            while min(w.acknowledged for w in writers) < (n + 1) * 8:
                assert not any(w.error for w in writers), [w.error for w in writers]
                stop.wait(0.01)
            acknowledged = [w.acknowledged for w in writers]
            dest = own_daemon.root / f"backup{n}"
            back_up(own_daemon, dest)
            backups.append((dest, acknowledged, [w.acknowledged + 1 for w in writers]))
    finally:
        stop.set()
        for w in writers:
            w.join()
    assert not any(w.error for w in writers), [w.error for w in writers]
    metrics = own_daemon.client.get("/metrics").body.decode()
    sealed = re.search(r"loadstone_seal_duration_seconds_count (\d+)", metrics)
    assert int(sealed[1]) >= 3, "checkpoints were made while backups ran"
    for dest, acknowledged, at_most in backups:
        copy = restore(dest)
        for w, least, most in zip(writers, acknowledged, at_most):
            c = w.collection.on(copy.client)
            first, last = commits_of(c, most + 2)
            n = c.describe()["version"]
            assert least + 1 <= n <= most + 1, "acknowledged commits are there, later ones a few"
            assert first == last == [k < n for k in range(most + 2)], "a prefix, whole commits"
        copy.kill()


def test_a_collection_that_comes_and_goes_does_not_break_a_backup(daemon, restore):
    fill(daemon)
    stop = threading.Event()
    failures = []

    def come_and_go():
        client = daemon.client
        c = Collection(client, "guest")
        while not stop.is_set():
            try:
                c.create(key="int64", features={"n": "int64"})
                c.load([{"key": 1, "n": random.randrange(100)}])
                expect(client.delete(c.path), 204)
            except BaseException as e:
                failures.append(e)
                return

    guest = threading.Thread(target=come_and_go)
    guest.start()
    try:
        for n in range(5):
            back_up(daemon, daemon.root / f"backup{n}")
    finally:
        stop.set()
        guest.join()
    assert not failures, failures[0]
    for n in range(5):
        copy = restore(daemon.root / f"backup{n}")
        names = {c["name"] for c in expect(copy.client.get("/v1/collections"))["collections"]}
        assert names in ({"c"}, {"c", "guest"})
        copy.kill()


def test_version_numbers_of_dropped_collections_go_on_in_a_backup(daemon, restore):
    c = Collection(daemon.client, "c").create(key="int64", features={"n": "int64"})
    c.load([{"key": 1, "n": 1}])
    expect(daemon.client.delete(c.path), 204)
    back_up(daemon, daemon.root / "backup")
    restored = c.on(restore(daemon.root / "backup").client)
    restored.create(key="int64", features={"n": "int64"})
    assert restored.describe()["version"] == 1


def test_a_cold_backup_is_a_copy_of_the_directory(daemon, restore):
    before = state(fill(daemon))
    assert daemon.stop() == 0
    shutil.copytree(daemon.data, daemon.root / "cold")
    back_up(daemon, daemon.root / "by_command")
    for name in ("cold", "by_command"):
        assert state(Collection(restore(daemon.root / name).client, "c")) == before


def test_damage_is_named_and_does_not_keep_the_others(daemon, restore):
    fill(daemon)
    Collection(daemon.client, "good").create(key="int64", features={"n": "int64"})
    segment = next((daemon.data / "c" / "segments").glob("*.seg"))
    with open(segment, "r+b") as f:
        f.seek(segment.stat().st_size // 2)
        byte = f.read(1)
        f.seek(-1, 1)
        f.write(bytes([byte[0] ^ 1]))
    done = back_up(daemon, daemon.root / "backup", status=1)
    assert str(segment) in done.stderr and "offset" in done.stderr and "c" in done.stderr
    copy = restore(daemon.root / "backup")
    names = [c["name"] for c in expect(copy.client.get("/v1/collections"))["collections"]]
    assert names == ["good"]


def test_nothing_is_overwritten(daemon):
    dest = daemon.root / "backup"
    dest.mkdir()
    (dest / "mine").write_text("mine")
    done = back_up(daemon, dest, status=1)
    assert "exists" in done.stderr and (dest / "mine").read_text() == "mine"
    assert not (daemon.root / "backup.partial").exists()


@pytest.mark.parametrize("where", ["copy", "c/../copy", "c/copy", "link/copy"])
def test_a_copy_inside_the_data_directory_is_refused(own_daemon, where):
    Collection(own_daemon.client, "c").create(key="int64")
    before = sorted(p.name for p in own_daemon.data.iterdir())
    link = own_daemon.root / "link"
    link.symlink_to(own_daemon.data.resolve())
    dest = own_daemon.root / where if where.startswith("link") else f"{own_daemon.data}/{where}"
    done = back_up(own_daemon, dest, status=1)
    assert "lies in the data directory" in done.stderr and "remove" not in done.stderr
    assert sorted(p.name for p in own_daemon.data.iterdir()) == before


def test_a_copy_that_was_not_begun_needs_no_removing(daemon):
    done = back_up(daemon, daemon.root / "missing" / "copy", status=1)
    assert "No such file" in done.stderr and "remove" not in done.stderr


@pytest.mark.parametrize("args", [[], ["x"], ["a", "b", "c"]])
def test_a_wrong_command_line_is_status_2(args):
    done = subprocess.run([BINARY, "backup", *args], capture_output=True, text=True)
    assert done.returncode == 2 and "backup" in done.stderr


def test_what_is_no_data_directory_is_refused(scratch):
    nothing = scratch / "no_data"
    nothing.mkdir()
    done = subprocess.run(
        [BINARY, "backup", nothing, scratch / "copy"], capture_output=True, text=True
    )
    assert done.returncode == 1 and "FORMAT" in done.stderr
    assert not (scratch / "copy").exists() and not (scratch / "copy.partial").exists()
