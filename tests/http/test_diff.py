"""Diffs: the keys that two versions differ in, against dicts; both forms; restores and files."""

import json
import random

import numpy as np
import pytest

from client import NDJSON, Collection, problem
from daemon import MEMORY_ALLOWANCE


class History:
    """A collection and, per version, which commit wrote the row of each key."""

    def __init__(self, c):
        self.c = c
        self.versions = [{}]

    def load(self, keys, **query):
        answer = self.c.load([{"key": k, "n": len(self.versions)} for k in keys], **query)
        number = len(self.versions)
        assert answer["version"] == number
        place = {k: (number, i) for i, k in enumerate(keys)}
        self.versions.append({**self.versions[-1], **place})

    def delete(self, keys):
        self.c.delete_rows(list(keys))
        self.versions.append({k: s for k, s in self.versions[-1].items() if k not in set(keys)})

    def restore(self, number):
        self.c.restore(version=number)
        self.versions.append(dict(self.versions[number]))

    def expect(self, a, b):
        x, y = self.versions[a], self.versions[b]

        def ordered(keys, rows):
            return sorted(keys, key=lambda k: rows[k])

        wanted = {
            "from": a,
            "to": b,
            "added": ordered(y.keys() - x.keys(), y),
            "updated": ordered((k for k in x.keys() & y.keys() if x[k] != y[k]), y),
            "removed": ordered(x.keys() - y.keys(), x),
        }
        assert self.c.diff(**{"from": a, "to": b}) == wanted
        answer = self.c.client.get(
            f"{self.c.path}/diff?from={a}&to={b}", headers={"Accept": "application/x-ndjson"}
        )
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        changed = ordered((k for k in y if x.get(k) != y[k]), y)
        lines = [("updated" if k in x else "added", k) for k in changed]
        lines += [("removed", k) for k in wanted["removed"]]
        got = [json.loads(line) for line in answer.body.splitlines()]
        assert [(line["op"], line["key"]) for line in got] == lines


@pytest.fixture
def history(collection):
    collection.create(key="string", features={"n": "int32"})
    return History(collection)


def test_every_pair_of_versions_against_dicts(history):
    rng = random.Random(3)
    names = [f"k{i}" for i in range(80)] + ['q"', "ü", "a,b"]
    for step in range(14):
        keys = rng.sample(names, rng.randrange(1, 50))
        if step % 5 == 3:
            history.delete(keys)
        elif step == 9:
            history.restore(4)
        else:
            history.load(keys)
    for a in range(len(history.versions)):
        for b in range(len(history.versions)):
            history.expect(a, b)


def test_it_is_the_same_after_a_restart(own_daemon):
    c = Collection(own_daemon.client, "c").create(key="string", features={"n": "int32"})
    history = History(c)
    history.load([f"k{i}" for i in range(300)])
    history.load([f"k{i}" for i in range(100, 400)])
    history.delete([f"k{i}" for i in range(150, 250)])
    own_daemon.stop()
    own_daemon.start()
    history.c = c.on(own_daemon.client)
    history.load(["k1", "new"])
    for a, b in [(1, 2), (2, 1), (0, 4), (4, 0), (2, 4), (3, 3)]:
        history.expect(a, b)


def test_a_compaction_changes_no_diff(own_daemon):
    c = Collection(own_daemon.client, "c").create(key="string", features={"n": "int32"})
    history = History(c)
    for n in range(4):  # each a segment file: more than a commit may leave in memory
        history.load([f"k{i}" for i in range(n * 6000, n * 6000 + 17000)], content_type=NDJSON)
    history.delete([f"k{i}" for i in range(10000, 15000)])
    history.load(["k3", "new"])
    done = c.compact()
    assert done["segments_after"] < max(done["segments_before"], 2), done
    history.load(["k4", "k10000"])
    history.restore(4)
    pairs = [(1, 4), (4, 5), (5, 6), (6, 5), (2, 6), (6, 7), (4, 7), (4, 8), (0, 8), (8, 1)]
    for a, b in pairs:
        history.expect(a, b)
    own_daemon.restart()
    history.c = c.on(own_daemon.client)
    for a, b in pairs:
        history.expect(a, b)


def test_rows_written_again_are_updated_and_restored_ones_are_not(history):
    history.load(["a", "b"])
    history.load(["a"])  # the same values
    assert history.c.diff(**{"from": 1, "to": 2})["updated"] == ["a"]
    history.restore(1)
    assert history.c.diff(**{"from": 1, "to": 3}) == {
        "from": 1,
        "to": 3,
        "added": [],
        "updated": [],
        "removed": [],
    }


def test_sides_may_be_tags_and_the_newest(history):
    history.load(["a"])
    history.load(["b"])
    history.c.tag("first", 1)
    assert history.c.diff(**{"from": "first"}) == history.c.diff(**{"from": 1, "to": 2})
    assert history.c.diff(**{"from": 2, "to": "first"})["removed"] == ["b"]


def test_sides_that_are_not_there(history):
    history.load(["a"])
    path = f"{history.c.path}/diff"
    problem(history.c.client.get(path), 400, "from", field="from")
    problem(history.c.client.get(f"{path}?from=7"), 404, "7")
    problem(history.c.client.get(f"{path}?from=1&to=nope"), 404, "nope")
    problem(history.c.client.get(f"{path}?from=-1"), 400, "-1")
    problem(history.c.client.get(f"{path}?from=1&at=2"), 400, "at")
    problem(history.c.client.get("/v1/collections/none/diff?from=1"), 404, "none")


def test_a_large_diff_is_streamed_in_bounded_memory(start_daemon):
    daemon = start_daemon()
    c = Collection(daemon.client, "c").create(
        key="int64", vector={"dim": 2, "metric": "l2"}, index={"kind": "flat"}
    )
    n = 400_000
    c.load_vectors(np.ones((n, 2), np.float32))
    c.load_vectors(np.zeros((n, 2), np.float32), first_key=n // 2)
    before = daemon.memory()
    got = c.diff(**{"from": 1, "to": 2})
    assert got["updated"] == list(range(n // 2, n)) and got["added"] == list(range(n, n + n // 2))
    assert got["removed"] == []
    assert c.diff(**{"from": 2, "to": 1})["removed"] == list(range(n, n + n // 2))
    assert daemon.memory() - before < 32 * 2**20 + MEMORY_ALLOWANCE


def test_head_says_what_get_would(history):
    history.load(["a"])
    answer = history.c.client.request("HEAD", f"{history.c.path}/diff?from=0")
    assert answer.status == 200 and answer.headers["Loadstone-Version"] == "1"
