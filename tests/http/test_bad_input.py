"""Bad input: a clear sentence that names row and field, and nothing changed.

Every test runs inside `unchanged`: version, row count and a row that was there before are compared
after the refused request. What breaks HTTP itself is in test_framing.py.
"""

import json
import math
import time

import numpy as np
import pytest

from client import JSON, NDJSON, OCTETS, Collection, byte_position, expect, ndjson, problem

# an option of the wrong JSON type: unparsable to some readers, a contradiction to others
EITHER = (400, 422)

FORMATS = pytest.mark.parametrize("fmt", [JSON, NDJSON], ids=["json", "ndjson"])


@pytest.fixture
def table(collection):
    """A filled collection that must look the same after the test."""
    collection.create(
        key="string",
        vector={"dim": 4, "metric": "cosine"},
        features={"price": "float32", "tags": "string[]"},
    )
    collection.load([{"key": "kept", "vector": [1, 2, 3, 4], "price": 9.5, "tags": ["t"]}])
    before = collection.state(), collection.row("kept", with_vectors="true")
    yield collection
    assert (collection.state(), collection.row("kept", with_vectors="true")) == before


@pytest.fixture
def numbered(collection):
    """As `table`, with int64 keys and Euclidean distance."""
    collection.create(key="int64", vector={"dim": 4, "metric": "l2"})
    collection.load_vectors(np.ones((3, 4), np.float32))
    before = collection.state()
    yield collection
    assert collection.state() == before


def row(key="new", **cells):
    return {"key": key, **cells}


# ---- unknown collection ----


@pytest.mark.parametrize(
    "method, rest, body",
    [
        ("GET", "", None),
        ("DELETE", "", None),
        ("GET", "/index", None),
        ("GET", "/rows/a", None),
        ("POST", "/rows", {"rows": []}),
        ("POST", "/rows/delete", {"keys": ["a"]}),
        ("POST", "/search", {"vector": [1]}),
        ("POST", "/features", {"keys": ["a"]}),
    ],
)
def test_unknown_collection_is_404_and_named(client, method, rest, body):
    response = client.request(method, f"/v1/collections/nowhere{rest}", body)
    hint = [] if method == "DELETE" else ["create it with PUT /v1/collections/nowhere"]
    problem(response, 404, "nowhere", *hint)


def test_unknown_collection_is_told_after_a_large_body_too(client):
    """The answer must reach a client that is still sending."""
    body = (b'{"key":"a"}\n' * 100000 for _ in range(10))
    response = client.post("/v1/collections/nowhere/rows", body, headers={"Content-Type": NDJSON})
    problem(response, 404, "nowhere")


# ---- JSON that does not parse ----

BROKEN = [
    (b'{"rows":[{"key":"a",}]}', 20),
    (b'{"rows":[{"key":"a"}', 20),
    (b'{"rows":[{"key":"a"} {"key":"b"}]}', 21),
    (b'{"rows":[{"key":"a" "price":1}]}', 20),
    (b'{"rows":[{"key":"a","price":01}]}', 29),
    (b'{"rows":[{"key":"a","price":.5}]}', 28),
    (b'{"rows":[{"key":"a","price":1.}]}', 30),
    (b'{"rows":[{"key":"a","price":+1}]}', 28),
    (b'{"rows":[{"key":"a","price":NaN}]}', 28),
    (b'{"rows":[{"key":"a","price":Infinity}]}', 28),
    (b'{"rows":[{"key":"a","price":nul}]}', 28),
    (b'{"rows":[{"key":"a\n"}]}', 18),
    (b'{"rows":[{"key":"\\x"}]}', 17),
    (b'{"rows":[{"key":"\\u12g4"}]}', 17),
    (b'{"rows":[{key:"a"}]}', 10),
    (b"{'rows':[]}", 1),
    (b'{"rows":[]}x', 11),
    (b'{"rows":[]}{"rows":[]}', 11),
    (b'{"rows":[{"key":"a"}]', 21),
]


@pytest.mark.parametrize(
    "body, at", BROKEN, ids=lambda v: "" if isinstance(v, int) else str(v)[2:40]
)
def test_broken_json_names_the_byte(table, body, at):
    detail = problem(table.send_rows(body), 400)["detail"]
    assert abs(byte_position(detail) - at) <= 6, f"{detail!r}: the fault is at byte {at}"


