"""`loadstoned check DIR`, and what a start makes of the same damage: found, named, never silent."""

import hashlib
import shutil
import subprocess
import time

import numpy as np
import pytest

from client import Collection, expect, problem
from daemon import BINARY, Daemon

DIM = 16
ROWS = 1500
SECTOR = 4096


def check(data):
    """Exit status and lines of a check."""
    done = subprocess.run(
        [str(BINARY), "check", str(data)], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout.splitlines() + done.stderr.splitlines()


def damage_lines(data):
    status, lines = check(data)
    found = [line for line in lines if line.startswith("damage ")]
    assert status == (1 if found else 0), lines
    return found


def fingerprint(directory):
    return {
        path.relative_to(directory): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def rows_from(first, n):
    vectors = np.random.default_rng(first).standard_normal((n, DIM)).astype(np.float32)
    return [
        {
            "key": f"key-{first + i}",
            "vector": vectors[i].tolist() if i % 9 else None,
            "n": i if i % 2 else None,
            "text": f"tëxt {i}",
            "tags": ["a", f"b{i}"] if i % 3 else None,
        }
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def stopped(scratch):
    """A data directory that was stopped in order: `victim` has a checkpoint, a segment, its index
    and commits in the log behind them; `other` is there to go on."""
    daemon = Daemon(scratch / "check").start()
    victim = Collection(daemon.client, "victim").create(
        key="string",
        vector={"dim": DIM, "metric": "cosine"},
        features={"n": "int32", "text": "string", "tags": "string[]"},
        index={"kind": "hnsw", "m": 8, "ef_construction": 40},
    )
    Collection(daemon.client, "other").create(key="int64", features={"n": "int64"}).load(
        [{"key": 1, "n": 1}]
    )
    victim.load(rows_from(0, ROWS))
    victim.wait_indexed()
    deadline = time.monotonic() + 60
    while not list((daemon.data / "victim" / "index").glob("*.ann")):
        assert time.monotonic() < deadline, daemon.log_tail()
        time.sleep(0.02)
    victim.load(rows_from(ROWS - 10, 30))
    victim.delete_rows(["key-3", f"key-{ROWS}"])
    assert daemon.stop() == 0
    daemon.forget()
    return daemon.data


@pytest.fixture
def data(stopped, scratch):
    """A copy to damage."""
    copy = scratch / "check-copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(stopped, copy)
    return copy


def the_file(data, kind):
    folder = {"seg": "segments", "ann": "index"}.get(kind, "log")
    return sorted((data / "victim" / folder).glob(f"*.{kind}"))[-1]


def flip(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 0x10]))


def places(path, kind):
    """Offsets in every region whose bytes matter: padding of logs and index files does not."""
    data = path.read_bytes()
    if kind == "log":
        end = len(data.rstrip(b"\0"))
        last = end // 64 * 64 - 100  # amid the last commit: what follows it marks a clean stop
        return [0, 9, 20, 36, 52, *(SECTOR + d for d in (0, 8, 24, 32, 44, 52, 64, 300)), last]
    if kind == "ann":
        filled = [i for i in range(0, len(data), 512) if any(data[i : i + 8])]
        return [0, 8, 21, 40, 60, *filled[1 :: max(1, len(filled) // 12)]]
    step = max(1, len(data) // 30)
    return [*range(0, len(data), step), len(data) - 1, len(data) - 20]


def test_sound_directory_is_told_so_and_left_alone(stopped):
    before = fingerprint(stopped)
    status, lines = check(stopped)
    assert status == 0, lines
    assert not [line for line in lines if line.startswith("damage")]
    assert any(line.startswith("sound   other: version 1, 1 rows") for line in lines)
    assert any(f"victim: version 3, {ROWS + 18} rows" in line for line in lines), lines
    assert fingerprint(stopped) == before


@pytest.mark.parametrize("kind", ["log", "ckpt", "seg", "ann"])
def test_flipped_bit_in_any_region_is_found_and_named(data, kind):
    path = the_file(data, kind)
    for at in places(path, kind):
        flip(path, at)
        found = damage_lines(data)
        assert found, f"{path.name}: a flip at {at} goes unseen"
        assert all(path.name in line and "victim" in line for line in found), found
        assert all("offset" in line for line in found), found
        flip(path, at)
    assert not damage_lines(data)


@pytest.mark.parametrize("kind", ["log", "ckpt", "seg", "ann"])
def test_truncated_file_is_found_and_named(data, kind):
    path = the_file(data, kind)
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0")) if kind == "log" else len(whole)
    # a log that ends at its last group is whole, and one that ends amid it is a torn write
    for size in (0, 7, 100, *([SECTOR - 1] if kind == "log" else [end // 2, end - 1])):
        path.write_bytes(whole[:size])
        found = damage_lines(data)
        assert found and all(path.name in line for line in found), (size, found)
    path.write_bytes(whole)
    assert not damage_lines(data)


@pytest.mark.parametrize("kind", ["log", "ckpt", "seg"])
def test_damage_quarantines_at_start_and_the_others_serve(data, kind, start_daemon):
    path = the_file(data, kind)
    flip(path, {"log": SECTOR + 64, "ckpt": 60, "seg": path.stat().st_size - 8}[kind])
    before = fingerprint(data / "victim")
    daemon = start_daemon(data=data)
    client = daemon.client
    expect(client.get("/readyz"))
    problem(client.get("/v1/collections/victim"), 503, path.name)
    problem(Collection(client, "victim").send_rows([{"key": "a"}]), 503, "quarantined")
    assert Collection(client, "other").row(1)["features"] == {"n": 1}
    Collection(client, "other").load([{"key": 2, "n": 2}])
    assert fingerprint(data / "victim") == before, "the evidence is left alone"


def test_missing_files_are_found(data):
    for kind, word in (("seg", "no such file"), ("log", "log")):
        path = the_file(data, kind)
        kept = path.read_bytes()
        path.unlink()
        found = damage_lines(data)
        assert found and any(word in line.lower() for line in found), found
        path.write_bytes(kept)
    the_file(data, "ann").unlink()  # is built again: no damage
    assert not damage_lines(data)


def test_what_a_start_mends_is_noted_and_left_alone(data):
    log = the_file(data, "log")
    kept = log.read_bytes()
    end = (len(kept.rstrip(b"\0")) + 63) // 64 * 64
    log.write_bytes(kept[:end] + b"half a group" + kept[end + 12 :])
    orphan = data / "victim" / "segments" / "00000000000000ff.seg"
    orphan.write_bytes(b"left behind")
    stray = data / "victim" / "index" / "notes.txt"
    stray.write_text("mine")
    half = data / ".new-0123456789abcdef"
    half.mkdir()
    before = fingerprint(data)
    status, lines = check(data)
    assert status == 0, lines
    notes = [line for line in lines if line.startswith("note ")]
    for path in (log, orphan, stray, half):
        assert any(path.name in line for line in notes), (path, lines)
    assert any(f"offset {end}" in line for line in notes), notes
    assert fingerprint(data) == before


def test_tombstone_that_holds_no_version_is_found(data):
    (data / ".tombstones" / "gone").write_text("seven\n")
    (found,) = damage_lines(data)
    assert "gone: offset 0" in found


def test_a_collection_dropped_before_its_first_version_is_sound(data):
    (data / ".tombstones" / "gone").write_text("0\n")
    (data / ".tombstones" / "gone.tmp").write_text("")
    assert damage_lines(data) == []


def test_collections_without_format_are_refused_by_check_and_serve_alike(data):
    (data / "FORMAT").unlink()
    status, lines = check(data)
    assert status == 2 and "holds collections but no FORMAT file" in lines[-1], lines
    done = subprocess.run(
        [str(BINARY), "serve", "--data", str(data), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1 and "holds collections but no FORMAT file" in done.stderr, done
    assert not (data / "FORMAT").exists()


def test_running_daemon_and_wrong_usage_are_told(start_daemon, tmp_path):
    daemon = start_daemon()
    status, lines = check(daemon.data)
    assert status == 2 and "in use" in lines[-1] and "stop it" in lines[-1], lines
    status, lines = check(tmp_path)
    assert status == 2 and "FORMAT" in lines[-1], lines
    status, lines = check(tmp_path / "missing")
    assert status == 2, lines
    done = subprocess.run([str(BINARY), "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "usage" in done.stderr
    Collection(daemon.client, "c").create(key="int64").load([{"key": 1}])
    daemon.kill()
    assert check(daemon.data)[0] == 0


def test_segment_cut_while_it_is_served_quarantines_its_collection_alone(start_daemon):
    """No crash, and no answer made of what could not be read."""
    daemon = start_daemon()
    rows = 40000
    good = Collection(daemon.client, "good").create(key="int64", features={"n": "int64"})
    good.load([{"key": 1, "n": 1}])
    bad = Collection(daemon.client, "bad").create(
        key="int64", vector={"dim": 64, "metric": "l2"}, index={"kind": "flat"}
    )
    bad.load_vectors(np.ones((rows, 64), np.float32))
    version = bad.describe()["version"]
    assert bad.row(rows - 1, features="")["key"] == rows - 1
    (segment,) = (daemon.data / "bad" / "segments").glob("*.seg")
    # the end of the vectors goes, and what stands behind them
    with open(segment, "r+b") as f:
        f.truncate(segment.stat().st_size // 4)
    answer = bad.send_search(vector=[1.0] * 64, k=5, exact=True)
    problem(answer, 503)
    problem(bad.send_rows([{"key": rows - 1}]), 503, "quarantined", segment.name)
    deadline = time.monotonic() + 30
    while True:
        listed = {c["name"]: c for c in expect(daemon.client.get("/v1/collections"))["collections"]}
        if listed["bad"].get("state") == "quarantined":
            break
        assert time.monotonic() < deadline, listed
        time.sleep(0.02)
    assert segment.name in listed["bad"]["detail"] and "offset" in listed["bad"]["detail"]
    assert good.row(1)["features"] == {"n": 1}
    good.load([{"key": 2, "n": 2}])
    # its numbers are known: one that follows under the name goes on with them
    expect(daemon.client.delete("/v1/collections/bad"), 204)
    again = Collection(daemon.client, "bad").create(key="int64", features={"n": "int64"})
    assert again.load([{"key": 1, "n": 1}])["version"] == version + 1
    assert daemon.alive()
