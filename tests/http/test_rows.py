"""Rows: modes, counts and versions, what absent and null do, duplicates, delete, atomic reads."""

import threading

import numpy as np
import pytest

from client import JSON, NDJSON, OCTETS, Collection, expect, problem

FORMATS = [JSON, NDJSON]


@pytest.fixture(params=FORMATS, ids=["json", "ndjson"])
def fmt(request):
    return request.param


@pytest.fixture
def table(collection):
    return collection.create(
        key="string",
        vector={"dim": 2, "metric": "l2"},
        features={"a": "int64", "b": "string"},
    )


def counts(answer):
    return tuple(answer[n] for n in ("version", "rows", "inserted", "updated", "deleted"))


def test_upsert_counts_and_versions(table, fmt):
    assert counts(table.load([{"key": "x", "a": 1}, {"key": "y", "a": 2}], fmt)) == (1, 2, 2, 0, 0)
    assert counts(table.load([{"key": "y", "a": 3}, {"key": "z"}], fmt)) == (2, 2, 1, 1, 0)
    assert counts(table.load([{"key": "z"}], fmt, mode="upsert")) == (3, 1, 0, 1, 0)
    assert table.state() == (3, 3)


def test_append_counts_and_refuses_a_key_that_exists(table, fmt):
    rows = [{"key": "x", "a": 1}, {"key": "y"}]
    assert counts(table.load(rows, fmt, mode="append")) == (1, 2, 2, 0, 0)
    again = table.send_rows([{"key": "z"}, {"key": "x", "a": 9}], fmt, mode="append")
    problem(again, 422, "x", row=1, field="key")
    assert table.state() == (1, 2)
    assert table.row("x")["features"]["a"] == 1
    assert table.fetch(["z"])["found"] == [False]


def test_empty_list_of_rows_makes_a_version(table):
    assert counts(table.load([])) == (1, 0, 0, 0, 0)
    assert table.state() == (1, 0)


def test_absent_keeps_and_null_sets_null(table, fmt):
    table.load([{"key": "x", "vector": [1, 2], "a": 1, "b": "one"}], fmt)
    table.load([{"key": "x", "a": 5}], fmt)
    row = table.row("x", with_vectors="true")
    assert row["features"] == {"a": 5, "b": "one"} and row["vector"] == [1, 2]
    table.load([{"key": "x", "b": None}], fmt)
    row = table.row("x", with_vectors="true")
    assert row["features"] == {"a": 5, "b": None} and row["vector"] == [1, 2]
    table.load([{"key": "x", "vector": None}], fmt)
    row = table.row("x", with_vectors="true")
    assert row["features"] == {"a": 5, "b": None} and row["vector"] is None
    assert table.keys_of(vector=[1, 2]) == [[]], "a row that lost its vector is no hit"


def test_absent_in_a_row_that_is_new_is_null(table, fmt):
    table.load([{"key": "x", "a": 1}, {"key": "y", "b": "w"}, {"key": "z"}], fmt)
    got = table.fetch(["x", "y", "z"], with_vectors=True)
    assert got["features"] == {"a": [1, None, None], "b": [None, "w", None]}
    assert got["vectors"] == [None, None, None]


def test_deleted_key_comes_back_without_its_old_features(table, fmt):
    table.load([{"key": "x", "a": 1, "vector": [1, 1]}], fmt)
    assert table.delete_rows(["x"])["deleted"] == 1
    assert counts(table.load([{"key": "x", "b": "new"}], fmt)) == (3, 1, 1, 0, 0)
    assert table.row("x")["features"] == {"a": None, "b": "new"}


