"""Idempotency-Key: a request that is sent again gets the first answer, restarts included."""

import threading
import time
import uuid

import pytest

from client import JSON, NDJSON, OCTETS, Collection, RawExchange, expect, problem, request_head


def key():
    return {"Idempotency-Key": str(uuid.uuid4())}


@pytest.fixture
def table(collection):
    return collection.create(key="string", features={"n": "int64"})


ROWS = [{"key": "a", "n": 1}, {"key": "b", "n": 2}]


def test_rows_sent_again_get_the_first_answer(table):
    once = key()
    first = expect(table.send_rows(ROWS, headers=once))
    table.load([{"key": "a", "n": 9}])
    for _ in range(3):
        assert expect(table.send_rows(ROWS, headers=once)) == first
    assert table.describe()["version"] == first["version"] + 1
    assert table.row("a")["features"]["n"] == 9, "the repetition wrote nothing"


def test_another_request_with_the_key_is_refused(table):
    once = key()
    expect(table.send_rows(ROWS, headers=once))
    before = table.state()
    problem(table.send_rows(ROWS[:1], headers=once), 422, "Idempotency-Key")
    problem(table.send_rows(ROWS, headers=once, mode="append"), 422, "Idempotency-Key")
    problem(table.send_rows(ROWS, NDJSON, headers=once), 422, "Idempotency-Key")
    problem(table.client.post(f"{table.path}/rows/delete", {"keys": ["a"]}, headers=once), 422)
    problem(table.send_open(headers=once), 422, "Idempotency-Key")
    assert table.state() == before


def test_a_failed_request_may_be_repeated(table):
    once = key()
    problem(table.send_rows([{"key": "a", "n": "x"}], headers=once), 422, field="n")
    assert expect(table.send_rows(ROWS, headers=once))["rows"] == 2
    append = key()
    problem(table.send_rows(ROWS, headers=append, mode="append"), 422, "exists")
    table.delete_rows(["a", "b"])
    assert expect(table.send_rows(ROWS, headers=append, mode="append"))["inserted"] == 2


def test_deletions_too(table):
    table.load(ROWS)
    once = key()
    path = f"{table.path}/rows/delete"
    first = expect(table.client.post(path, {"keys": ["a", "x"]}, headers=once))
    assert first["deleted"] == 1
    table.load(ROWS)
    assert expect(table.client.post(path, {"keys": ["a", "x"]}, headers=once)) == first
    assert table.count()["count"] == 2
    problem(table.client.post(path, {"keys": ["b"]}, headers=once), 422)


def test_restores_too(table):
    table.load(ROWS)
    table.delete_rows(["a"])
    once = key()
    path = f"{table.path}/restore"
    first = expect(table.client.post(path, {"version": 1}, headers=once))
    assert first["version"] == 3
    table.delete_rows(["b"])
    assert expect(table.client.post(path, {"version": 1}, headers=once)) == first
    assert table.count()["count"] == 1
    problem(table.client.post(path, {"version": 2}, headers=once), 422)


def test_loads_too_and_whatever_became_of_them(table):
    once = key()
    first = table.open_load(headers=once, message="m")
    assert table.open_load(headers=once, message="m") == first
    problem(table.send_open(headers=once, message="other"), 422, "Idempotency-Key")
    table.put_part(first, "p", {"rows": ROWS})
    table.commit_load(first)
    assert table.open_load(headers=once, message="m") == first
    aborted = key()
    load = table.open_load(headers=aborted)
    expect(table.send_abort(load), 204)
    assert table.open_load(headers=aborted) == load


def test_answers_survive_restarts(own_daemon):
    c = Collection(own_daemon.client, "c").create(key="string", features={"n": "int64"})
    rows, delete, opened, committed, aborted = (key() for _ in range(5))
    first = expect(c.send_rows(ROWS, headers=rows))
    gone = expect(c.client.post(f"{c.path}/rows/delete", {"keys": ["a"]}, headers=delete))
    open_load = c.open_load(headers=opened)
    load = c.open_load(headers=committed)
    c.put_part(load, "p", {"rows": ROWS})
    result = c.commit_load(load)
    ended = c.open_load(headers=aborted)
    expect(c.send_abort(ended), 204)
    for how in ("kill", "stop", "kill"):
        if how == "stop":
            own_daemon.stop()
            own_daemon.start()
        else:
            own_daemon.restart()
        c = c.on(own_daemon.client)
        assert expect(c.send_rows(ROWS, headers=rows)) == first
        assert (
            expect(c.client.post(f"{c.path}/rows/delete", {"keys": ["a"]}, headers=delete)) == gone
        )
        assert c.open_load(headers=opened) == open_load
        assert c.open_load(headers=committed) == load
        assert c.open_load(headers=aborted) == ended
        assert c.commit_load(load) == result
        problem(c.send_rows(ROWS[:1], headers=rows), 422)
    assert c.describe()["version"] == result["version"]


