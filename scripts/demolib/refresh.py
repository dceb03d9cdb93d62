"""The demo's second load: a full refresh while others ask, and the way back.

The refresh leaves out one section of the archive. It is sent as a load of several parts, side by
side; an asker puts the same question all the while and notes which version answered. Then: what the
tag still shows, the difference by key, a restore, the list of versions.
"""

import json
import threading
import time
from collections import Counter

from toolslib import screen
from toolslib.client import NDJSON, Client, Collection

PARTS = 4
LEFT_OUT = "doc"
TAG = "before-refresh"
POLL_S = 0.25


class Changed(Exception):
    """A promise that did not hold: the run must fail."""


class Asker(threading.Thread):
    """Asks one question until stopped; every answer of one version must be the same."""

    def __init__(self, url, name, vector):
        super().__init__(daemon=True)
        self.collection = Collection(Client(url), name)
        self.question = {"vector": vector, "k": 10, "exact": True, "features": ["section"]}
        self.stopping = threading.Event()
        self.keys, self.answers = {}, Counter()
        self.slowest_us, self.error = 0, None

    def run(self):
        try:
            while not self.stopping.is_set():
                self._ask()
        except Exception as e:  # told by stop()
            self.error = e

    def _ask(self):
        started = time.perf_counter()
        answer = self.collection.search(**self.question)
        self.slowest_us = max(self.slowest_us, (time.perf_counter() - started) * 1e6)
        version = answer["version"]
        keys = [hit["key"] for hit in answer["hits"][0]]
        self.answers[version] += 1
        if self.keys.setdefault(version, keys) != keys:
            raise Changed(f"version {version} answered one question in two ways")

    def stop(self):
        self.stopping.set()
        self.join()
        if self.error:
            raise self.error


def _parts(path):
    """The rows that stay, as PARTS bodies of about the same number of lines."""
    bodies = [bytearray() for _ in range(PARTS)]
    kept = 0
    with open(path, "rb") as f:
        for line in f:
            if json.loads(line)["section"].rpartition("/")[2] == LEFT_OUT:
                continue
            bodies[kept % PARTS] += line
            kept += 1
    return bodies, kept


def _send(url, name, load, number, body, progress, failures):
    try:
        collection = Collection(Client(url), name)
        collection.put_part(load, f"part-{number}", bytes(body), NDJSON)
        progress.advance(len(body))
    except Exception as e:  # told by the caller
        failures.append(e)


def _send_all(url, collection, load, bodies):
    failures = []
    label, size = f"PUT {PARTS} parts side by side", sum(map(len, bodies))
    with screen.Progress(label, size, "MB", 1e6) as progress:
        senders = []
        for i, body in enumerate(bodies):
            what = (url, collection.name, load, i, body, progress, failures)
            senders.append(threading.Thread(target=_send, args=what))
            senders[-1].start()
        for sender in senders:
            sender.join()
        if failures:
            raise failures[0]


def _commit(collection, load):
    """Commits, with the daemon's own progress on the bar while the index is built."""
    with screen.Progress("commit, when its index is built", 1000) as progress:
        answer = collection.commit(load, wait_s=0)
        while "version" not in answer:
            index = collection.load_state(load).get("index") or {}
            progress.reach(int((index.get("progress") or 0) * 1000), index.get("eta_s"))
            time.sleep(POLL_S)
            answer = collection.commit(load, wait_s=0)
    return answer


def refresh(url, collection, prepared, vector):
    """Loads the refresh under questions; returns the commit's answer."""
    bodies, kept = _parts(prepared.rows_path)
    screen.note(f"{kept:,} of {prepared.stamp['rows']:,} rows: section '{LEFT_OUT}' is left out")
    asker = Asker(url, collection.name, vector)
    asker.start()
    try:
        load = collection.begin_load("full_refresh", f"without section {LEFT_OUT}")["load"]
        _send_all(url, collection, load, bodies)
        answer = _commit(collection, load)
    finally:
        asker.stop()
    seen = ", ".join(f"{n:,} by version {v}" for v, n in sorted(asker.answers.items()))
    screen.note(
        f"version {answer['version']}: {answer['rows']:,} rows, {answer['deleted']:,} keys gone"
    )
    screen.note(
        f"questions answered meanwhile: {seen}; the slowest took {asker.slowest_us / 1000:.1f} ms;"
        " no answer mixed the two"
    )
    return answer


def compare(collection, vector, words):
    """The same question to the tag and to the newest version."""
    sides = []
    for selector in ({"tag": TAG}, {}):
        hits = collection.search(vector=vector, k=5, features=["section"], **selector)
        sides.append([f"{h['key']} ({h['features']['section']})" for h in hits["hits"][0]])
    print(f'\n   "{words}"')
    columns = [("", 2, True), (f"tag {TAG}", 44, False), ("newest", 44, False)]
    screen.table(columns, zip(range(1, 6), *sides))


def show_difference(collection, before, after):
    difference = collection.diff(before, after)
    counts = ", ".join(f"{len(difference[op]):,} {op}" for op in ("added", "updated", "removed"))
    screen.note(f"diff from version {before} to {after}: {counts}")


def restore(collection, before):
    """A new commit with the rows of the tag; its digest says that they are the same."""
    answer = collection.restore(tag=TAG, message="back to what the tag names")
    digests = [collection.version(v)["digest"] for v in (before, answer["version"])]
    if digests[0] != digests[1]:
        raise Changed(f"the restored version has digest {digests[1]}, not {digests[0]}")
    screen.note(
        f"restored: version {answer['version']} has the digest of version {before},"
        f" {digests[0][:12]}..."
    )
    return answer["version"]


def show_versions(collection):
    columns = [("version", 7, True), ("time", 20, False), ("mode", 13, False), ("rows", 7, True)]
    columns += [("digest", 12, False), ("tags", 15, False), ("message", 40, False)]
    rows = []
    for v in collection.versions():
        cells = [v["version"], v["time"][:19] + "Z", v["mode"], f"{v['rows']:,}"]
        rows.append([*cells, v["digest"][:12], ", ".join(v["tags"]), v["message"] or ""])
    screen.table(columns, rows)


def run(url, collection, prepared, vector, words):
    """All of it; returns the version that is newest at the end."""
    before = collection.describe()["version"]
    collection.tag(TAG, before)
    screen.note(f"version {before} has the tag {TAG}")
    after = refresh(url, collection, prepared, vector)["version"]
    compare(collection, vector, words)
    show_difference(collection, before, after)
    newest = restore(collection, before)
    show_versions(collection)
    return newest

