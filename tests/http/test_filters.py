"""Filters over HTTP. SQLite is the reference for which rows match, three-valued logic included;
searches are held against numpy."""

import random
import sqlite3
from urllib.parse import quote

import numpy as np
import pytest

from client import OCTETS, Collection, expect, problem, read_hits
from data import clustered

FEATURES = {"flag": "bool", "i32": "int32", "i64": "int64", "f64": "float64", "name": "string",
            "a-b": "string"}
STRINGS = ["", "a", "A", "ab", "aab", "a_b", "a%b", "äb", "it's", "zz", "日本", "b"]
INTS = [-(2**63), -3, -1, 0, 1, 2, 3, 2**53, 2**53 + 1, 2**63 - 1]
FLOATS = [-1.5, -0.0, 0.1, 0.5, 1.0, 2.0, 2.0**53, 1e300]


def maybe(rng, value):
    return None if rng.random() < 0.25 else value


def random_rows(rng, n):
    return [
        {
            "key": f"k{i:03}",
            "flag": maybe(rng, rng.random() < 0.5),
            "i32": maybe(rng, rng.randrange(-3, 4)),
            "i64": maybe(rng, rng.choice(INTS)),
            "f64": maybe(rng, rng.choice(FLOATS)),
            "name": maybe(rng, rng.choice(STRINGS)),
            "a-b": maybe(rng, rng.choice(STRINGS)),
        }
        for i in range(n)
    ]


def sqlite_with(rows):
    db = sqlite3.connect(":memory:")
    db.execute("pragma case_sensitive_like = true")
    db.execute('create table t (n integer primary key, "key" text, flag integer, i32 integer,'
               ' i64 integer, f64 real, name text, "a-b" text)')
    names = ["key", *FEATURES]
    for n, row in enumerate(rows):
        db.execute("insert into t values (?,?,?,?,?,?,?,?)", [n, *(row[name] for name in names)])
    return db


