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


def retry_until_space(send, status=200):
    """What was refused before goes through once a dropped collection's space is back."""
    deadline = time.monotonic() + 10
    while (answer := send()).status != status:
        problem(answer, 507)
        assert time.monotonic() < deadline, "the space of a dropped collection never came back"
        time.sleep(0.1)
    return answer.json()


def test_full_disk_refuses_a_part_and_the_load_goes_on(small):
    filler = create(small.client, "filler")
    filler.load_vectors(np.ones((4 * PART_ROWS, DIM), np.float32))
    c = create(small.client, "c")
    c.load_vectors(part(0))
    export = c.export(1, "ndjson")
    load = c.open_load(mode="full_refresh")
    for number in range(1, 4 * SIZE_MIB):
        rows, at = part(number), number * PART_ROWS
        answer = c.put_part(load, f"p{number}", rows.tobytes(), OCTETS, first_key=at)
        if answer.status != 201:
            break
    problem(answer, 507, "space")
    assert number > 1
    assert [p["name"] for p in c.get_load(load)["parts"]] == [f"p{n}" for n in range(1, number)]
    assert c.state() == (1, PART_ROWS)
    assert c.export(1, "ndjson") == export

    expect(small.client.delete(filler.path), 204)
    retry_until_space(
        lambda: c.put_part(load, f"p{number}", rows.tobytes(), OCTETS, first_key=at), 201
    )
    done = c.commit_load(load, parts=[f"p{n}" for n in range(1, number + 1)])
    assert (done["version"], done["rows"]) == (2, number * PART_ROWS)
    assert c.keys_of(vector=[float(number + 1)] * DIM, k=1) == [[at]]
    assert c.export(1, "ndjson") == export


def test_full_disk_refuses_restore_delete_and_tag_or_keeps_them(small):
    """Records of the log have their space reserved or are refused: never half."""
    filler = create(small.client, "filler")
    filler.load_vectors(np.ones((2 * PART_ROWS, DIM), np.float32))
    c = create(small.client, "c")
    c.load_vectors(part(0))
    c.load([{"key": k, "s": "second"} for k in range(10)])
    first = c.version(1)["digest"]
    parts, _ = fill(create(small.client, "rest"))
    assert parts > 0
    version = 2
    for n in range(4000):
        answer = c.send_rows([{"key": 5, "s": f"{n}" * 2000}])
        if answer.status != 200:
            problem(answer, 507, "space")
            break
        version += 1
    else:
        raise AssertionError("the log never ran full")
    for method, path, body in (
        ("POST", "restore", {"version": 1}),
        ("POST", "rows/delete", {"keys": list(range(1000))}),
        ("PUT", "tags/kept", {"version": 1}),
    ):
        before = c.state()
        answer = small.client.request(method, f"{c.path}/{path}", body)
        if answer.status not in (200, 201):
            problem(answer, 507, "space")
            assert c.state() == before
    expect(small.client.delete(filler.path), 204)
    retry_until_space(lambda: small.client.post(f"{c.path}/restore", {"version": 1}))
    assert c.version(c.describe()["version"])["digest"] == first
    retry_until_space(lambda: small.client.post(f"{c.path}/vacuum", {"versions": 1}))
    assert c.version(c.describe()["version"])["digest"] == first
