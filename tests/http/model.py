"""What a collection must be, in a few hundred lines of Python: a dict of rows per version.

Model         applies loads, deletes and restores, and says which answer is due
Condition     a filter, as SQL text and as three-valued logic over a row

A row is (seq, vector, n, f, s, day, tags): what the columns hold, and its place in the order of
exports, (version, ordinal) of the commit that wrote it. A version's rows never change; each commit
copies the dict.
"""

from dataclasses import dataclass, field

SCHEMA = {
    "vector": {"dim": 4, "metric": "l2"},
    "features": {"n": "int32", "f": "float32", "s": "string", "day": "string", "tags": "string[]"},
    "partition_by": ["day"],
}
COLUMNS = ["vector", *SCHEMA["features"]]
DAYS = ["d1", "d2", "d3", None]


class Refused(Exception):
    """The load contradicts the data: 422, and nothing changes."""


@dataclass(frozen=True)
class Row:
    seq: tuple
    cells: tuple  # by COLUMNS; vectors and lists as tuples

    def cell(self, column):
        return self.cells[COLUMNS.index(column)]


@dataclass
class Version:
    number: int
    mode: str
    rows: dict
    counts: dict = field(default_factory=dict)
    message: str | None = None
    metadata: dict | None = None
    time: str | None = None
    digest: str | None = None

    def in_order(self):
        return sorted(self.rows.items(), key=lambda item: item[1].seq)

    def content(self):
        return frozenset((key, row.cells) for key, row in self.rows.items())


def frozen(value):
    return tuple(value) if isinstance(value, list) else value


class Model:
    def __init__(self):
        self.versions = {0: Version(0, "create", {})}
        self.tags = {}
        self.newest = 0
        self.horizon = 0  # of the last vacuum: versions below it are there for their tags alone

    def head(self):
        return self.versions[self.newest]

    def commit(self, mode, rows, received, removed, before=None, **said):
        """The next version: `rows` is its content, `removed` the keys that nothing puts back."""
        before = before if before is not None else self.head().rows
        version = Version(self.newest + 1, mode, rows, **said)
        written = {k for k, row in rows.items() if before.get(k) is not row}
        version.counts = {
            "rows": received,
            "inserted": len(written - before.keys()),
            "updated": len(written & before.keys()),
            "deleted": len(removed),
        }
        self.newest = version.number
        self.versions[version.number] = version
        return version

    # ---- loads ----

    def _last_of_equal(self, rows, duplicates):
        last = {}
        for ordinal, row in enumerate(rows):
            if row["key"] in last and duplicates != "last":
                raise Refused("a key comes twice")
            last[row["key"]] = (ordinal, row)
        return last

    def _completed(self, row, old):
        """Absent keeps the old value, or is null; null is null."""
        kept = old.cells if old else (None,) * len(COLUMNS)
        return tuple(
            frozen(row[c]) if c in row else before for c, before in zip(COLUMNS, kept, strict=True)
        )

    def load(self, mode, rows, duplicates=None, partitions=None, **said):
        """`rows`: dicts of key and the columns that are given. Raises Refused."""
        before = self.head().rows
        last = self._last_of_equal(rows, duplicates)
        number = self.newest + 1
        old = before if mode == "upsert" else {}
        made = {
            key: Row((number, ordinal), self._completed(row, old.get(key)))
            for key, (ordinal, row) in last.items()
        }
        if mode == "append" and before.keys() & made.keys():
            raise Refused("a key exists")
        gone = set()
        if mode == "full_refresh":
            gone = set(before)
        elif mode == "partition_overwrite":
            days = set(partitions or [])
            if partitions is None:
                days = {row.cell("day") for row in made.values()}
            if any(row.cell("day") not in days for row in made.values()):
                raise Refused("a row lies outside the partitions")
            if any(k in before and before[k].cell("day") not in days for k in made):
                raise Refused("a key is alive in another partition")
            gone = {k for k, row in before.items() if row.cell("day") in days}
        after = {k: row for k, row in before.items() if k not in gone} | made
        return self.commit(mode, after, len(rows), gone - made.keys(), **said)

    def delete(self, keys, received):
        before = self.head().rows
        gone = {k for k in keys if k in before}
        return self.commit(
            "delete", {k: r for k, r in before.items() if k not in gone}, received, gone
        )

    def restore(self, number):
        """As a full refresh with that version's rows, which keep their place in the order."""
        before, rows = self.head().rows, dict(self.versions[number].rows)
        version = self.commit("restore", rows, len(rows), before.keys() - rows.keys())
        version.counts["inserted"] = len(rows.keys() - before.keys())
        version.counts["updated"] = len(rows.keys() & before.keys())
        return version

    def purge(self, keys):
        for version in self.versions.values():
            version.rows = {k: r for k, r in version.rows.items() if k not in keys}
            version.digest = None

    # ---- what reading must give ----

    def retained(self, newest, pinned=()):
        """The versions that stay when only the newest ones and what is tagged or open do."""
        keep = set(self.tags.values()) | set(pinned)
        return {v for v in self.versions if v and (v > self.newest - newest or v in keep)}

    def loose(self):
        """Versions that lost the tag that kept them: retention takes them when it comes by."""
        held = set(self.tags.values())
        return {v for v in self.versions if 0 < v < self.horizon and v not in held}

    def vacuumed(self, kept, horizon):
        self.horizon = max(self.horizon, horizon)
        self.versions = {v: x for v, x in self.versions.items() if v == 0 or v in kept}

    def diff(self, a, b):
        """Keys added and updated in b's order, removed in a's."""
        old, new = self.versions[a], self.versions[b]
        return {
            "added": [k for k, _ in new.in_order() if k not in old.rows],
            "updated": [
                k for k, r in new.in_order() if k in old.rows and old.rows[k].seq != r.seq
            ],
            "removed": [k for k, _ in old.in_order() if k not in new.rows],
        }

    def nearest(self, number, query, k, condition=None, radius=None):
        """[(key, distance)] by distance, ties by key."""
        found = []
        for key, row in self.versions[number].rows.items():
            vector = row.cell("vector")
            if vector is None or (condition and condition.of(key, row) is not True):
                continue
            distance = sum((a - b) ** 2 for a, b in zip(vector, query, strict=True)) ** 0.5
            if radius is None or distance <= radius:
                found.append((distance, key))
        if found and isinstance(found[0][1], str):
            found = [(d, k.encode(), k) for d, k in found]
        return [(hit[-1], hit[0]) for hit in sorted(found)[:k]]


