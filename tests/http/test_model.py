"""Version after version in all modes at random, against a model in Python (model.py).

Each step loads, deletes, restores, tags, compacts, vacuums, or kills the daemon; after each, the
newest version and some old one are compared with the model: counts, fetch, exact search, filters,
export, pages, diff, listing. What was read once of a version must be read again to the byte.

MODEL_STEPS steps (default 150; `make soak` takes 1,000) from MODEL_SEED (default 1), which is
printed: the same seed repeats the run.
"""

import collections
import contextlib
import csv
import hashlib
import http.client
import io
import json
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlencode

import pytest

from conftest import BACKENDS
from client import JSON, NDJSON, Collection, expect, key_path, ndjson, problem
from model import COLUMNS, DAYS, SCHEMA, Model, Refused, random_condition

STEPS = int(os.environ.get("MODEL_STEPS", 150))
SEED = int(os.environ.get("MODEL_SEED", 1))
KEYS = 300
BULK = 17000  # more than one commit may leave in the tail


def plain(value):
    return list(value) if isinstance(value, tuple) else value


class Known:
    """What this build of the server offers."""

    def __init__(self, client):
        self.paths = expect(client.get("/openapi.json"))["paths"]

    def __call__(self, tail, word=""):
        return any(p.endswith(tail) and word in json.dumps(self.paths[p]) for p in self.paths)


class Session:
    """An open load: its parts as they were acknowledged."""

    def __init__(self, load, mode, options):
        self.load, self.mode, self.options = load, mode, options
        self.parts = {}  # name -> (rows, content type, body)