def test_broken_json_far_into_a_body_names_byte_and_row(table):
    good = json.dumps({"rows": [row(f"k{i}") for i in range(50000)]}).encode()
    body = good[:-2] + b',{"key":"a","price":1e}]}'
    answer = problem(table.send_rows(body), 400, row=50000)
    assert abs(byte_position(answer["detail"]) - body.index(b"1e}")) <= 3


def test_broken_ndjson_names_byte_and_row(table):
    lines = [json.dumps(row(f"k{i}")).encode() for i in range(30000)]
    lines[20000] = b'{"key":"a","price":}'
    body = b"\n".join(lines)
    answer = problem(table.send_rows(body, NDJSON), 400, row=20000)
    assert abs(byte_position(answer["detail"]) - body.index(b'"price":}') - 8) <= 3


@pytest.mark.parametrize(
    "body",
    [b"[]", b"3", b'"x"', b"null", b'{"key":"a"}{"key":"b"}', b'["a"]', b'{"key":"a"'],
)
def test_ndjson_line_that_is_no_row_is_refused(table, body):
    response = table.send_rows(b'{"key":"first"}\n' + body, NDJSON)
    assert response.status in (400, 422), response
    problem(response, response.status, row=1)


@pytest.mark.parametrize(
    "body", [{}, [], {"rows": {}}, {"rows": [1]}, {"rows": ["a"]}, {"rows": None}]
)
def test_json_body_without_rows_is_refused(table, body):
    response = table.client.post(f"{table.path}/rows", body)
    assert response.status in (400, 422), response
    problem(response, response.status, "row")


def test_unknown_field_beside_rows_is_refused(table):
    response = table.client.post(f"{table.path}/rows", {"rows": [], "mode": "append"})
    problem(response, 400, "mode")


def test_deep_nesting_is_refused(table):
    body = b'{"rows":[{"key":"a","tags":' + b"[" * 100000 + b"]" * 100000 + b"}]}"
    response = table.send_rows(body)
    assert response.status in (400, 422), response
    problem(response, response.status)
    response = table.client.post(
        f"{table.path}/search", b'{"vector":' + b"[" * 100000, headers={"Content-Type": JSON}
    )
    assert response.status in (400, 422), response
    problem(response, response.status)


# ---- rows that parse and contradict the schema ----


@FORMATS
@pytest.mark.parametrize("vector", [[], [1, 2, 3], [1, 2, 3, 4, 5], [1.0] * 5000])
def test_wrong_dimension_names_both(table, fmt, vector):
    rows = [row("a", vector=[1, 1, 1, 1]), row("b", vector=vector)]
    words = ["dim", "4", str(len(vector)) if len(vector) < 100 else "4"]
    problem(table.send_rows(rows, fmt), 422, *words, row=1, field="vector")


@FORMATS
@pytest.mark.parametrize(
    "value", ['"NaN"', '"Infinity"', "1e400", "-1e39", "null", '"1"', "true", "[1]"]
)
def test_vector_element_that_is_no_finite_number_is_refused(table, fmt, value):
    text = '{"key":"b","vector":[1,2,%s,4]}' % value
    body = text if fmt == NDJSON else '{"rows":[%s]}' % text
    problem(table.send_rows(body.encode(), fmt), 422, row=0, field="vector")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 4097, 9999])
def test_nan_and_inf_in_octet_stream_name_the_row(numbered, value, at):
    vectors = np.ones((10000, 4), np.float32)
    vectors[at, 3] = value
    response = numbered.send_rows(vectors.tobytes(), OCTETS, first_key=500)
    problem(response, 422, row=at, field="vector")


@FORMATS
def test_zero_vector_is_refused_for_cosine(table, fmt):
    rows = [row("a", vector=[0, 0, 0, 1]), row("b", vector=[0, -0.0, 0, 0])]
    problem(table.send_rows(rows, fmt), 422, "zero", row=1, field="vector")


def test_zero_vector_is_refused_for_cosine_in_octet_stream(collection):
    collection.create(key="int64", vector={"dim": 4})
    vectors = np.ones((5000, 4), np.float32)
    vectors[4321] = 0
    response = collection.send_rows(vectors.tobytes(), OCTETS, first_key=0)
    problem(response, 422, "zero", row=4321, field="vector")
    assert collection.state() == (0, 0)