class Writer:
    """Random conditions that both understand."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def case(self, word):
        return self.rng.choice([word, word.upper(), word.capitalize()])

    def quote(self, text):
        return "'" + text.replace("'", "''") + "'"

    def number(self):
        return self.rng.choice(
            [str(self.rng.choice(INTS[1:-1])), repr(self.rng.choice(FLOATS)), "1.5", "-0.5", "2.0",
             "9007199254740993", "1e18", "-1e300"]
        )

    def string(self):
        return self.quote(self.rng.choice([*STRINGS, "k010", "k02"]))

    def constant(self, value):
        return "null" if self.rng.random() < 0.05 else value()

    def column(self):
        numbers, strings = ["i32", "i64", "f64", '"i32"'], ["name", '"a-b"', "key", '"key"']
        kind = self.rng.random() < 0.5
        return (self.rng.choice(numbers), self.number, numbers) if kind else (
            self.rng.choice(strings), self.string, strings)

    def pattern(self):
        parts = [self.rng.choice(["a", "b", "%", "_", "ä", "k0", "!%", "!_", "!!", "本", "it''s"])
                 for _ in range(self.rng.randrange(5))]
        return "'" + "".join(parts) + "'"

    def predicate(self):
        column, value, peers = self.column()
        kind = self.rng.randrange(9)
        no = self.case("not") + " " if self.rng.random() < 0.4 else ""
        if kind == 0:
            return self.rng.choice(["flag", "flag = true", "flag = false", "flag != true",
                                    "flag is null", "flag in (true, null)", "true", "false", "null"])
        if kind == 1:
            items = ", ".join(self.constant(value) for _ in range(self.rng.randrange(1, 5)))
            return f"{column} {no}{self.case('in')} ({items})"
        if kind == 2:
            a, b = self.constant(value), self.constant(value)
            return f"{column} {no}{self.case('between')} {a} {self.case('and')} {b}"
        if kind == 3:
            return f"{column} {self.case('is')} {no}{self.case('null')}"
        if kind == 4:
            text = self.rng.choice(["name", '"a-b"', "key"])
            escape = self.case("escape")
            return f"{text} {no}{self.case('like')} {self.pattern()} {escape} '!'"
        op = self.rng.choice(["=", "==", "!=", "<>", "<", "<=", ">", ">="])
        if kind == 5:
            return f"{column} {op} {self.rng.choice(peers)}"
        if kind == 6:
            return f"{self.constant(value)} {op} {column}"
        return f"{column}{op}{self.constant(value)}"

    def condition(self, depth=3):
        kind = self.rng.randrange(5) if depth else 0
        if kind < 2:
            return self.predicate()
        if kind == 2:
            return f"{self.case('not')} ({self.condition(depth - 1)})"
        word = self.case("and" if kind == 3 else "or")
        parts = [self.condition(depth - 1) for _ in range(self.rng.randrange(2, 4))]
        enclose = self.rng.random() < 0.6
        return f" {word} ".join(f"({part})" if enclose else part for part in parts)


@pytest.fixture(scope="module")
def table(shared_server):
    """Rows in three commits of a kind each, the first so large that it is a file; one is older than
    the last feature."""
    rows = random_rows(random.Random(5), 300)
    c = Collection(shared_server.client, "filters_table")
    last = {"a-b": FEATURES["a-b"]}
    c.create(key="string", features={k: v for k, v in FEATURES.items() if k not in last})
    for row in rows[:40]:
        row["a-b"] = None
    c.load([{k: v for k, v in row.items() if k not in last} for row in rows[:40]])
    c.patch(features={**FEATURES})
    c.load(rows[40:])
    c.delete_rows([row["key"] for row in rows[::9]])
    rows = [row for i, row in enumerate(rows) if i % 9]
    db = sqlite_with(rows)
    yield c, rows, db
    db.close()


def matching(db, rows, condition):
    return [rows[n]["key"] for (n,) in db.execute(f"select n from t where {condition} order by n")]


@pytest.mark.parametrize("seed", range(4))
def test_random_conditions_match_what_sqlite_says(table, seed):
    c, rows, db = table
    writer = Writer(seed)
    counts = set()
    for _ in range(150):
        condition = writer.condition()
        want = matching(db, rows, condition)
        got = [row["key"] for row in c.all_rows(filter=condition, features="", limit=70)]
        assert got == want, f"seed {seed}: {condition}"
        counted = expect(c.client.post(f"{c.path}/count", {"filter": condition}))["count"]
        assert counted == len(want), f"seed {seed}: {condition}"
        counts.add(counted)
    assert len(counts) > 20, "the conditions tell rows apart"


def test_lists_times_bytes_and_nan(collection):
    c = collection.create(
        key="int64",
        features={"tags": "string[]", "ids": "int64[]", "w": "float32[]", "ts": "timestamp",
                  "raw": "bytes", "x": "float32", "y": "float64"},
    )
    c.load([
        {"key": 1, "tags": ["a", "b"], "ids": [1, 2], "w": [0.1], "ts": "2024-05-01T12:00:00Z",
         "raw": "AP8=", "x": 0.1, "y": 0.1},
        {"key": 2, "tags": [], "ids": [], "w": [], "ts": "2024-05-02T00:00:00.000001Z",
         "raw": "", "x": "NaN", "y": "NaN"},
        {"key": 3, "tags": ["it's"], "ids": [-5], "w": ["NaN"], "ts": "1960-01-01T00:00:00Z",
         "raw": "YQ==", "x": "Infinity", "y": "-Infinity"},
        {"key": 4},
    ])

    def keys(condition):
        return [row["key"] for row in c.all_rows(filter=condition)]

    assert keys("contains(tags, 'a')") == [1]
    assert keys("not contains(tags, 'a')") == [2, 3]
    assert keys("contains(tags, 'it''s') or contains(ids, 2)") == [1, 3]
    assert keys("contains(w, 0.1)") == [1]
    assert keys("tags is null") == [4]
    assert keys("ts >= '2024-05-01'") == [1, 2]
    assert keys("ts between '2024-05-01T14:00:00+02:00' and '2024-05-02'") == [1]
    assert keys("raw = x'00ff' or raw = X''") == [1, 2]
    assert keys("x = 0.1 and y = 0.1") == [1]
    assert keys("x != 0.1") == [2, 3]
    assert keys("not x = 0.1") == [2, 3]
    assert keys("x < 5 or x >= 5") == [1, 3]
    assert keys("x != x") == [2]
    assert keys("x > 1e38 and y < -1e308") == [3]


def test_a_wrong_filter_says_where_and_why(collection):
    c = collection.create(key="string", vector={"dim": 2},
                          features={"price": "float32", "tags": "string[]", "name": "string"})
    cases = [
        ("", 400, "empty", "filter"),
        ("price <", 400, "ends", "filter"),
        ("price < 5 and", 400, "ends", "filter"),
        ("price < 5 name = 'a'", 400, "character 11", "filter"),
        ("(price < 5", 400, "')'", "filter"),
        ("price < 'x", 400, "character 9", "filter"),
        ("price + 1 > 2", 400, "character 7", "filter"),
        ("price in ()", 400, "character 11", "filter"),
        ("price like 'a'", 422, "price", "price"),
        ("prize < 5", 422, "character 1", "prize"),
        ('name = "abc"', 422, "single quotes", "abc"),
        ("price = 'abc'", 422, "numbers", "price"),
        ("name = 5", 422, "strings", "name"),
        ("tags = 'a'", 422, "contains", "tags"),
        ("contains(name, 'a')", 422, "like", "name"),
        ("contains(tags, 5)", 422, "string", "tags"),
        ("vector = 5", 422, "is null", "vector"),
        ("price", 422, "condition", "price"),
        ("name between 'a'", 400, "and", "filter"),
        ("(" * 65 + "price < 5" + ")" * 65, 400, "filter_depth_max", "filter"),
        (" or ".join(["price < 5"] * 4097), 400, "filter_terms_max", "filter"),
        ("name like '" + "a" * 1025 + "'", 400, "like_bytes_max", "filter"),
    ]
    for text, status, word, field in cases:
        for answer in (
            c.client.post(f"{c.path}/count", {"filter": text}),
            c.send_search(vector=[1, 2], filter=text),
            c.send_page(filter=text) if len(text) < 2000 else None,
        ):
            if answer:
                problem(answer, status, word, field=field)
    for body in ({"filter": 5}, {"filter": ["a"]}):
        assert c.client.post(f"{c.path}/count", body).status in (400, 422)
    problem(c.client.post(f"{c.path}/count", b'{"filter":"true","filter":"true"}'), 400, "twice")
    assert expect(c.client.post(f"{c.path}/count", {"filter": None}))["count"] == 0


def test_filter_bytes_max(start_daemon):
    daemon = start_daemon(env={"LOADSTONE_FILTER_BYTES_MAX": "100"})
    c = Collection(daemon.client, "c").create(key="int64")
    assert expect(c.client.post(f"{c.path}/count", {"filter": "key = 1".ljust(100)}))["count"] == 0
    problem(c.client.post(f"{c.path}/count", {"filter": "key = 1".ljust(101)}), 413,
            "filter_bytes_max")
    limits = expect(c.client.get("/v1/limits"))
    assert limits["filter_bytes_max"] == 100 and limits["filter_depth_max"] == 64


# ---- search ----

N, DIM, K = 20000, 16, 10  # more than a tail takes


@pytest.fixture(scope="module", params=["flat", "hnsw", "ivf"])
def searched(request, shared_server):
    vectors = clustered(N, DIM, seed=3, clusters=30)
    vectors = vectors[np.argsort(vectors[:, 0])]  # so that `at` says where a row lies
    c = Collection(shared_server.client, f"filters_{request.param}").create(
        key="int64", vector={"dim": DIM, "metric": "l2"},
        features={"at": "int32", "any": "int32", "name": "string"},
        index={"kind": request.param, "m": 16, "ef_construction": 100},
    )
    spread = np.random.default_rng(1).permutation(N)
    c.load([
        {"key": i, "vector": vectors[i].tolist(), "at": i, "any": int(spread[i]), "name": f"n{i}"}
        for i in range(N)
    ])
    c.wait_indexed()
    return c, vectors, spread


def nearest(vectors, allowed, query, k):
    distance = np.linalg.norm(vectors[allowed].astype(np.float64) - query, axis=1)
    return allowed[np.argsort(distance, kind="stable")[:k]].tolist()


def share_of(found, wanted):
    hits = sum(len(set(f) & set(w)) for f, w in zip(found, wanted))
    return hits / max(1, sum(map(len, wanted)))


@pytest.mark.parametrize("share", [0.0002, 0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("place", ["any", "near", "far"])
def test_every_match_is_found_at_any_selectivity(searched, share, place):
    c, vectors, spread = searched
    n = max(1, round(share * N))
    queries = vectors[-400::20] + np.float32(0.01)
    if place == "any":
        condition, allowed = f"any < {n}", np.flatnonzero(spread < n)
    elif place == "near":
        condition, allowed = f"at >= {N - n}", np.arange(N - n, N)
    else:
        condition, allowed = f"at < {n}", np.arange(n)
    want = [nearest(vectors, allowed, q, K) for q in queries]
    batch = c.keys_of(vectors=queries.tolist(), k=K, filter=condition)
    single = [c.keys_of(vector=q.tolist(), k=K, filter=condition)[0] for q in queries]
    exact = c.keys_of(vectors=queries.tolist(), k=K, filter=condition, exact=True)
    assert exact == want
    for found in batch, single:
        assert [len(f) for f in found] == [min(K, n)] * len(queries)
        assert all(set(f) <= set(allowed.tolist()) for f in found)
        assert share_of(found, want) > 0.9


def test_filter_with_radius_keys_features_and_octets(searched):
    c, vectors, spread = searched
    allowed = np.flatnonzero(spread < N // 2)
    condition = f"any < {N // 2}"
    query = vectors[100]
    hits = c.search(vector=query.tolist(), k=K, exact=True, filter=condition,
                    features=["any"])["hits"][0]
    assert [h["key"] for h in hits] == nearest(vectors, allowed, query, K)
    assert all(h["features"]["any"] < N // 2 for h in hits)
    inside = c.search(vector=query.tolist(), k=K, exact=True, filter=condition,
                      radius=hits[3]["distance"])["hits"][0]
    assert [h["key"] for h in inside] == [h["key"] for h in hits[:4]]
    key = int(allowed[7])
    found = c.keys_of(key=key, k=K, exact=True, filter=condition)[0]
    assert found == [k for k in nearest(vectors, allowed, vectors[key], K + 1) if k != key][:K]
    outside = int(np.flatnonzero(spread >= N // 2)[0])
    assert len(c.keys_of(key=outside, k=K, filter=condition)[0]) == K
    answer = c.client.post(
        f"{c.path}/search?k=3&exact=true&filter={quote(condition)}", query.tobytes(),
        headers={"Content-Type": OCTETS, "Accept": OCTETS})
    assert read_hits(answer, 1, 3)[0] == [[h["key"] for h in hits[:3]]]
    answer = c.client.post(
        f"{c.path}/search?k=3&filter={quote('any < 2')}", query.tobytes(),
        headers={"Content-Type": OCTETS, "Accept": OCTETS})
    assert read_hits(answer, 1, 3)[0][0][2] == -1


def test_explain(searched, request):
    c, vectors, _ = searched
    kind = request.node.callspec.params["searched"]
    query = vectors[0].tolist()
    way = {"flat": "scan", "hnsw": "graph", "ivf": "lists"}[kind]
    told = c.search(vector=query, k=3, explain=True)
    (step,) = told["explain"]["segments"]
    effort = {"flat": None, "hnsw": "ef", "ivf": "nprobe"}[kind]
    assert told["explain"]["filter"] is None
    assert {name: step[name] for name in ("rows", "way", "selectivity", "cached")} == {
        "rows": N, "way": way, "selectivity": 1, "cached": False}
    rest = set(step) - {"rows", "way", "selectivity", "cached", "recall"}
    assert rest == ({effort} if effort else set())
    assert step["recall"] == 1 if kind == "flat" else 0.95 <= step["recall"] < 1
    told = c.search(vector=query, k=3, filter="ANY<3 AND (NAME IS NULL)".lower(), explain=True)
    assert told["explain"]["filter"] == "any < 3 and name is null"
    assert [s["way"] for s in told["explain"]["segments"]] == ["scan"]
    assert told["hits"] == [[]]
    told = c.search(vector=query, k=3, filter=f"any < {N // 2}", explain=True)
    assert abs(told["explain"]["segments"][0]["selectivity"] - 0.5) < 0.1
    told = c.search(vector=query, k=3, filter=f"any < {N // 2}", explain=True)
    assert told["explain"]["segments"][0]["cached"]
    assert "explain" not in c.search(vector=query, k=3)
    problem(c.client.post(f"{c.path}/search?explain=true", vectors[0].tobytes(),
                          headers={"Content-Type": OCTETS, "Accept": OCTETS}), 400, "explain")


def test_rows_without_a_vector_and_new_rows(collection):
    c = collection.create(key="int64", vector={"dim": 2, "metric": "l2"}, features={"n": "int32"})
    c.load([{"key": 1, "vector": [0, 0], "n": 1}, {"key": 2, "n": 1}, {"key": 3, "vector": [1, 0]}])
    assert c.keys_of(vector=[0, 0], filter="n = 1 or n is null") == [[1, 3]]
    assert [r["key"] for r in c.all_rows(filter="vector is null")] == [2]
    c.load([{"key": 3, "n": 1}, {"key": 1, "n": 5}])
    assert c.keys_of(vector=[0, 0], filter="n = 1") == [[3]]
    assert c.keys_of(vector=[0, 0], filter="n = 7") == [[]]


def test_pages_go_on_behind_rows_that_do_not_match(collection):
    c = collection.create(key="int64", features={"n": "int32"})
    c.load([{"key": i, "n": i % 10} for i in range(1000)])
    pages = c.pages(filter="n = 3", limit=30)
    assert [len(p["rows"]) for p in pages] == [30, 30, 30, 10]
    assert [r["key"] for p in pages for r in p["rows"]] == list(range(3, 1000, 10))
    only = c.page(filter="key = 999", limit=1)
    assert len(only["rows"]) == 1 and only["next"] is None
    assert c.page(filter="n = 11") == {"version": 1, "rows": [], "next": None}


def test_constants_beyond_int64_equal_no_key(collection):
    c = collection.create(key="int64", features={"n": "int32"})
    c.load([{"key": k, "n": 1} for k in (-(2**63), -1, 0, 2**63 - 1)])

    def count(text):
        return expect(c.client.post(f"{c.path}/count", {"filter": text}))["count"]

    assert count(f"key = {-(2**63)}") == 1
    assert count(f"key = {-(2**63) - 1}") == count(f"key = {2**63}") == 0
    assert count(f"key > {-(2**63) - 1}") == count(f"key < {2**63}") == 4
    assert count(f"key = {2**63 - 1}.0") == count(f"key > {2**63 - 2}.00") == 1
    assert count(f"key < {2**63 - 1}.0") == 3
    assert count(f"key <= {-(2**63) - 1}") == count(f"key >= {2**63}") == 0
