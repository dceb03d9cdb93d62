"""kill -9 amid sessions, refreshes, retries, compaction, vacuum and tags: whoever was told that it
is done finds it done once; who was told nothing asks again and finds it done once.

Each client keeps its books and stops at the first broken connection. After the restart it repeats
the request that was under way, as a client with a retry does, and its collection is compared.
"""

import hashlib
import http.client
import os
import random
import subprocess
import threading
import time
from urllib.parse import urlencode

from client import NDJSON, Client, Collection, expect, ndjson
from daemon import BINARY, SANITIZED

ROUNDS = int(os.environ.get("SOAK_ROUNDS", 10))


class Worker(threading.Thread):
    """Works on a collection of its own until the daemon dies."""

    name_of = None  # the collection

    def __init__(self, client, seed):
        super().__init__()
        self.c = Collection(Client(client.host, client.port), self.name_of)
        self.random = random.Random(seed)

    def run(self):
        self.wrong = None
        try:
            while True:
                self.step()
        except (OSError, http.client.HTTPException):
            return  # killed
        except AssertionError as e:
            self.wrong = e


class Sessions(Worker):
    """Loads of several parts; each row tells its load."""

    name_of = "sessions"
    committed = {}  # load -> (rows, first answer)
    number = 0

    def __init__(self, client, seed):
        super().__init__(client, seed)
        self.load = None  # the open one: id, parts sent, parts acknowledged, commit sent
        self.wanted = None

    def begin(self):
        Sessions.number += 1
        self.wanted = f"load-{Sessions.number}"
        self.parts = {
            f"{task}/0": ndjson(
                {"key": f"{self.wanted}-{task}-{i}", "load": self.wanted}
                for i in range(self.random.choice([1, 20, 300]))
            )
            for task in range(self.random.randrange(1, 5))
        }
        self.acknowledged = set()
        answer = self.c.client.post(f"{self.c.path}/loads", {"mode": "append"})
        self.load = f"{self.c.path}/loads/{expect(answer, 201)['load']}"

    def put(self, name, statuses=(201,)):
        path = f"{self.load}/parts/{name}"
        answer = self.c.client.put(path, self.parts[name], headers={"Content-Type": NDJSON})
        assert answer.status in statuses, answer
        self.acknowledged.add(name)

    def commit(self):
        answer = expect(self.c.client.post(f"{self.load}/commit", {"parts": list(self.parts)}))
        rows = sum(body.count(b"\n") for body in self.parts.values())
        assert (answer["rows"], answer["inserted"]) == (rows, rows)
        Sessions.committed[self.load] = (self.wanted, rows, answer)
        self.load = None

    def step(self):
        self.begin()
        for name in self.parts:
            self.put(name)
        self.commit()

    def go_on(self):
        """After the restart: acknowledged parts are there, the rest is sent again."""
        if not self.load:
            return
        state = expect(self.c.client.get(self.load))
        if state["state"] != "committed":
            rows = sum(self.parts[name].count(b"\n") for name in self.acknowledged)
            assert state["rows"] >= rows, (state, self.acknowledged)
            for name in self.parts:
                self.put(name, (200,) if name in self.acknowledged else (200, 201))
        self.commit()

    def check(self):
        for path, (load, rows, answer) in list(Sessions.committed.items())[-20:]:
            body = {"filter": f"load = '{load}'"}
            assert expect(self.c.client.post(f"{self.c.path}/count", body))["count"] == rows
            again = expect(self.c.client.post(f"{path}/commit", {}))
            assert again == answer, "a repeated commit gives the first answer"
        done = Sessions.committed.values()
        assert self.c.state() == (len(done), sum(rows for _, rows, _ in done))


class Refreshes(Worker):
    """Full refreshes: readers see one of them, whole."""

    name_of = "refreshes"
    number = 0
    version = 0

    def __init__(self, client, seed):
        super().__init__(client, seed)
        self.pending = None

    def step(self):
        if not self.pending:
            Refreshes.number += 1
            rows = [{"key": i, "n": Refreshes.number} for i in range(self.random.choice([3, 3000]))]
            self.pending = (Refreshes.number, rows)
        number, rows = self.pending
        answer = self.c.client.post(
            f"{self.c.path}/rows?{urlencode({'mode': 'full_refresh'})}",
            ndjson(rows),
            headers={"Content-Type": NDJSON, "Idempotency-Key": f"refresh-{number}"},
        )
        assert expect(answer)["version"] == number, "exactly one version a refresh"
        self.pending = None

    def go_on(self):
        if self.pending:
            version, rows = self.c.state()
            assert version in (self.pending[0] - 1, self.pending[0])
            self.step()

    def check(self):
        for number in {Refreshes.number, max(1, Refreshes.number - 3)} if Refreshes.number else ():
            answer = self.c.client.get(f"{self.c.path}/rows?version={number}&limit=10000")
            if answer.status == 410:  # vacuumed
                assert number != Refreshes.number
                continue
            rows = expect(answer)["rows"]
            assert {row["n"] for row in rows} == {number}
            assert len(rows) in (3, 3000)


