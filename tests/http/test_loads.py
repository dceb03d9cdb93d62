"""Load sessions: parts from anywhere, one commit, and every rule about retries, restarts and ends."""

import io
import random
import threading
import time

import numpy as np
import pytest

from client import JSON, NDJSON, NPY, OCTETS, Collection, RawExchange, expect, problem, request_head


@pytest.fixture
def rng():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture
def table(collection):
    return collection.create(key="string", features={"n": "int64"})


def rows(*keys, n=1):
    return {"rows": [{"key": k, "n": n} for k in keys]}


def state_of(c, load):
    return c.get_load(load)["state"]


def staging(daemon, c):
    return sorted(p.name for p in (daemon.data / c.name / "staging").iterdir() if p.name != "ends")


def wait_arriving(c, load):
    deadline = time.monotonic() + 10
    while c.get_load(load)["arriving"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---- opening, parts, committing ----


def test_parts_become_visible_at_once(table):
    load = table.open_load(message="nightly", metadata={"run": 7})
    assert set(load) == {"load", "expires_at"}
    assert expect(table.put_part(load, "1/0/0", rows("a", "b")), 201)["rows"] == 2
    assert expect(table.put_part(load, "0/0/0", rows("c")), 201)["rows"] == 1
    assert table.count()["count"] == 0
    got = table.commit_load(load)
    assert got == {"version": 1, "rows": 3, "inserted": 3, "updated": 0, "deleted": 0}
    assert table.count()["count"] == 3
    # rows are in the order of the parts' names
    assert [row["key"] for row in table.all_rows()] == ["c", "a", "b"]


def test_a_load_tells_how_far_it_is(table):
    load = table.open_load(mode="append")
    table.put_part(load, "b/1", rows("x", "y"))
    table.put_part(load, "a", rows("z"))
    got = table.get_load(load)
    assert got["state"] == "open" and got["phase"] == "receiving" and got["mode"] == "append"
    assert got["rows"] == 3 and got["part_count"] == 2 and got["next"] is None
    assert [(p["name"], p["rows"]) for p in got["parts"]] == [("a", 1), ("b/1", 2)]
    assert got["bytes"] == sum(p["bytes"] for p in got["parts"]) > 0
    assert all(len(p["digest"]) == 32 for p in got["parts"])
    first = table.get_load(load, limit=1)
    assert [p["name"] for p in first["parts"]] == ["a"] and first["next"] == "a"
    second = table.get_load(load, limit=1, after="a")
    assert [p["name"] for p in second["parts"]] == ["b/1"] and second["next"] is None
    assert load["load"] in [x["load"] for x in expect(table.client.get(f"{table.path}/loads"))["loads"]]
    result = table.commit_load(load)
    done = table.get_load(load)
    assert done["state"] == "committed" and done["result"] == result
    assert load["load"] not in [
        x["load"] for x in expect(table.client.get(f"{table.path}/loads"))["loads"]
    ]


def test_every_row_format_is_a_part(collection):
    c = collection.create(key="int64", vector={"dim": 2, "metric": "l2"})
    load = c.open_load()
    expect(c.put_part(load, "json", {"rows": [{"key": 1, "vector": [1, 2]}]}), 201)
    expect(c.put_part(load, "columnar", {"keys": [2], "vectors": [[1, 2]]}), 201)
    expect(c.put_part(load, "ndjson", b'{"key":3,"vector":[1,2]}\n', NDJSON), 201)
    expect(c.put_part(load, "octets", bytes(16), OCTETS, first_key=4), 201)
    problem(c.put_part(load, "bad", bytes(7), OCTETS, first_key=4), 422, "multiple")
    problem(c.put_part(load, "bad", bytes(8), OCTETS), 400, "first_key")
    assert c.commit_load(load)["inserted"] == 5


def test_the_same_part_again_is_fine_and_another_is_not(table):
    load = table.open_load()
    first = expect(table.put_part(load, "p", rows("a")), 201)
    assert expect(table.put_part(load, "p", rows("a")), 200) == first
    problem(table.put_part(load, "p", rows("a", n=2)), 409, "other bytes")
    assert table.get_load(load)["part_count"] == 1
    assert table.commit_load(load)["rows"] == 1
    assert table.row("a")["features"]["n"] == 1


@pytest.mark.parametrize("fmt", [OCTETS, NPY])
def test_the_same_vectors_from_another_first_key_are_another_part(collection, fmt):
    c = collection.create(key="int64", vector={"dim": 2, "metric": "l2"})
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    file = io.BytesIO()
    np.save(file, vectors)
    body = vectors.tobytes() if fmt == OCTETS else file.getvalue()
    load = c.open_load()
    first = expect(c.put_part(load, "p", body, fmt, first_key=10), 201)
    assert expect(c.put_part(load, "p", body, fmt, first_key=10), 200) == first
    problem(c.put_part(load, "p", body, fmt, first_key=20), 409, "other bytes")
    other = expect(c.put_part(load, "q", body, fmt, first_key=20), 201)
    assert other["digest"] != first["digest"]
    c.commit_load(load)
    assert [row["key"] for row in c.all_rows()] == [10, 11, 12, 20, 21, 22]


def test_a_commit_names_the_parts_that_count(table):
    load = table.open_load()
    for attempt in (0, 1):
        table.put_part(load, f"3/{attempt}/0", rows("a", n=attempt))
    problem(
        table.send_commit(load, parts=["3/1/0", "4/0/0"]), 422, "4/0/0", field="parts"
    )
    assert state_of(table, load) == "open"
    assert table.commit_load(load, parts=["3/1/0"])["rows"] == 1
    assert table.row("a")["features"]["n"] == 1


def test_names_of_parts_are_the_rest_of_the_path(table):
    load = table.open_load()
    names = ["a/b//c", "ü/ %", "x?y", "1/2/3/4/5/6/7/8/9", "."]
    for i, name in enumerate(names):
        expect(table.put_part(load, name, rows(f"k{i}")), 201)
    assert sorted(p["name"] for p in table.get_load(load)["parts"]) == sorted(names)
    assert table.commit_load(load, parts=names)["rows"] == len(names)
    other = table.open_load()
    problem(table.put_part(other, "", rows("a")), 400, "name", field="part")
    problem(table.put_part(other, "x" * 1025, rows("a")), 400, "part_name_bytes_max")


def test_a_bad_part_changes_nothing(table):
    load = table.open_load()
    problem(table.put_part(load, "p", {"rows": [{"key": "a"}, {"key": "b", "n": "x"}]}), 422,
            row=1, field="n")
    problem(table.put_part(load, "p", b'{"rows":[{"key":'), 400)
    assert table.get_load(load)["parts"] == []
    assert expect(table.put_part(load, "p", rows("a")), 201)["rows"] == 1
    assert table.commit_load(load)["rows"] == 1


def test_a_part_may_be_empty_and_so_may_a_load(table):
    load = table.open_load()
    assert expect(table.put_part(load, "p", {"rows": []}), 201)["rows"] == 0
    assert table.commit_load(load)["version"] == 1
    assert table.commit_load(table.open_load())["version"] == 2


def test_no_body_commits_all_parts(table):
    load = table.open_load()
    table.put_part(load, "p", rows("a"))
    got = expect(table.client.post(f"{table.path}/loads/{load['load']}/commit"))
    assert got["rows"] == 1


def test_unknown_loads_and_fields(table):
    load = table.open_load()
    for unknown in ("0" * 32, "nonsense"):
        problem(table.client.get(f"{table.path}/loads/{unknown}"), 404, "load")
        problem(table.put_part({"load": unknown}, "p", rows("a")), 404)
        problem(table.send_commit({"load": unknown}), 404)
        problem(table.send_abort({"load": unknown}), 404)
    problem(table.send_open(mod="append"), 400, "mod", field="mod")
    problem(table.send_open(mode="replace"), 400, "mode", field="mode")
    problem(table.send_open(duplicates="first"), 400, field="duplicates")
    problem(table.send_open(metadata=[1]), 400, field="metadata")
    problem(table.send_open(mode="partition_overwrite"), 422, "partition_by")
    problem(table.send_open(partitions=[]), 422, "partition_by")
    problem(table.send_commit(load, wait="later"), 400, field="wait")
    problem(table.send_commit(load, wait_s=-1), 400, field="wait_s")
    problem(table.send_commit(load, part=["a"]), 400, "part")
    assert state_of(table, load) == "open"
    problem(Collection(table.client, "nowhere").send_open(), 404)


# ---- after the commit ----


def test_a_repeated_commit_gives_the_first_answer(table):
    load = table.open_load()
    table.put_part(load, "p", rows("a"))
    first = table.commit_load(load)
    table.load([{"key": "b"}])
    assert table.commit_load(load) == first
    assert table.commit_load(load, parts=["no such part"]) == first
    problem(table.put_part(load, "q", rows("c")), 409, "committed")
    problem(table.send_abort(load), 409, "committed")
    assert table.describe()["version"] == first["version"] + 1


def test_a_refused_commit_leaves_the_load_open(table):
    table.load([{"key": "a"}])
    load = table.open_load(mode="append", expected_version=1)
    table.put_part(load, "p", rows("a"))
    table.put_part(load, "q", rows("b"))
    before = table.state()
    problem(table.send_commit(load), 422, "exists")
    got = table.get_load(load)
    assert got["state"] == "open" and got["error"]["status"] == 422
    assert table.state() == before
    assert table.commit_load(load, parts=["q"])["inserted"] == 1


def test_expected_version_is_checked_at_both_ends(table):
    table.load([{"key": "a"}])
    problem(table.send_open(expected_version=0), 412, "newest version is 1")
    load = table.open_load(expected_version=1)
    table.put_part(load, "p", rows("b"))
    table.load([{"key": "c"}])
    problem(table.send_commit(load), 412)
    assert state_of(table, load) == "open"
    expect(table.put_part(load, "q", rows("d")), 201)


# ---- aborting and expiring ----


def test_an_aborted_load_frees_the_disk_and_is_gone(server, table):
    load = table.open_load()
    table.put_part(load, "p", rows("a"))
    assert staging(server, table) == [load["load"]]
    assert table.send_abort(load).status == 204
    assert staging(server, table) == []
    problem(table.put_part(load, "q", rows("a")), 410, "aborted")
    problem(table.send_commit(load), 410, "aborted")
    assert state_of(table, load) == "aborted"
    assert table.send_abort(load).status == 204  # the first answer may have been lost
    assert table.state() == (0, 0)


def test_an_abandoned_load_expires(start_daemon):
    daemon = start_daemon(env={"LOADSTONE_LOAD_EXPIRY_S": "1"})
    c = Collection(daemon.client, "c").create(key="string", features={"n": "int64"})
    load = c.open_load()
    deadline = time.monotonic() + 3
    i = 0
    while time.monotonic() < deadline:  # activity keeps it
        expect(c.put_part(load, f"p{i}", rows(f"k{i}")), 201)
        i += 1
        time.sleep(0.3)
    while state_of(c, load) == "open":
        assert time.monotonic() < deadline + 10
        time.sleep(0.1)
    assert state_of(c, load) == "expired"
    problem(c.put_part(load, "q", rows("z")), 410, "expired")
    problem(c.send_commit(load), 410, "expired")
    problem(c.send_abort(load), 410, "expired")
    while staging(daemon, c):
        assert time.monotonic() < deadline + 10
        time.sleep(0.1)
    daemon.restart()
    c = c.on(daemon.client)
    problem(c.send_commit(load), 410, "expired")


def test_an_open_put_keeps_a_load_from_expiring_and_committing(start_daemon):
    daemon = start_daemon(env={"LOADSTONE_LOAD_EXPIRY_S": "1"})
    c = Collection(daemon.client, "c").create(key="int64", vector={"dim": 4, "metric": "l2"})
    load = c.open_load()
    body = bytes(16) * 200000  # several chunks
    head = request_head(
        "PUT", c.part_path(load, "slow") + "?first_key=0",
        Content_Type=OCTETS, Content_Length=len(body),
    )
    with RawExchange(daemon.client, 60) as exchange:
        exchange.send(head)
        wait_arriving(c, load)
        problem(c.send_commit(load), 409, "on their way")
        exchange.send(body[: len(body) - 16])
        deadline = time.monotonic() + 2.5
        while time.monotonic() < deadline:
            problem(c.send_commit(load), 409, "on their way")
            time.sleep(0.2)
        assert state_of(c, load) == "open"
        exchange.send(body[len(body) - 16:])
        assert exchange.answer().status == 201
    assert c.commit_load(load)["rows"] == 200000


# ---- restarts ----


@pytest.mark.parametrize("how", ["restart", "stop"])
def test_open_loads_and_parts_survive(own_daemon, how):
    c = Collection(own_daemon.client, "c").create(key="string", features={"n": "int64"})
    load = c.open_load(mode="append", message="m")
    aborted = c.open_load()
    for i in range(5):
        c.put_part(load, f"{i}/x", rows(*(f"{i}-{j}" for j in range(100))))
    expect(c.send_abort(aborted), 204)
    before = c.get_load(load)
    if how == "stop":
        assert own_daemon.stop() == 0
        own_daemon.start()
    else:
        own_daemon.restart()
    c = c.on(own_daemon.client)
    after = c.get_load(load)
    assert {k: v for k, v in after.items() if k != "expires_at"} == {
        k: v for k, v in before.items() if k != "expires_at"
    }
    problem(c.put_part(aborted, "p", rows("a")), 410, "aborted")
    assert expect(c.put_part(load, "0/x", rows(*(f"0-{j}" for j in range(100)))), 200)["rows"] == 100
    problem(c.put_part(load, "0/x", rows("other")), 409)
    expect(c.put_part(load, "9/x", rows("last")), 201)
    got = c.commit_load(load)
    assert got["rows"] == got["inserted"] == 501
    own_daemon.restart()
    c = c.on(own_daemon.client)
    assert c.commit_load(load) == got
    assert c.get_load(load)["result"] == got
    problem(c.put_part(load, "p", rows("a")), 409, "committed")
    assert c.count()["count"] == 501
    assert staging(own_daemon, c) == []


def test_a_killed_put_leaves_nothing(own_daemon):
    c = Collection(own_daemon.client, "c").create(key="int64", vector={"dim": 4, "metric": "l2"})
    load = c.open_load()
    c.put_part(load, "whole", bytes(16 * 10), OCTETS, first_key=0)
    body = bytes(16) * 300000
    head = request_head("PUT", c.part_path(load, "half") + "?first_key=100",
                        Content_Type=OCTETS, Content_Length=len(body))
    with RawExchange(own_daemon.client, 60) as exchange:
        exchange.send(head + body[: len(body) // 2])
        time.sleep(0.3)
        own_daemon.kill()
    own_daemon.start()
    c = c.on(own_daemon.client)
    assert [p["name"] for p in c.get_load(load)["parts"]] == ["whole"]
    files = {p.suffix for p in (own_daemon.data / "c" / "staging" / load["load"]).iterdir()}
    assert files == {"", ".part", ".seg"}
    assert len(list((own_daemon.data / "c" / "staging" / load["load"]).glob("*.seg"))) == 1
    assert c.commit_load(load)["rows"] == 10


def test_kills_at_random_lose_no_acknowledged_part(own_daemon, rng):
    c = Collection(own_daemon.client, "c").create(key="int64", features={"n": "int64"})
    load = c.open_load(mode="append")
    acknowledged = {}
    for round_ in range(4):
        stop = threading.Event()

        def put(worker):
            i = 0
            while not stop.is_set():
                name = f"{round_}/{worker}/{i}"
                key = round_ * 100000 + worker * 10000 + i * 10
                try:
                    body = {"rows": [{"key": key + j, "n": j} for j in range(3)]}
                    got = c.put_part(load, name, body)
                except OSError:
                    return
                except Exception:
                    return
                if got.status == 201:
                    acknowledged[name] = 3
                i += 1

        workers = [threading.Thread(target=put, args=(w,)) for w in range(3)]
        for w in workers:
            w.start()
        time.sleep(0.1 + rng.random() * 0.4)
        own_daemon.kill()
        stop.set()
        for w in workers:
            w.join()
        own_daemon.start()
        c = c.on(own_daemon.client)
        parts, after = {}, None
        while True:
            page = c.get_load(load, limit=1000, **({"after": after} if after else {}))
            parts.update({p["name"]: p["rows"] for p in page["parts"]})
            after = page["next"]
            if after is None:
                break
        missing = set(acknowledged) - set(parts)
        assert not missing, f"acknowledged and lost: {sorted(missing)[:5]}"
    got = c.commit_load(load, parts=sorted(acknowledged))
    assert got["rows"] == sum(acknowledged.values())


def test_a_kill_during_the_commit_leaves_it_whole_or_absent(own_daemon, rng):
    c = Collection(own_daemon.client, "c").create(key="int64", vector={"dim": 8, "metric": "l2"})
    version = 0
    for round_ in range(5):
        load = c.open_load(mode="full_refresh")
        for part in range(3):
            body = bytes(32) * 4000
            c.put_part(load, f"{part}", body, OCTETS, first_key=part * 4000)

        def commit():
            try:
                c.send_commit(load, wait="durable")
            except Exception:
                pass

        thread = threading.Thread(target=commit)
        thread.start()
        time.sleep(rng.random() * 0.08)
        own_daemon.kill()
        thread.join()
        own_daemon.start()
        c = c.on(own_daemon.client)
        now = c.describe()["version"]
        assert now in (version, version + 1)
        got = c.commit_load(load, wait="durable")
        assert got["version"] == version + 1 and got["rows"] == 12000
        version += 1
        assert c.count()["count"] == 12000
        assert c.commit_load(load) == got
        assert staging(own_daemon, c) == []


def test_a_damaged_part_is_told_and_not_dropped(start_daemon):
    daemon = start_daemon()
    c = Collection(daemon.client, "c").create(key="string", features={"n": "int64"})
    load = c.open_load()
    c.put_part(load, "p", rows("a"))
    (part,) = (daemon.data / "c" / "staging" / load["load"]).glob("*.part")
    daemon.kill()
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    daemon.start()
    c = c.on(daemon.client)
    problem(c.send_commit(load), 500, "damaged")
    problem(c.put_part(load, "q", rows("b")), 500, "damaged")
    c.load([{"key": "z"}])  # the collection goes on
    expect(c.send_abort(load), 204)


# ---- waiting ----


def test_who_waits_too_short_is_told_where_to_ask(collection):
    c = collection.create(key="int64", vector={"dim": 32, "metric": "l2"}, index={"kind": "hnsw", "m": 8, "ef_construction": 40})
    load = c.open_load(mode="full_refresh")
    n = 5000
    floats = np.random.default_rng(1).standard_normal((n, 32)).astype(np.float32)
    expect(c.put_part(load, "p", floats.tobytes(), OCTETS, first_key=0), 201)
    first = c.send_commit(load, wait="indexed", wait_s=0)
    assert first.status == 202, first
    assert first.headers["Location"] == f"{c.path}/loads/{load['load']}"
    assert first.json()["state"] == "committing"
    assert set(first.json()["index"]) == {"progress", "eta_s"}
    problem(c.send_abort(load), 409, "being committed")
    problem(c.put_part(load, "q", bytes(128), OCTETS, first_key=9), 409, "being committed")
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(c.send_commit(load, wait_s=120)))
        for _ in range(3)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    results = [expect(a) for a in answers]
    assert all(r == results[0] for r in results) and results[0]["rows"] == n
    assert expect(c.client.get(first.headers["Location"]))["result"] == results[0]
    index = c.index()
    assert index["indexed_rows"] == n, "visible only with its index"


def test_a_one_shot_can_be_asked_for_too(collection):
    c = collection.create(key="int64", vector={"dim": 32, "metric": "l2"}, index={"kind": "hnsw", "m": 8, "ef_construction": 40})
    floats = np.random.default_rng(1).standard_normal((5000, 32)).astype(np.float32)
    got = c.send_rows(floats.tobytes(), OCTETS, first_key=0, mode="full_refresh", wait_s=0)
    assert got.status == 202
    where = got.headers["Location"]
    deadline = time.monotonic() + 120
    while expect(c.client.get(where))["state"] == "committing":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    done = expect(c.client.get(where))
    assert done["state"] == "committed" and done["result"]["rows"] == 5000
    assert expect(c.client.post(where + "/commit")) == done["result"]
    problem(c.client.get(where.replace(c.name, "nowhere")), 404)


# ---- limits ----


def test_limits_are_named(start_daemon):
    daemon = start_daemon(
        env={
            "LOADSTONE_LOADS_MAX": "2",
            "LOADSTONE_PARTS_MAX": "3",
            "LOADSTONE_PART_NAME_BYTES_MAX": "8",
            "LOADSTONE_WAIT_S_MAX": "5",
        }
    )
    c = Collection(daemon.client, "c").create(key="string", features={"n": "int64"})
    load, _ = c.open_load(), c.open_load()
    full = c.send_open()
    problem(full, 429, "loads_max")
    assert full.headers["Retry-After"]
    for i in range(3):
        expect(c.put_part(load, f"{i}", rows(f"{i}")), 201)
    problem(c.put_part(load, "3", rows("3")), 413, "parts_max")
    assert expect(c.put_part(load, "1", rows("1")), 200)["rows"] == 1
    problem(c.put_part(load, "too long a name", rows("3")), 400, "part_name_bytes_max")
    problem(c.send_commit(load, wait_s=6), 400, "wait_s_max")
    assert c.commit_load(load)["rows"] == 3
    c.open_load()
    limits = expect(daemon.client.get("/v1/limits"))
    assert limits["loads_max"] == 2 and limits["parts_max"] == 3


def test_dropping_a_collection_ends_its_loads(table):
    load = table.open_load()
    table.put_part(load, "p", rows("a"))
    expect(table.client.delete(table.path), 204)
    problem(table.put_part(load, "q", rows("b")), 404)
    table.create(key="string", features={"n": "int64"})
    problem(table.send_commit(load), 404)