def test_zero_vector_is_fine_for_l2(collection):
    collection.create(key="int64", vector={"dim": 2, "metric": "l2"})
    collection.load([{"key": 1, "vector": [0, 0]}])
    assert collection.search(vector=[3, 4])["hits"] == [[{"key": 1, "distance": 5}]]


@FORMATS
def test_unknown_feature_is_named(table, fmt):
    rows = [row("a", price=1), row("b", colour="red")]
    problem(table.send_rows(rows, fmt), 422, "colour", row=1, field="colour")


@FORMATS
def test_wrong_type_is_named(table, fmt):
    rows = [row("a", price=1), row("b"), row("c", price="cheap")]
    problem(table.send_rows(rows, fmt), 422, "price", row=2, field="price")
    rows = [row("a", vector={"x": 1})]
    problem(table.send_rows(rows, fmt), 422, row=0, field="vector")


@FORMATS
def test_missing_key_is_refused(table, fmt):
    problem(table.send_rows([row("a"), {"price": 1}], fmt), 422, "key", row=1, field="key")


@FORMATS
@pytest.mark.parametrize("key", ["x" * 1025, "é" * 513, "", None, 5, True, ["a"], {}])
def test_overlong_empty_and_mistyped_keys_are_refused(table, fmt, key):
    words = ["1024"] if isinstance(key, str) and len(key) > 500 else []
    response = table.send_rows([row("a"), {"key": key}], fmt)
    if words:
        assert "1,024" in response.json()["detail"] or "1024" in response.json()["detail"]
    problem(response, 422, row=1, field="key")


@FORMATS
def test_duplicate_key_names_both_rows(table, fmt):
    rows = [row("a"), row("b"), row("a")]
    problem(table.send_rows(rows, fmt), 422, "0", "2", field="key")


@FORMATS
def test_append_of_a_key_that_exists_is_refused(table, fmt):
    problem(table.send_rows([row("a"), row("kept")], fmt, mode="append"), 422, "kept", row=1)


@FORMATS
def test_same_field_twice_in_a_row_is_refused(table, fmt):
    text = b'{"key":"a","price":1,"price":2}'
    body = text if fmt == NDJSON else b'{"rows":[' + text + b"]}"
    response = table.send_rows(body, fmt)
    assert response.status in (400, 422), response
    problem(response, response.status, "price", row=0)


def test_a_bad_last_row_undoes_a_large_body(table):
    """Rows that already streamed into a segment file must not be seen."""
    many = (
        ndjson(row(f"k{b}-{i}", vector=[1, 2, 3, i + 1]) for i in range(1000)) for b in range(60)
    )

    def body():
        yield from many
        yield ndjson([row("last", vector=[1, 2, 3])])

    problem(table.send_rows(body(), NDJSON), 422, row=60000, field="vector")
    assert table.fetch(["k0-0", "k59-999", "last"])["found"] == [False] * 3
    assert table.keys_of(vector=[1, 2, 3, 500], k=5) == [["kept"]]


# ---- bodies ----


@pytest.mark.parametrize("fmt", [JSON, NDJSON, OCTETS])
def test_empty_body_is_refused(numbered, fmt):
    response = numbered.send_rows(b"", fmt, **({"first_key": 9} if fmt == OCTETS else {}))
    problem(response, 400, "body")


@pytest.mark.parametrize("length", [1, 15, 17, 16 * 1000 + 4])
def test_octet_stream_of_a_broken_length_is_refused(numbered, length):
    problem(numbered.send_rows(bytes(length), OCTETS, first_key=9), 422, "16", "dim")


@pytest.mark.parametrize(
    "fmt", ["text/csv", "application/x-npz", "text/plain", "", "json", "image/png"]
)
def test_unsupported_content_type_lists_what_is_taken(table, fmt):
    problem(table.send_rows(b"x", fmt), 415, JSON, NDJSON, OCTETS)


def test_missing_content_type_lists_what_is_taken(table):
    response = table.client.post(f"{table.path}/rows", b'{"rows":[]}')
    problem(response, 415, JSON, NDJSON, OCTETS)


def test_content_type_may_have_parameters_and_any_case(collection):
    collection.create(key="string", features={"a": "int64"})
    for i, fmt in enumerate(["Application/JSON; charset=utf-8", "application/json;charset=UTF-8"]):
        assert collection.load(b'{"rows":[{"key":"a"}]}', fmt)["version"] == i + 1


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "unknown"])
def test_content_encoding_is_refused(table, coding):
    headers = {"Content-Type": JSON, "Content-Encoding": coding}
    problem(table.client.post(f"{table.path}/rows", b"x", headers=headers), 415, "encoding")