def test_partial_update_spans_segments(backend_collection):
    """The kept cells may lie in another segment than the row that keeps them."""
    c = backend_collection.create(
        key="int64", vector={"dim": 64, "metric": "l2"}, features={"a": "int64", "s": "string"}
    )
    vectors = np.random.default_rng(5).standard_normal((40000, 64)).astype(np.float32)
    c.load_vectors(vectors)
    c.load([{"key": k, "a": k * 10} for k in range(0, 40000, 1000)])
    c.load([{"key": k, "s": f"s{k}"} for k in range(0, 40000, 2000)])
    for k in (0, 1000, 2000, 39000):
        row = c.row(k, with_vectors="true")
        assert row["features"] == {"a": k * 10, "s": f"s{k}" if k % 2000 == 0 else None}
        assert np.array_equal(np.float32(row["vector"]), vectors[k])
    assert c.state() == (3, 40000)


def test_octet_stream_counts_its_keys_from_first_key(backend_collection):
    c = backend_collection.create(key="int64", vector={"dim": 3, "metric": "l2"})
    vectors = np.arange(30, dtype=np.float32).reshape(10, 3)
    assert counts(c.load_vectors(vectors, first_key=100)) == (1, 10, 10, 0, 0)
    assert counts(c.load_vectors(vectors + 1, first_key=105)) == (2, 10, 5, 5, 0)
    got = c.fetch(list(range(98, 116)), with_vectors=True)
    assert got["found"] == [False, False] + [True] * 15 + [False]
    want = list(vectors[:5]) + list(vectors + 1)
    assert np.array_equal(np.float32(got["vectors"][2:17]), np.float32(want))
    problem(c.send_rows(vectors.tobytes(), OCTETS, first_key=105, mode="append"), 422, "105", row=0)
    assert c.state() == (2, 15)


@pytest.mark.parametrize("first_key", [-(2**63), -5, 2**63 - 10])
def test_octet_stream_takes_keys_to_the_ends_of_int64(collection, first_key):
    collection.create(key="int64", vector={"dim": 1, "metric": "l2"})
    collection.load_vectors(np.arange(10, dtype=np.float32), first_key=first_key)
    assert collection.fetch([first_key, first_key + 9])["found"] == [True, True]
    assert collection.keys_of(vector=[9.0], k=1) == [[first_key + 9]]


def test_octet_stream_needs_first_key_that_does_not_overflow(collection):
    collection.create(key="int64", vector={"dim": 1, "metric": "l2"})
    body = np.zeros(10, np.float32).tobytes()
    assert collection.send_rows(body, OCTETS).status in (400, 422)
    problem(collection.send_rows(body, OCTETS, first_key=2**63 - 9), 422, "first_key")
    response = collection.send_rows(body, OCTETS, first_key=2**63)
    problem(response, response.status, "first_key")
    assert response.status in (400, 422)
    assert collection.state() == (0, 0)


def test_octet_stream_into_string_keys_is_refused(table):
    problem(table.send_rows(bytes(16), OCTETS, first_key=0), 422, "int64")
    assert table.state() == (0, 0)


def test_one_row_and_a_body_of_many_pieces_alike(backend_collection):
    """Rows that are cut by every possible piece boundary."""
    c = backend_collection.create(key="int64", vector={"dim": 7, "metric": "l2"})
    vectors = np.random.default_rng(3).standard_normal((500, 7)).astype(np.float32)
    data = vectors.tobytes()
    pieces = (data[i : i + 11] for i in range(0, len(data), 11))
    assert c.load(pieces, OCTETS, first_key=0)["rows"] == 500
    got = c.fetch(list(range(500)), with_vectors=True)["vectors"]
    assert np.array_equal(np.float32(got), vectors)


def test_ndjson_takes_blank_lines_crlf_and_no_last_newline(table):
    body = b'{"key":"a","a":1}\n\n  \r\n{"key":"b","a":2}\r\n{"key":"c","a":3}'
    assert table.load(body, NDJSON)["rows"] == 3
    assert table.fetch(["a", "b", "c"])["features"]["a"] == [1, 2, 3]


def test_json_layout_does_not_matter(table):
    body = (
        b'\n{ "rows" :\t[ {"b":"}],{\\"", "vector":[ 1e0 ,2.50], "key":"\\u0061\\n"}\r\n,'
        b'{"key":"]","a":-0}] }\n '
    )
    assert table.load(body)["rows"] == 2
    got = table.fetch(["a\n", "]"], with_vectors=True)
    assert got["features"] == {"a": [None, 0], "b": ['}],{"', None]}
    assert got["vectors"] == [[1, 2.5], None]