# ---- filters ----


@dataclass(frozen=True)
class Condition:
    sql: str
    of: object  # (key, row) -> True, False, or None for unknown


def _compare(sql, column, test):
    def of(_key, row):
        value = row.cell(column)
        return None if value is None else test(value)

    return Condition(sql, of)


def _not(a):
    def of(key, row):
        value = a.of(key, row)
        return None if value is None else not value

    return Condition(f"not ({a.sql})", of)


def _and(a, b):
    def of(key, row):
        both = (a.of(key, row), b.of(key, row))
        return False if False in both else None if None in both else True

    return Condition(f"({a.sql}) and ({b.sql})", of)


def _or(a, b):
    def of(key, row):
        both = (a.of(key, row), b.of(key, row))
        return True if True in both else None if None in both else False

    return Condition(f"({a.sql}) or ({b.sql})", of)


def random_condition(rng, depth=2):
    if depth and rng.random() < 0.4:
        make = rng.choice([_and, _or, None])
        a = random_condition(rng, depth - 1)
        return make(a, random_condition(rng, depth - 1)) if make else _not(a)
    x, y = rng.randrange(-5, 60), rng.randrange(0, 40)
    word, day = rng.choice(["a", "ab", "b", ""]), rng.choice(DAYS[:3])
    return rng.choice(
        [
            _compare(f"n < {x}", "n", lambda v: v < x),
            _compare(f"n >= {x}", "n", lambda v: v >= x),
            _compare(f"n != {x}", "n", lambda v: v != x),
            _compare(f"n in ({x}, {y}, 3)", "n", lambda v: v in (x, y, 3)),
            _compare(f"n between {y} and {y + 20}", "n", lambda v: y <= v <= y + 20),
            _compare(f"f <= {x + 0.25}", "f", lambda v: v <= x + 0.25),
            _compare(f"s = '{word}'", "s", lambda v: v == word),
            _compare("s like 'a%'", "s", lambda v: v.startswith("a")),
            _compare(f"day = '{day}'", "day", lambda v: v == day),
            _compare(f"contains(tags, '{word}')", "tags", lambda v: word in v),
            Condition("f is null", lambda _k, row: row.cell("f") is None),
            Condition("s is not null", lambda _k, row: row.cell("s") is not None),
        ]
    )
