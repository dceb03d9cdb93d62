"""A full disk: 507 with a sentence, nothing changed, everything still served, and loads work again
once there is space. On a disk of 48 MiB that really runs full (small_disk.py says how)."""

import time

import numpy as np
import pytest

from client import NDJSON, OCTETS, Collection, expect, ndjson, problem
from conftest import BACKENDS, fresh_name
from small_disk import SIZE_MIB, SmallDisk

DIM = 128
PART_ROWS = 8192  # 4 MiB


@pytest.fixture(params=BACKENDS)
def small(request, scratch):
    place = scratch / fresh_name(request)
    disk = SmallDisk(place / "disk")
    daemon = disk.daemon(place / "daemon", BACKENDS[request.param])
    try:
        yield daemon.start()
    finally:
        daemon.forget()
        disk.remove()


def create(client, name):
    return Collection(client, name).create(
        key="int64",
        vector={"dim": DIM, "metric": "l2"},
        features={"s": "string"},
        index={"kind": "flat"},
    )


def part(number):
    return np.full((PART_ROWS, DIM), number + 1, np.float32)


def fill(c):
    """Loads parts until the disk is full; returns how many went in and the refusal."""
    for number in range(4 * SIZE_MIB):
        response = c.send_rows(part(number).tobytes(), OCTETS, first_key=number * PART_ROWS)
        if response.status != 200:
            return number, response
    raise AssertionError("the disk never ran full")


def test_full_disk_is_507_changes_nothing_and_heals(small):
    filler = create(small.client, "filler")
    filler.load_vectors(np.ones((4 * PART_ROWS, DIM), np.float32))
    c = create(small.client, "c")
    parts, refusal = fill(c)
    assert parts > 0
    problem(refusal, 507, "space")

    def intact():
        assert c.state() == (parts, parts * PART_ROWS)
        assert c.keys_of(vector=[float(parts)] * DIM, k=1) == [[(parts - 1) * PART_ROWS]]
        assert c.fetch([0, parts * PART_ROWS])["found"] == [True, False]

    intact()
    for _ in range(3):
        again = c.send_rows(part(parts).tobytes(), OCTETS, first_key=parts * PART_ROWS)
        problem(again, 507, "space")
        intact()
    lines = (
        ndjson({"key": -k * 100 - i, "s": "x" * 500} for i in range(100)) for k in range(1, 1000)
    )
    problem(c.send_rows(lines, NDJSON), 507, "space")
    intact()

    expect(small.client.delete(filler.path), 204)
    deadline = time.monotonic() + 10
    while True:
        answer = c.send_rows(part(parts).tobytes(), OCTETS, first_key=parts * PART_ROWS)
        if answer.status == 200:
            break
        problem(answer, 507)
        assert time.monotonic() < deadline, "the space of a dropped collection never came back"
        time.sleep(0.1)
    assert c.state() == (parts + 1, (parts + 1) * PART_ROWS)
    c.load([{"key": -1, "s": "small commits too"}])
    assert c.row(-1)["features"] == {"s": "small commits too"}


def test_small_commits_until_full_then_restart_keeps_each_acknowledged_one(small):
    if small.wrapper:
        keep_mount = "tmpfs in a namespace ends with its daemon: the restart is left out"
        print(keep_mount)
    c = create(small.client, "c")
    parts, _ = fill(c)
    acknowledged = []
    for n in range(20000):
        response = c.send_rows([{"key": -1 - n, "s": "y" * 20000}])
        if response.status != 200:
            problem(response, 507, "space")
            break
        acknowledged.append(-1 - n)
    else:
        raise AssertionError("the log never ran full")
    rows = parts * PART_ROWS + len(acknowledged)
    assert c.describe()["rows"] == rows
    if not small.wrapper:
        small.restart()
        c = c.on(small.client)
    assert c.describe()["rows"] == rows
    assert all(c.fetch(acknowledged[-500:])["found"])
    assert c.fetch([-1 - n])["found"] == [False]