def test_a_request_that_still_runs_is_told(server, table):
    once = key()
    body = b'{"key":"a","n":1}\n' * 200000 + b'{"key":"z","n":1}\n'
    query = "?duplicates=last"
    head = request_head("POST", f"{table.path}/rows{query}", Content_Type=NDJSON,
                        Content_Length=len(body), **{"Idempotency_Key": once["Idempotency-Key"]})
    with RawExchange(server.client, 60) as exchange:
        exchange.send(head + body[:-10])
        time.sleep(0.5)  # what came is decoded: the key is taken
        problem(table.send_rows(ROWS, headers=once), 409, "still running")
        exchange.send(body[-10:])
        assert exchange.answer().status == 200
    got = table.send_rows(body, NDJSON, headers=once, duplicates="last")
    assert expect(got)["version"] == table.describe()["version"] == 1


def test_a_client_that_goes_away_frees_its_key(server, table):
    once = key()
    body = b'{"key":"a","n":1}\n' * 200000
    head = request_head("POST", f"{table.path}/rows", Content_Type=NDJSON,
                        Content_Length=len(body), **{"Idempotency_Key": once["Idempotency-Key"]})
    with RawExchange(server.client, 60) as exchange:
        exchange.send(head + body[:-10])
        time.sleep(0.3)
    deadline = time.monotonic() + 20
    while True:
        got = table.send_rows(ROWS, headers=once)
        if got.status == 200:
            break
        problem(got, 409)
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_many_at_once_commit_once(table):
    once = key()
    answers = []

    def send():
        while True:
            got = table.send_rows(ROWS, headers=once)
            if got.status != 409:
                answers.append(expect(got))
                return
            time.sleep(0.01)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert answers == [answers[0]] * 8 and table.describe()["version"] == 1


def test_keys_belong_to_their_collection(client, table):
    once = key()
    expect(table.send_rows(ROWS, headers=once))
    other = Collection(client, table.name + "_other").create(key="string", features={"n": "int64"})
    assert expect(other.send_rows(ROWS[:1], headers=once))["rows"] == 1


@pytest.mark.parametrize("bad", ["", "with space", "x" * 256, "ü"])
def test_keys_are_visible_ascii(table, bad):
    before = table.state()
    headers = {"Idempotency-Key": bad.encode()}
    problem(table.send_rows(ROWS, headers=headers), 400, "Idempotency-Key")
    problem(table.send_open(headers=headers), 400, "Idempotency-Key")
    assert table.state() == before


def test_a_dropped_collection_takes_its_keys_along(table):
    once = key()
    first = expect(table.send_rows(ROWS, headers=once))
    expect(table.client.delete(table.path), 204)
    table.create(key="string", features={"n": "int64"})
    again = expect(table.send_rows(ROWS, headers=once))
    assert again["version"] > first["version"] and again["inserted"] == 2


def test_the_oldest_keys_are_forgotten_past_the_limit(start_daemon):
    daemon = start_daemon(env={"LOADSTONE_IDEMPOTENCY_KEYS_MAX": "3"})
    c = Collection(daemon.client, "c").create(key="string", features={"n": "int64"})
    keys = [key() for _ in range(5)]
    for k in keys:
        expect(c.send_rows(ROWS, headers=k))
    for k, version in reversed(list(zip(keys, range(1, 6), strict=True))[2:]):
        assert expect(c.send_rows(ROWS, headers=k))["version"] == version
    assert expect(c.send_rows(ROWS, headers=keys[0]))["version"] == 6


def test_vectors_too(collection):
    c = collection.create(key="int64", vector={"dim": 4, "metric": "l2"})
    once = key()
    body = bytes(16 * 100000)
    first = expect(c.send_rows(body, OCTETS, headers=once, first_key=0))
    assert expect(c.send_rows(body, OCTETS, headers=once, first_key=0)) == first
    problem(c.send_rows(body, OCTETS, headers=once, first_key=1), 422)
    assert c.describe()["version"] == 1 and c.count()["count"] == 100000