def test_duplicate_keys_are_refused_naming_both_rows(table, fmt):
    rows = [{"key": "a"}, {"key": "b", "a": 1}, {"key": "c"}, {"key": "b", "a": 2}]
    for mode in ("upsert", "append"):
        body = problem(table.send_rows(rows, fmt, mode=mode), 422, "1", "3", "b", field="key")
        assert body["row"] in (1, 3)
        assert table.state() == (0, 0)


def test_duplicates_last_takes_the_last(table, fmt):
    rows = [{"key": "b", "a": 1, "b": "one"}, {"key": "c"}, {"key": "b", "a": 2}]
    answer = table.load(rows, fmt, duplicates="last")
    assert counts(answer) == (1, 3, 2, 0, 0)
    assert table.row("b")["features"]["a"] == 2
    assert table.state() == (1, 2)
    rows = [{"key": "b", "a": 5}, {"key": "b", "a": 6}, {"key": "n"}]
    assert counts(table.load(rows, fmt, duplicates="last")) == (2, 3, 1, 1, 0)
    assert table.row("b")["features"]["a"] == 6


def test_duplicates_far_apart_in_a_large_body_are_refused(collection):
    collection.create(key="int64", features={"a": "int64"})
    rows = [{"key": k, "a": k} for k in range(100000)] + [{"key": 7, "a": 0}]
    problem(collection.send_rows(rows, NDJSON), 422, "100000", "7", field="key")
    assert collection.state() == (0, 0)
    assert collection.load(rows, NDJSON, duplicates="last")["inserted"] == 100000
    assert collection.row(7)["features"]["a"] == 0


def test_expected_version_guards_the_commit(table):
    table.load([{"key": "a", "a": 1}], expected_version=0)
    problem(table.send_rows([{"key": "a", "a": 2}], expected_version=0), 412, "1")
    assert table.state() == (1, 1) and table.row("a")["features"]["a"] == 1
    table.load([{"key": "a", "a": 3}], expected_version=1)
    assert table.state() == (2, 1)


def test_delete_counts_only_keys_that_were_there(table):
    table.load([{"key": k} for k in "abcd"])
    answer = table.delete_rows(["b", "nope", "b", "d"])
    assert (answer["version"], answer["deleted"]) == (2, 2)
    assert table.state() == (2, 2)
    assert table.fetch(list("abcd"))["found"] == [True, False, True, False]
    answer = table.delete_rows(["b"])
    assert (answer["version"], answer["deleted"]) == (3, 0)


def test_delete_with_a_body_on_the_rows_themselves(table):
    table.load([{"key": k} for k in "abc"])
    response = table.client.delete(f"{table.path}/rows", {"keys": ["a", "c"]})
    assert expect(response)["deleted"] == 2
    assert table.fetch(list("abc"))["found"] == [False, True, False]


@pytest.mark.parametrize(
    "given", [{}, {"keys": "a"}, {"keys": [1]}, {"keys": [None]}, {"keyz": []}]
)
def test_bad_delete_changes_nothing(table, given):
    table.load([{"key": "a"}])
    response = table.client.post(f"{table.path}/rows/delete", given)
    assert response.status in (400, 422), response
    problem(response, response.status, "key")
    assert table.state() == (1, 1)


def test_int64_keys_as_numbers_and_as_strings(collection, fmt):
    collection.create(key="int64", features={"a": "int64"})
    keys = [0, -1, 2**63 - 1, -(2**63), 2**53 + 1]
    collection.load([{"key": str(k) if i % 2 else k, "a": i} for i, k in enumerate(keys)], fmt)
    got = collection.fetch([str(k) for k in keys])
    assert got["keys"] == keys, "int64 keys come out as numbers"
    assert got["features"]["a"] == list(range(5))
    for i, k in enumerate(keys):
        assert collection.row(k) == {"version": 1, "key": k, "features": {"a": i}}