class Run:
    def __init__(self, daemon, seed, key_type):
        self.daemon, self.seed, self.key_type = daemon, seed, key_type
        self.rng = random.Random(seed)
        self.model = Model()
        self.sessions = []
        self.seen = {}  # (version, what) -> hash of the bytes
        self.digests = {}  # content -> digest
        self.counted = collections.Counter()
        self.bulk = False
        self.knows = Known(daemon.client)
        schema = dict(SCHEMA)
        if not self.knows("/loads"):
            del schema["partition_by"]
        self.c = Collection(daemon.client, "m").create(
            key=key_type, index={"kind": "flat"}, **schema
        )

    # ---- making rows ----

    def key(self, i):
        return i if self.key_type == "int64" else f"k-{i:03}é"

    def any_key(self):
        return self.key(self.rng.randrange(KEYS))

    def cell(self, column):
        rng = self.rng
        if rng.random() < 0.15:
            return None
        return {
            "vector": lambda: [rng.randrange(-3, 4) for _ in range(4)],
            "n": lambda: rng.randrange(60),
            "f": lambda: rng.randrange(-40, 200) / 4,
            "s": lambda: rng.choice(["", "a", "ab", "abc", "b", 'q"u,o\nte', "ü"]),
            "day": lambda: rng.choice(DAYS),
            "tags": lambda: [rng.choice(["a", "ab", "b", ""]) for _ in range(rng.randrange(4))],
        }[column]()

    def row(self, key, share=1.0):
        given = [c for c in COLUMNS if self.rng.random() < share]
        return {"key": key, **{c: self.cell(c) for c in given}}

    def some_rows(self, most, share=0.85):
        keys = self.rng.sample(range(KEYS), self.rng.randrange(most + 1))
        return [self.row(self.key(k), share) for k in keys]

    def fresh_rows(self, most):
        head = self.model.head().rows
        free = [k for k in range(KEYS) if self.key(k) not in head]
        self.rng.shuffle(free)
        return [self.row(self.key(k), 0.8) for k in free[: self.rng.randrange(most + 1)]]

    def partition_rows(self):
        """Rows of one or two days, of keys that live in no other."""
        days = self.rng.sample(DAYS, self.rng.randrange(1, 3))
        head = self.model.head().rows
        rows = []
        for row in self.some_rows(40):
            old = head.get(row["key"])
            row["day"] = self.rng.choice(days) if old is None else old.cell("day")
            if row["day"] in days:
                rows.append(row)
        return days, rows

    # ---- answers ----

    def landed(self, answer, version):
        """The answer's figures are the model's."""
        assert answer["version"] == version.number, (answer, version.number)
        for name, count in version.counts.items():
            if name in answer:
                assert answer[name] == count, (name, answer, version.counts)
        return answer

    def refused(self, response):
        problem(response, 422)
        self.counted["refused"] += 1

    def encode(self, rows):
        """The same rows in a format at random."""
        kind = self.rng.choice([JSON, NDJSON])
        if kind == JSON or not rows:
            kind = JSON
            return kind, json.dumps({"rows": rows}).encode()
        return kind, ndjson(rows)

    def post_rows(self, mode, rows, key=None, **query):
        kind, body = self.encode(rows)
        headers = {"Content-Type": kind}
        if key:
            headers["Idempotency-Key"] = key
        path = f"{self.c.path}/rows?{urlencode({'mode': mode, **query})}"
        return lambda: self.c.client.post(path, body, headers=headers)

    # ---- steps ----

    def load(self, mode, rows, **query):
        query = {k: v for k, v in query.items() if v is not None}
        retried = self.knows("/loads") and self.rng.random() < 0.3
        key = f"{self.seed}-{self.rng.random()}" if retried else None
        if self.rng.random() < 0.1:
            wrong = self.model.newest + 1
            answer = self.post_rows(mode, rows, expected_version=wrong, **query)()
            assert answer.status in (412, 422), answer  # the rows may be refused, too
        send = self.post_rows(mode, rows, key, **query)
        message = query.get("message")
        try:
            version = self.model.load(mode, rows, query.get("duplicates"), message=message)
        except Refused:
            return self.refused(send())
        first = self.landed(expect(send()), version)
        if retried:
            if self.rng.random() < 0.2:
                self.kill()
            assert expect(send()) == first, "a retry gets the first answer"
            other = self.post_rows(mode, [*rows, self.row(self.key(KEYS + 1))], key, **query)
            problem(other(), 422)
            self.counted["retries"] += 1
        return first

    def upsert(self):
        rows = self.some_rows(40)
        if rows and self.rng.random() < 0.2:
            rows.append(self.row(self.rng.choice(rows)["key"], 0.7))
        self.load("upsert", rows, duplicates=self.rng.choice([None, "last"]))

    def append(self):
        rows = self.fresh_rows(30)
        if self.rng.random() < 0.15 and self.model.head().rows:
            rows.append(self.row(self.rng.choice(list(self.model.head().rows))))
        self.load("append", rows, message=self.rng.choice([None, "nightly", "ü\"'"]))

    def bulk_upsert(self):
        """More than a commit leaves in the tail: segment files."""
        if self.bulk:
            return self.full_refresh()
        self.bulk = True
        rows = [
            {"key": self.key(10000 + i), "n": i % 60, "vector": [i % 7, i % 5, 1, 50 + i % 9]}
            for i in range(BULK)
        ]
        return self.load("upsert", rows)

    def full_refresh(self):
        if not self.knows("/rows", "full_refresh"):
            return None
        self.bulk = False
        return self.load("full_refresh", self.some_rows(150))

    def partition_overwrite(self):
        if not self.knows("/rows", "partition_overwrite"):
            return None
        _, rows = self.partition_rows()
        if self.rng.random() < 0.15:
            rows += [self.row(self.any_key()) for _ in range(2)]
            if len({r["key"] for r in rows}) < len(rows) or self.ambiguous(rows):
                return None
        return self.load("partition_overwrite", rows)

    def ambiguous(self, rows):
        """A key that moves from one replaced partition to another."""
        head = self.model.head().rows
        days = {row.get("day") for row in rows}
        return any(
            r["key"] in head and head[r["key"]].cell("day") in days - {r.get("day")} for r in rows
        )

    def delete(self):
        head = list(self.model.head().rows)
        keys = [self.any_key() for _ in range(self.rng.randrange(10))]
        keys += self.rng.sample(head, min(len(head), self.rng.randrange(20)))
        answer = expect(self.c.client.post(f"{self.c.path}/rows/delete", {"keys": keys}))
        self.landed(answer, self.model.delete(keys, len(keys)))

    def delete_where(self):
        if not self.knows("/rows/delete", '"filter"'):
            return
        condition = random_condition(self.rng)
        head = self.model.head().rows
        keys = [k for k, row in head.items() if condition.of(k, row) is True]
        answer = expect(
            self.c.client.post(f"{self.c.path}/rows/delete", {"filter": condition.sql})
        )
        self.landed(answer, self.model.delete(keys, answer.get("rows", len(keys))))

    def restore(self):
        if not self.knows("/restore"):
            return
        number, selector = self.any_selector()
        answer = expect(self.c.client.post(f"{self.c.path}/restore", selector))
        self.bulk = any(k == self.key(10000) for k in self.model.versions[number].rows)
        self.landed(answer, self.model.restore(number))

    def tag(self):
        if not self.knows("/tags/{tag}"):
            return
        tag = self.rng.choice(["prod", "train", "v-1", "staging"])
        path = f"{self.c.path}/tags/{tag}"
        if tag in self.model.tags and self.rng.random() < 0.3:
            expect(self.c.client.delete(path), 204)
            del self.model.tags[tag]
            problem(self.c.client.get(path), 404)
            return
        number = self.any_version()
        answer = self.c.client.put(path, {"version": number})
        assert answer.status in (200, 201), answer
        self.model.tags[tag] = number
        assert expect(self.c.client.get(path))["version"] == number

    def compact(self):
        if self.knows("/compact"):
            expect(self.c.client.post(f"{self.c.path}/compact"))
            self.counted["compactions"] += 1

    def vacuum(self):
        if not self.knows("/vacuum"):
            return
        newest = self.rng.randrange(5, 40)
        limits = {"versions": newest}
        path = f"{self.c.path}/vacuum"
        kept = self.model.retained(newest)
        gone = sorted(set(self.model.versions) - kept - {0})
        loose = self.model.loose()
        wanted = range(len(gone) - len(loose), len(gone) + 1)
        for _ in range(50):  # what was just exported may be open still
            trial = expect(self.c.client.post(path, {**limits, "dry_run": True}))
            assert trial["dry_run"] is True
            if trial["versions"] in wanted:
                break
            time.sleep(0.02)
        for number in [v for v in gone if v not in loose][:2]:
            expect(self.describe(number))
        done = expect(self.c.client.post(path, limits))
        assert done["versions"] in wanted, (trial, done, gone)
        self.model.vacuumed(kept, done["horizon"])
        for number in gone[:2] + gone[-2:]:
            problem(self.describe(number), 410)
            problem(self.c.send_search(vector=[0] * 4, version=number), 410)
        self.counted["vacuumed"] += len(gone)

    def purge(self):
        if not self.knows("/purge"):
            return
        head = list(self.model.head().rows)
        keys = self.rng.sample(head, min(len(head), 3)) + [self.key(KEYS + 7)]
        answer = expect(self.c.client.post(f"{self.c.path}/purge", {"keys": keys}))
        self.model.purge(set(keys))
        self.model.commit("purge", dict(self.model.head().rows), len(keys), ())
        assert answer["version"] == self.model.newest
        self.model.head().counts = {}
        self.seen.clear()
        self.digests.clear()

    # ---- sessions ----

    def open_session(self):
        if not self.knows("/loads") or len(self.sessions) >= 4:
            return
        mode = self.rng.choice(["upsert", "append", "full_refresh", "partition_overwrite"])
        options = {"mode": mode}
        if self.rng.random() < 0.5:
            metadata = {"run": self.rng.randrange(99), "ok": [True, None]}
            options |= {"message": "in parts", "metadata": metadata}
        if mode == "partition_overwrite":
            options["partitions"] = [{"day": day} for day in self.rng.sample(DAYS, 2)]
        answer = expect(self.c.client.post(f"{self.c.path}/loads", options), 201)
        self.sessions.append(Session(answer["load"], mode, options))

    def part_rows(self, session):
        taken = {row["key"] for rows, *_ in session.parts.values() for row in rows}
        if session.mode == "append":
            rows = self.fresh_rows(20)
        elif session.mode == "partition_overwrite":
            days = [p["day"] for p in session.options["partitions"]]
            rows = [{**row, "day": self.rng.choice(days)} for row in self.some_rows(20)]
        else:
            rows = self.some_rows(30)
        return [row for row in rows if row["key"] not in taken]

    def fresh_parts(self, session):
        """name -> rows, type and body; no key is in two parts."""
        fresh, taken = {}, set()
        for _ in range(self.rng.randrange(1, 5)):
            name = f"{self.rng.randrange(3)}/{self.rng.randrange(3)}/{self.rng.randrange(9)}"
            if name not in session.parts and name not in fresh:
                rows = [row for row in self.part_rows(session) if row["key"] not in taken]
                taken |= {row["key"] for row in rows}
                fresh[name] = (rows, *self.encode(rows))
        return fresh

    def put_part(self, session, name, kind, body):
        path = f"{self.c.path}/loads/{session.load}/parts/{quote(name)}"
        return self.c.client.put(path, body, headers={"Content-Type": kind})

    def put_parts(self):
        """Up to four parts side by side, some sent twice, one of them with other bytes."""
        if not self.sessions:
            return self.open_session()
        session = self.rng.choice(self.sessions)
        fresh = self.fresh_parts(session)
        with ThreadPoolExecutor(4) as pool:
            for answer in pool.map(lambda n: self.put_part(session, n, *fresh[n][1:]), fresh):
                expect(answer, 201)
        session.parts |= fresh
        if self.rng.random() < 0.15:
            self.kill()
        if session.parts and self.rng.random() < 0.3:
            name = self.rng.choice(sorted(session.parts))
            _, kind, body = session.parts[name]
            expect(self.put_part(session, name, kind, body))
            problem(self.put_part(session, name, kind, body + b" \n"), 409)
        state = expect(self.c.client.get(f"{self.c.path}/loads/{session.load}"))
        assert state["rows"] == sum(len(rows) for rows, *_ in session.parts.values()), state
        return None

    def end_session(self):
        if not self.sessions:
            return
        session = self.rng.choice(self.sessions)
        path = f"{self.c.path}/loads/{session.load}"
        if self.rng.random() < 0.1:
            self.sessions.remove(session)
            expect(self.c.client.delete(path), 204)
            problem(self.c.client.post(f"{path}/commit", {}), 410)
            return
        names = sorted(session.parts, key=lambda name: name.encode())
        body = {}
        if names and self.rng.random() < 0.4:
            names = [n for n in names if self.rng.random() < 0.7]
            body = {"parts": self.rng.sample(names, len(names))}
        if self.rng.random() < 0.1:
            problem(self.c.client.post(f"{path}/commit", {"parts": [*names, "not/there"]}), 422)
        self.commit_session(session, path, names, body)

    def commit_session(self, session, path, names, body):
        rows = [row for name in names for row in session.parts[name][0]]
        options = session.options
        partitions = options.get("partitions")
        try:
            version = self.model.load(
                session.mode,
                rows,
                partitions=partitions and [p["day"] for p in partitions],
                message=options.get("message"),
                metadata=options.get("metadata"),
            )
        except Refused:
            self.refused(self.c.client.post(f"{path}/commit", body))
            expect(self.c.client.delete(path), 204)
            self.sessions.remove(session)
            return
        self.sessions.remove(session)
        if session.mode == "full_refresh":
            self.bulk = False
        answer = self.landed(expect(self.c.client.post(f"{path}/commit", body)), version)
        self.counted["sessions"] += 1
        if self.rng.random() < 0.3:
            self.kill()
        assert expect(self.c.client.post(f"{path}/commit", body)) == answer, "a repeated commit"
        problem(self.c.client.put(f"{path}/parts/late", b"", headers={"Content-Type": NDJSON}), 409)

    # ---- crashes ----

    def kill(self):
        self.daemon.restart()
        self.c = self.c.on(self.daemon.client)
        self.counted["kills"] += 1

    def restart(self):
        assert self.daemon.stop() == 0
        self.daemon.start()
        self.c = self.c.on(self.daemon.client)
        self.counted["restarts"] += 1

    def kill_under_way(self):
        """A commit is whole or not at all, whenever the daemon dies."""
        rows = self.some_rows(40)
        send = self.post_rows("upsert", rows)
        answers = []

        def post():
            with contextlib.suppress(OSError, http.client.HTTPException):
                answers.append(send())

        sender = threading.Thread(target=post)
        sender.start()
        time.sleep(self.rng.choice([0, 0.001, 0.002, 0.005]))
        self.daemon.kill()
        sender.join()
        self.daemon.start()
        self.c = self.c.on(self.daemon.client)
        self.counted["kills"] += 1
        number = self.c.describe()["version"]
        assert number in (self.model.newest, self.model.newest + 1)
        if number > self.model.newest:
            version = self.model.load("upsert", rows)
            if answers:
                self.landed(expect(answers[0]), version)
        assert number == self.model.newest or not answers

    # ---- reading ----

    def any_version(self):
        numbers = sorted(v for v in self.model.versions if v and v not in self.model.loose())
        if not numbers:
            return 0
        return self.rng.choice([numbers[-1], numbers[0], *self.rng.choices(numbers, k=3)])

    def any_selector(self):
        """A version, and one way of naming it."""
        tags = list(self.model.tags)
        if tags and self.rng.random() < 0.3:
            tag = self.rng.choice(tags)
            return self.model.tags[tag], {"tag": tag}
        number = self.any_version()
        time_of = self.model.versions[number].time
        following = self.model.versions.get(number + 1)
        if time_of and (not following or following.time != time_of) and self.rng.random() < 0.3:
            return number, {"as_of": time_of}
        return number, {"version": number}

    def describe(self, number):
        return self.c.client.get(f"{self.c.path}/versions/{number}")

    def check_head(self):
        head = self.model.head()
        assert self.c.state() == (head.number, len(head.rows))
        self.check_version(head.number, {})

    def check_version(self, number, selector):
        version = self.model.versions[number]
        self.counted["reads"] += 1
        self.check_fetch(version, selector)
        self.check_search(version, selector)
        self.check_count(version, selector)
        if self.rng.random() < 0.3 and len(version.rows) < 1000:
            self.check_pages(version, selector)

    def check_fetch(self, version, selector):
        keys = [self.any_key() for _ in range(12)]
        keys += self.rng.sample(sorted(version.rows), min(8, len(version.rows)))
        got = self.c.fetch(keys, with_vectors=True, **selector)
        assert got["version"] == version.number
        assert got["keys"] == keys
        rows = [version.rows.get(key) for key in keys]
        assert got["found"] == [row is not None for row in rows]
        for column in COLUMNS:
            cells = got["vectors"] if column == "vector" else got["features"][column]
            wanted = [row and plain(row.cell(column)) for row in rows]
            assert cells == wanted, (column, keys, cells, wanted)
        key = keys[-1]
        answer = self.c.client.get(f"{self.c.path}/rows/{key_path(key)}?{urlencode(selector)}")
        if key in version.rows:
            assert expect(answer)["features"]["n"] == version.rows[key].cell("n")
        else:
            problem(answer, 404)

    def check_search(self, version, selector):
        query = [self.rng.randrange(-3, 4) for _ in range(4)]
        k = self.rng.choice([1, 5, 10, 50])
        filtered = self.knows("/loads") and self.rng.random() < 0.5
        condition = random_condition(self.rng) if filtered else None
        radius = self.rng.choice([None, None, 3.5])
        body = {"vector": query, "k": k, "exact": True, **selector}
        body |= {"filter": condition.sql} if condition else {}
        body |= {"radius": radius} if radius else {}
        got = self.c.search(**body)
        wanted = self.model.nearest(version.number, query, k, condition, radius)
        assert got["version"] == version.number
        hits = got["hits"][0]
        assert [h["key"] for h in hits] == [key for key, _ in wanted], (body, hits, wanted)
        for hit, (_, distance) in zip(hits, wanted, strict=True):
            assert abs(hit["distance"] - distance) <= 1e-5 * max(1, distance)

    def check_count(self, version, selector):
        body = dict(selector)
        rows = version.rows.items()
        if self.knows("/loads"):
            condition = random_condition(self.rng)
            body["filter"] = condition.sql
            rows = [k for k, row in rows if condition.of(k, row) is True]
        got = expect(self.c.client.post(f"{self.c.path}/count", body))
        assert (got["version"], got["count"]) == (version.number, len(rows)), body

    def check_pages(self, version, selector):
        rows = self.c.all_rows(limit=self.rng.choice([7, 100, 1000]), **selector)
        assert [r["key"] for r in rows] == [key for key, _ in version.in_order()]

    # ---- history ----

    def check_history(self):
        if not self.knows("/versions"):
            return
        self.check_listing()
        number, selector = self.any_selector()
        self.check_version(number, selector)
        self.check_described(number)
        if self.knows("/export.{format}"):
            self.check_export(number)
        if self.knows("/diff"):
            self.check_diff()
        if self.knows("/loads"):
            problem(self.describe(self.model.newest + 1), 404)

    def check_listing(self):
        listed, before = [], None
        while True:
            query = {"limit": 25} | ({"before": before} if before else {})
            answer = self.c.client.get(f"{self.c.path}/versions?{urlencode(query)}")
            part = expect(answer)["versions"]
            listed += part
            if not part:
                break
            before = part[-1]["version"]
        there = {v["version"] for v in listed}
        for number in self.model.loose() - there:
            del self.model.versions[number]
        retained = sorted((v for v in self.model.versions if v), reverse=True)
        assert [v["version"] for v in listed] == retained, self.model.tags
        times = [v["time"] for v in listed]
        assert times == sorted(times, reverse=True), "commit times are monotone"
        for entry in listed:
            self.check_entry(entry)

    def check_entry(self, entry):
        version = self.model.versions[entry["version"]]
        assert entry["mode"] == version.mode, (entry, version.mode)
        assert entry["message"] == version.message and entry["metadata"] == version.metadata, entry
        for name, count in version.counts.items():
            assert entry[name] == count, (name, entry, version.counts)
        tags = sorted(t for t, v in self.model.tags.items() if v == version.number)
        assert sorted(entry["tags"]) == tags
        assert version.time in (None, entry["time"])
        assert version.digest in (None, entry["digest"]), "a version's digest never changes"
        if version.digest is None:
            known = self.digests.setdefault(version.content(), entry["digest"])
            assert known == entry["digest"], "equal content, equal digest"
        version.time, version.digest = entry["time"], entry["digest"]

    def check_described(self, number):
        if number:
            self.check_entry(expect(self.describe(number)))

    def check_export(self, number):
        version = self.model.versions[number]
        what = self.rng.choice(["ndjson", "csv"])
        path = f"{self.c.path}/versions/{number}/export.{what}"
        answer = self.c.client.get(path)
        assert answer.status == 200, answer
        same = (answer.headers["ETag"], hashlib.sha256(answer.body).hexdigest())
        assert self.seen.setdefault((number, what), same) == same, "an export never changes"
        keys = [key for key, _ in version.in_order()]
        if what == "csv":
            rows = list(csv.DictReader(io.StringIO(answer.body.decode(), newline="")))
            assert [r["key"] for r in rows] == [str(key) for key in keys]
            return
        rows = [json.loads(line) for line in answer.body.splitlines()]
        assert [r["key"] for r in rows] == keys
        for got, (_, row) in zip(rows, version.in_order(), strict=True):
            assert all(got[c] == plain(row.cell(c)) for c in COLUMNS), (got, row)

    def check_diff(self):
        a, b = self.any_version(), self.any_version()
        got = expect(self.c.client.get(f"{self.c.path}/diff?from={a}&to={b}"))
        wanted = self.model.diff(a, b)
        assert {k: got[k] for k in wanted} == wanted, (a, b)

    def check(self):
        self.check_head()
        self.check_history()


STEPS_AT_RANDOM = {
    "upsert": 20,
    "append": 8,
    "bulk_upsert": 1,
    "full_refresh": 4,
    "partition_overwrite": 6,
    "delete": 6,
    "delete_where": 4,
    "restore": 5,
    "tag": 5,
    "compact": 3,
    "vacuum": 1,
    "purge": 1,
    "open_session": 4,
    "put_parts": 10,
    "end_session": 6,
    "kill": 2,
    "restart": 1,
    "kill_under_way": 3,
}


@pytest.mark.timeout(0 if STEPS > 200 else 240)
@pytest.mark.parametrize(("backend", "key_type"), [("default_io", "int64"), ("posix_io", "string")])
def test_every_version_is_what_the_model_says(start_daemon, backend, key_type):
    run = Run(start_daemon(env=BACKENDS[backend]), SEED, key_type)
    names, weights = zip(*STEPS_AT_RANDOM.items(), strict=True)
    for step in range(STEPS):
        name = run.rng.choices(names, weights)[0]
        print(f"seed {SEED}, step {step}: {name}, version {run.model.newest}")
        getattr(run, name)()
        run.check()
    print(f"seed {SEED}: {run.model.newest} versions, {run.counted}")