class Upserts(Worker):
    """One row at a time, each with a key of its own to tell a retry by."""

    name_of = "upserts"
    number = 0

    def __init__(self, client, seed):
        super().__init__(client, seed)
        self.pending = False

    def step(self):
        if not self.pending:
            Upserts.number += 1
            self.pending = True
        answer = self.c.client.post(
            f"{self.c.path}/rows",
            {"rows": [{"key": Upserts.number % 50, "n": Upserts.number}]},
            headers={"Idempotency-Key": f"upsert-{Upserts.number}"},
        )
        assert expect(answer)["version"] == Upserts.number, "exactly one version an upsert"
        self.pending = False

    def go_on(self):
        if self.pending:
            self.step()

    def check(self):
        assert self.c.state() == (Upserts.number, min(Upserts.number, 50))
        newest = max(0, Upserts.number - 49)
        got = self.c.fetch([n % 50 for n in range(newest, Upserts.number + 1)])
        wanted = list(range(newest, Upserts.number + 1))
        assert got["features"]["n"][-49:] == wanted[-49:]


class Upkeep(Worker):
    """Tags versions of the others, compacts, vacuums, and remembers what the tagged ones hold."""

    name_of = "refreshes"
    tags = {}  # (collection, tag) -> version, hash of its export
    number = 0

    def step(self):
        c = Collection(self.c.client, self.random.choice(["sessions", "refreshes", "upserts"]))
        act = self.random.choice([self.tag, self.tag, self.compact, self.vacuum, self.look])
        act(c)

    def exported(self, c, version):
        answer = self.c.client.get(f"{c.path}/versions/{version}/export.ndjson")
        assert answer.status == 200, answer
        return hashlib.sha256(answer.body).hexdigest()

    def tag(self, c):
        version = c.describe()["version"]
        if not version:
            return
        Upkeep.number += 1
        tag = f"t{Upkeep.number}"
        expect(self.c.client.put(f"{c.path}/tags/{tag}", {"version": version}), 201)
        Upkeep.tags[c.name, tag] = (version, None)
        Upkeep.tags[c.name, tag] = (version, self.exported(c, version))

    def compact(self, c):
        answer = self.c.client.post(f"{c.path}/compact")
        assert answer.status in (200, 409), answer  # refreshes may replace all that it merges

    def vacuum(self, c):
        expect(self.c.client.post(f"{c.path}/vacuum", {"versions": 5}))

    def look(self, c):
        for (name, tag), (version, content) in list(Upkeep.tags.items())[-3:]:
            self.same(name, tag, version, content)

    def same(self, name, tag, version, content):
        c = Collection(self.c.client, name)
        assert expect(self.c.client.get(f"{c.path}/tags/{tag}"))["version"] == version
        assert content in (None, self.exported(c, version)), "a tagged version never changes"

    def go_on(self):
        pass

    def check(self):
        tags = list(Upkeep.tags.items())
        for (name, tag), (version, content) in self.random.sample(tags, min(8, len(tags))):
            self.same(name, tag, version, content)


def test_kill_loop_of_sessions_refreshes_retries_and_upkeep(own_daemon):
    chance = random.Random(4712)
    kinds = (Sessions, Refreshes, Upserts, Upkeep)
    Sessions.committed, Upkeep.tags = {}, {}
    for kind in kinds:
        kind.number = 0
    client = own_daemon.client
    Collection(client, "sessions").create(key="string", features={"load": "string"})
    for name in ("refreshes", "upserts"):
        Collection(client, name).create(key="int64", features={"n": "int64"})
    for n in range(ROUNDS):
        workers = [kind(own_daemon.client, n * 10 + i) for i, kind in enumerate(kinds)]
        for worker in workers:
            worker.start()
        time.sleep(chance.uniform(0.05, 0.7))
        own_daemon.kill()
        for worker in workers:
            worker.join()
            assert not worker.wrong, worker.wrong
        checked = subprocess.run([str(BINARY), "check", str(own_daemon.data)], capture_output=True)
        assert checked.returncode == 0, checked.stdout.decode()
        own_daemon.start()
        for worker in workers:
            worker.c = worker.c.on(own_daemon.client)
            worker.go_on()
            worker.check()
    commits = len(Sessions.committed) + Refreshes.number + Upserts.number
    print(f"{ROUNDS} rounds, {commits} commits acknowledged, {len(Upkeep.tags)} tags, 0 lost")
    assert commits > ROUNDS * (2 if SANITIZED else 10)