@pytest.mark.parametrize(
    "query, word",
    [
        ({"mode": "partition_overwrite"}, "partition_by"),
        ({"wait": "never"}, "durable"),
        ({"wait_s": "x"}, "wait_s"),
        ({"wait_s": "100000"}, "3600"),
        ({"mode": "insert"}, "append"),
        ({"mode": ""}, "mode"),
        ({"duplicates": "first"}, "duplicates"),
        ({"expected_version": "x"}, "expected_version"),
        ({"expected_version": -1}, "expected_version"),
        ({"colour": "red"}, "colour"),
        ({"first_key": "1.5"}, "first_key"),
    ],
    ids=lambda v: str(v) if isinstance(v, dict) else "",
)
def test_bad_query_of_a_load_is_refused(numbered, query, word):
    body, query = np.ones((1, 4), np.float32).tobytes(), {"first_key": 7, **query}
    response = numbered.send_rows(body, OCTETS, **query)
    assert response.status in (400, 422), response
    problem(response, response.status, word)


# ---- searches ----


@pytest.mark.parametrize("k", [0, -1, 1.5, "10", None, 10001, 2**40])
def test_k_out_of_range_is_refused(table, k):
    response = table.send_search(vector=[1, 2, 3, 4], k=k)
    whole = isinstance(k, int)
    assert response.status in ((400,) if whole else EITHER), response
    body = problem(response, response.status, "k")
    if whole and k > 10000:
        assert "10000" in body["detail"].replace(",", "")


@pytest.mark.parametrize(
    "body, status, word",
    [
        ({}, 400, "vector"),
        ({"vector": [1, 2, 3]}, 422, "4"),
        ({"vector": []}, 422, "4"),
        ({"vector": "x"}, EITHER, "vector"),
        ({"vector": [1, 2, None, 4]}, 422, "vector"),
        ({"vector": [0, 0, 0, 0]}, 422, "zero"),
        ({"vector": [1, 2, 3, 1e39]}, 422, "vector"),
        ({"vectors": [[1, 2, 3, 4], [1, 2, 3]]}, 422, "vectors"),
        ({"vectors": [1, 2, 3, 4]}, EITHER, "vectors"),
        ({"vector": [1, 2, 3, 4], "key": "kept"}, 400, "key"),
        ({"key": "kept", "keys": ["kept"]}, 400, "key"),
        ({"key": "nobody"}, 404, "nobody"),
        ({"keys": ["kept", "nobody"]}, 404, "nobody"),
        ({"key": 5}, EITHER, "key"),
        ({"vector": [1, 2, 3, 4], "ef": 0}, EITHER, "ef"),
        ({"vector": [1, 2, 3, 4], "ef": "many"}, EITHER, "ef"),
        ({"vector": [1, 2, 3, 4], "ef": 64, "exact": True}, 400, "ef"),
        ({"vector": [1, 2, 3, 4], "exact": 1}, EITHER, "exact"),
        ({"vector": [1, 2, 3, 4], "features": ["nope"]}, 422, "nope"),
        ({"vector": [1, 2, 3, 4], "features": "price"}, EITHER, "features"),
        ({"vector": [1, 2, 3, 4], "with_vectors": "yes"}, EITHER, "with_vectors"),
        ({"vector": [1, 2, 3, 4], "colour": 1}, 400, "colour"),
        ({"vector": [1, 2, 3, 4], "filters": "price < 3"}, 400, "filters"),
        ({"vector": [1, 2, 3, 4], "recall": 0}, 400, "recall"),
        ({"vector": [1, 2, 3, 4], "recall": 1.01}, 400, "recall"),
        ({"vector": [1, 2, 3, 4], "recall": -0.5}, 400, "recall"),
        ({"vector": [1, 2, 3, 4], "recall": "high"}, EITHER, "recall"),
        ({"vector": [1, 2, 3, 4], "radius": "far"}, EITHER, "radius"),
        ({"vector": [1, 2, 3, 4], "nprobe": 4, "ef": 64}, 400, "nprobe"),
    ],
    ids=lambda v: json.dumps(v)[:60] if isinstance(v, dict) else "",
)
def test_bad_searches_are_refused(table, body, status, word):
    response = table.send_search(**body)
    assert response.status in (status if status is EITHER else (status,)), response
    problem(response, response.status, word)


