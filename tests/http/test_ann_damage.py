"""A damaged index file, section by section: the collection answers exactly while the index is built
anew, and says so in the log and in GET index."""

import struct
import time

import numpy as np
import pytest

from client import Collection, expect
from data import clustered

N, DIM, K = 3000, 16, 10
WAIT_S = 90
HEADER = 0  # beside the kinds of sections
KINDS = {
    1: "links", 2: "upper_at", 3: "upper", 4: "rows", 5: "norms", 6: "twins_at", 7: "twins",
    8: "centroids", 9: "lists_at", 10: "codes", 11: "scale", 12: "curve", 13: "made",
}  # fmt: skip


def sections(path):
    """kind -> (offset, length), as the header says."""
    head = path.read_bytes()[:4096]
    (count,) = struct.unpack_from("<I", head, 20)
    at, found = 24 + 16 + 8 + 8 + 40, {}
    for _ in range(count):
        kind, _, offset, length, _ = struct.unpack_from("<IIQQQ", head, at)
        found[kind] = (offset, length)
        at += 32
    return found


def flip(path, at):
    with path.open("r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 0x15]))


def fill(client, kind):
    """Rows of which some have no vector and some that of another: every section is there."""
    c = Collection(client, kind).create(
        key="int64",
        vector={"dim": DIM, "metric": "cosine"},
        index={"kind": kind, "m": 8, "ef_construction": 1500},
    )
    base = clustered(N, DIM, seed=4)
    base[N // 2 : N // 2 + 200] = base[:200]
    rows = [{"key": i, "vector": None if i % 50 == 7 else v.tolist()} for i, v in enumerate(base)]
    c.load(rows)
    c.compact()
    c.wait_indexed()
    return c


def hits(c, queries, **how):
    return [
        [(h["key"], h["distance"]) for h in found]
        for found in c.search(vectors=queries, k=K, **how)["hits"]
    ]


def searched_while_rebuilt(c, queries, truth):
    """Searches until the index is there again; returns what GET index said meanwhile."""
    said, rounds, end = "", 0, time.monotonic() + WAIT_S
    while True:
        before = c.index()
        found = hits(c, queries)
        after = c.index()
        if before["indexed_rows"] == after["indexed_rows"] == 0:
            assert found == truth
            assert (after["state"], before["state"]) == ("building", "building")
            said, rounds = after["error"], rounds + 1
        elif rounds and after["state"] == "ready":
            return said
        assert time.monotonic() < end, after


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_answers_are_exact_while_a_damaged_index_is_built_anew(start_daemon, kind):
    daemon = start_daemon()
    c = fill(daemon.client, kind)
    queries = (clustered(8, DIM, seed=4) + np.float32(0.02)).tolist()
    truth = hits(c, queries, exact=True)
    (path,) = (daemon.data / kind / "index").glob("*.ann")
    places = {HEADER: (0, 100), **sections(path)}
    wanted = {"hnsw": {1, 2, 3, 4, 5, 6, 7, 10, 11}, "ivf": {4, 8, 9, 10, 11}}[kind]
    assert wanted <= set(places), "the data has every section"
    for section in sorted(places):
        assert daemon.stop() == 0
        offset, length = sections(path).get(section, (0, 100)) if section else places[section]
        assert length > 0
        flip(path, offset + length // 2)
        marks = daemon.log().count("is built anew")
        daemon.start()
        c = Collection(daemon.client, kind)
        said = searched_while_rebuilt(c, queries, truth)
        name = KINDS.get(section, section)
        assert "built anew" in said and path.stem in said, name
        assert daemon.log().count("is built anew") > marks, name
        state = c.index()
        assert "error" not in state and state["kind"] == kind, name
        assert state["indexed_rows"] == state["rows"], name
        assert [len(h) for h in hits(c, queries)] == [K] * len(queries)


def test_a_sound_index_is_not_touched(start_daemon):
    daemon = start_daemon()
    c = fill(daemon.client, "hnsw")
    (path,) = (daemon.data / "hnsw" / "index").glob("*.ann")
    before = path.stat().st_ino, path.stat().st_mtime_ns
    daemon.restart()
    c = Collection(daemon.client, "hnsw")
    c.wait_indexed()
    expect(daemon.client.get(f"{c.path}/index"))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before
    assert "built anew" not in daemon.log()