@pytest.mark.parametrize("key", [1.5, 2**63, -(2**63) - 1, "x", "", "1.0", " 1", True, None, [1]])
def test_what_is_no_int64_key_is_refused(collection, key):
    collection.create(key="int64", features={"a": "int64"})
    problem(collection.send_rows([{"key": 1}, {"key": key}]), 422, row=1, field="key")
    assert collection.state() == (0, 0)


def test_string_keys_of_any_text(table):
    keys = [
        "a/b",
        "..",
        ".",
        "%2F",
        "a b",
        "é",
        "日本語",
        "\U0001f9f2",
        "a\nb",
        '"',
        "\\",
        "x" * 1024,
    ]
    keys += ["é" * 512, "\t", "+", "?q=1#f", "0", "null"]
    table.load([{"key": k, "a": i} for i, k in enumerate(keys)])
    assert table.fetch(keys)["features"]["a"] == list(range(len(keys)))
    for i, k in enumerate(keys):
        row = table.row(k)
        assert (row["key"], row["features"]["a"]) == (k, i)


def test_a_key_that_holds_nul_is_fetched_by_features_alone(collection):
    collection.create(key="string", features={"n": "int64"})
    collection.load([{"key": "a\0b", "n": 7}])
    assert collection.fetch(["a\0b", "a"])["features"] == {"n": [7, None]}
    problem(collection.client.get(f"{collection.path}/rows/a%00b"), 400, "%00")


def test_readers_never_see_half_a_commit(backend_collection):
    """Each commit sets every row to its own number; a reader must see one number in all rows."""
    c = backend_collection.create(key="int64", features={"n": "int64"})
    keys = list(range(2000))
    c.load([{"key": k, "n": 0} for k in keys], NDJSON)
    stop, torn, seen = threading.Event(), [], set()

    def read():
        while not stop.is_set():
            got = c.fetch(keys)
            values = set(got["features"]["n"])
            seen.update(values)
            if len(values) != 1 or values != {got["version"] - 1}:
                torn.append((got["version"], values))

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(1, 40):
        c.load([{"key": k, "n": n} for k in keys], NDJSON)
    stop.set()
    reader.join()
    assert not torn
    assert len(seen) > 3, "the reader ran beside the loader"


def test_writers_at_once_make_contiguous_versions(backend_collection):
    c = backend_collection.create(key="string", features={"n": "int64"})
    versions, lock = [], threading.Lock()

    def write(who):
        for i in range(25):
            version = c.load([{"key": f"{who}-{i}", "n": i}, {"key": "shared", "n": i}])["version"]
            with lock:
                versions.append(version)

    writers = [threading.Thread(target=write, args=(w,)) for w in range(8)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    assert sorted(versions) == list(range(1, 201))
    assert c.state() == (200, 201)


def test_acknowledged_rows_are_read_at_once(backend_collection):
    c = backend_collection.create(
        key="int64", vector={"dim": 2, "metric": "l2"}, features={"n": "int64"}
    )
    for i in range(200):
        version = c.load([{"key": i, "vector": [i, 0], "n": i}])["version"]
        hit = c.search(vector=[i, 0], k=1, features=["n"])
        assert hit["version"] == version
        assert hit["hits"] == [[{"key": i, "distance": 0, "features": {"n": i}}]]
        assert c.row(i)["features"]["n"] == i


def test_rows_on_a_collection_that_was_dropped_and_made_again(collection):
    collection.create(key="string", features={"a": "int64"})
    collection.load([{"key": "old", "a": 1}])
    expect(collection.client.delete(collection.path), 204)
    collection.create(key="string", features={"a": "string"})
    collection.load([{"key": "new", "a": "x"}])
    got = Collection(collection.client, collection.name).fetch(["old", "new"])
    assert got["found"] == [False, True] and got["features"] == {"a": [None, "x"]}