@pytest.mark.parametrize(
    "text", [b'{"vector":[NaN,1,1,1]}', b'{"vector":[1,2,3,4]', b"", b'{"vector"}']
)
def test_search_body_that_does_not_parse_is_400(table, text):
    problem(table.client.post(f"{table.path}/search", text, headers={"Content-Type": JSON}), 400)


def test_too_many_queries_are_refused(table):
    response = table.send_search(vectors=[[1, 2, 3, 4]] * 10001, k=1)
    assert response.status in (400, 413, 422), response
    body = problem(response, response.status)
    assert "10000" in body["detail"].replace(",", "")


def test_results_over_64_mib_are_refused(collection):
    collection.create(key="int64", vector={"dim": 512, "metric": "l2"})
    collection.load_vectors(np.random.default_rng(1).random((400, 512), np.float32))
    body = {"vectors": [[0.5] * 512] * 400, "k": 400, "with_vectors": True}
    problem(collection.client.post(f"{collection.path}/search", body), 413, "64")


def test_search_by_a_key_without_vector_is_refused(collection):
    collection.create(key="string", vector={"dim": 2})
    collection.load([{"key": "bare"}, {"key": "full", "vector": [1, 1]}])
    problem(collection.send_search(key="bare"), 422, "bare")
    problem(collection.send_search(keys=["full", "bare"]), 422, "bare")


def test_search_with_unsupported_content_type_lists_what_is_taken(table):
    response = table.client.post(f"{table.path}/search", b"x", headers={"Content-Type": "text/csv"})
    problem(response, 415, JSON, OCTETS)


def test_octet_stream_query_of_a_broken_length_is_refused(numbered):
    for length in (1, 15, 17):
        response = numbered.client.post(
            f"{numbered.path}/search?k=1", bytes(length), headers={"Content-Type": OCTETS}
        )
        problem(response, 422, "16")
    bad = np.float32([1, 2, math.nan, 4]).tobytes()
    response = numbered.client.post(
        f"{numbered.path}/search?k=1", bad, headers={"Content-Type": OCTETS}
    )
    problem(response, 422)


def test_octet_stream_results_need_int64_keys(table):
    response = table.client.post(
        f"{table.path}/search", {"vector": [1, 2, 3, 4]}, headers={"Accept": OCTETS}
    )
    problem(response, 406, "int64")


def test_accept_that_cannot_be_met_is_406(table):
    for accept in ("text/html", "application/vnd.apache.arrow.stream"):
        headers = {"Accept": accept}
        body = {"vector": [1, 2, 3, 4]}
        problem(table.client.post(f"{table.path}/search", body, headers=headers), 406, JSON)


# ---- methods ----


@pytest.mark.parametrize(
    "method, rest, allowed",
    [
        ("PATCH", "/search", "POST"),
        ("GET", "/search", "POST"),
        ("PUT", "/features", "POST"),
        ("POST", "/rows/abc", "GET"),
        ("DELETE", "/index", "GET"),
        ("GET", "/rows/delete/x", None),
    ],
)
def test_wrong_method_says_which_are_right(table, method, rest, allowed):
    response = table.client.request(method, table.path + rest)
    if allowed is None:
        problem(response, 404)
    else:
        problem(response, 405, method)
        assert allowed in response.headers["Allow"]


def test_refused_loads_leave_no_files_behind(start_daemon):
    """A body that fails after it was staged on disk gives its space back."""
    daemon = start_daemon()
    c = Collection(daemon.client, "c").create(key="int64", vector={"dim": 64, "metric": "l2"})

    def used():
        return sum(f.stat().st_blocks * 512 for f in daemon.data.rglob("*") if f.is_file())

    c.load_vectors(np.ones((1, 64), np.float32))
    before = used()
    vectors = np.ones((100000, 64), np.float32)
    vectors[-1, 5] = np.nan
    problem(c.send_rows(vectors.tobytes(), OCTETS, first_key=0), 422, row=99999)
    deadline = time.monotonic() + 5
    while used() > before + 2**20:
        left = [f for f in daemon.data.rglob("*") if f.is_file()]
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)
    assert list((daemon.data / "c" / "staging").glob("*")) == []
    expect(daemon.client.get("/readyz"))
