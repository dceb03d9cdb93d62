"""Rows as .npy files, written by numpy itself."""

import io

import numpy as np
import pytest

from client import NPY, OCTETS, expect, problem


def npy(array, version=None):
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=version)
    return out.getvalue()


def vectors(n, dim=4):
    return np.random.default_rng(n).standard_normal((n, dim)).astype(np.float32)


@pytest.fixture
def table(collection):
    return collection.create(key="int64", vector={"dim": 4, "metric": "l2"}, features={"a": "bool"})


def pieces(body, size):
    return (body[i : i + size] for i in range(0, len(body), size))


@pytest.mark.parametrize("version", [None, (1, 0), (2, 0), (3, 0)])
def test_vectors_arrive_as_they_were(table, version):
    v = vectors(1000)
    answer = table.load(npy(v, version), NPY, first_key=-500)
    assert (answer["version"], answer["rows"], answer["inserted"]) == (1, 1000, 1000)
    got = table.fetch(list(range(-500, 500)), with_vectors=True)
    assert np.array_equal(np.array(got["vectors"], np.float32), v)


@pytest.mark.parametrize("chunked", [False, True], ids=["length_given", "chunked"])
def test_large_file_is_the_same_as_an_octet_stream(backend_collection, chunked):
    v = vectors(40_000, 37)  # rows of 148 bytes: cut at every boundary between buffers
    body = npy(v)
    c = backend_collection.create(key="int64", vector={"dim": 37, "metric": "l2"})
    c.load(pieces(body, 100_000) if chunked else body, NPY, first_key=7)
    again = c.load(v.tobytes(), OCTETS, first_key=7)
    assert (again["updated"], again["inserted"]) == (40_000, 0)
    c.load(body, NPY, first_key=7)
    keys = [7, 8, 7076, 7077, 7078, 40_006]
    got = c.fetch(keys, with_vectors=True)["vectors"]
    assert np.array_equal(np.array(got, np.float32), v[np.array(keys) - 7])
    assert c.keys_of(vector=v[1234].tolist(), k=1, exact=True) == [[1241]]
    assert c.describe()["rows"] == 40_000


def test_features_that_are_there_stay(table):
    table.load([{"key": 1, "a": True}])
    table.load(npy(vectors(3)), NPY, first_key=0)
    assert table.fetch([0, 1, 2])["features"]["a"] == [None, True, None]


def test_modes_and_messages_are_those_of_rows(table):
    table.load(npy(vectors(3)), NPY, first_key=0, mode="append", message="first")
    answer = table.send_rows(npy(vectors(3)), NPY, first_key=2, mode="append")
    problem(answer, 422, "2 exists", row=0, field="key")
    answer = table.send_rows(npy(vectors(3)), NPY, first_key=9, expected_version=0)
    problem(answer, 412, "expected_version")
    assert table.state() == (1, 3)


def test_array_without_rows_makes_a_version(table):
    assert table.load(npy(np.zeros((0, 4), "<f4")), NPY, first_key=0)["rows"] == 0
    assert table.state() == (1, 0)


def test_layouts_that_numpy_calls_contiguous_both_ways(table):
    table.load(npy(np.asfortranarray(vectors(1))), NPY, first_key=0)
    assert table.state() == (1, 1)


REFUSED = {
    "float64": (np.zeros((2, 4)), ["'<f8'", "astype('<f4')"]),
    "float16": (np.zeros((2, 4), "f2"), ["'<f2'"]),
    "int8": (np.zeros((2, 4), "i1"), ["'|i1'"]),
    "big_endian": (np.ones((2, 4), ">f4"), ["'>f4'", "little-endian"]),
    "complex": (np.zeros((2, 4), "c8"), ["'<c8'"]),
    "structured": (np.zeros(2, [("v", "<f4", 4)]), ["structured"]),
    "fortran": (np.asfortranarray(vectors(2)), ["Fortran", "ascontiguousarray"]),
    "one_dimension": (np.zeros(4, "<f4"), ["reshape(1, -1)"]),
    "no_dimension": (np.float32(1), ["0 dimensions"]),
    "three_dimensions": (np.zeros((2, 2, 4), "<f4"), ["3 dimensions"]),
    "other_dim": (np.zeros((2, 5), "<f4"), ["2 x 5", "dim is 4"]),
    "turned": (np.zeros((4, 2), "<f4"), ["4 x 2", "dim is 4"]),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("chunked", [False, True], ids=["length_given", "chunked"])
def test_arrays_that_are_not_taken(table, name, chunked):
    array, words = REFUSED[name]
    body = npy(np.asanyarray(array))
    answer = table.send_rows(pieces(body, 50) if chunked else body, NPY, first_key=0)
    problem(answer, 422, *words)
    assert table.state() == (0, 0)


@pytest.mark.parametrize("chunked", [False, True], ids=["length_given", "chunked"])
@pytest.mark.parametrize(
    "cut, words",
    [(0, "empty"), (5, "header"), (100, "header"), (-1, "rows"), (-16, "rows"), (16, "rows")],
)
def test_body_that_is_not_what_its_header_says(table, chunked, cut, words):
    body = npy(vectors(100))
    body = body + bytes(cut) if cut == 16 else body[:cut] if cut else b""
    answer = table.send_rows(pieces(body, 64) if chunked else body, NPY, first_key=0)
    if words == "rows" and not chunked:
        words = f"body has {len(body)}"
    problem(answer, 400, words)
    assert table.state() == (0, 0)


def test_what_is_no_npy_file(table):
    for body in b"\x93NUMPY", b'{"rows":[]}', b"PK\x03\x04" * 100, b"\x93NUMPY\x09\x00" + bytes(99):
        answer = table.send_rows(body, NPY, first_key=0)
        problem(answer, 400, ".npy")
    assert table.state() == (0, 0)


def test_header_that_claims_the_world(table):
    body = npy(vectors(1000))
    for rows in 2**60, 2**64 - 1, 2**40, 10**30:
        claim = body.replace(b"(1000, 4), }" + b" " * 40, f"({rows}, 4), }}".encode().ljust(52))
        assert len(claim) == len(body) and claim != body
        assert table.send_rows(claim, NPY, first_key=0).status in (400, 422)
        chunked = table.send_rows(pieces(claim, 5000), NPY, first_key=0)
        assert chunked.status in (400, 422), chunked
    assert table.state() == (0, 0)


def test_first_key(table):
    body = npy(vectors(3))
    problem(table.send_rows(body, NPY), 400, "first_key", field="first_key")
    answer = table.send_rows(body, NPY, first_key=2**63 - 2)
    problem(answer, 422, "overflow", field="first_key")
    assert table.load(body, NPY, first_key=2**63 - 3)["rows"] == 3
    assert table.fetch([2**63 - 1])["found"] == [True]


def test_collections_that_npy_does_not_fit(collection):
    body = npy(vectors(3))
    collection.create(key="string", vector={"dim": 4})
    problem(collection.send_rows(body, NPY, first_key=0), 422, "strings", field="key")
    expect(collection.client.delete(collection.path), 204)
    collection.create(key="int64", features={"a": "bool"})
    problem(collection.send_rows(body, NPY, first_key=0), 422, "no vectors")


def test_vectors_are_checked_as_in_other_formats(table):
    v = vectors(50)
    v[33, 2] = np.nan
    problem(table.send_rows(npy(v), NPY, first_key=0), 422, "NaN", row=33, field="vector")
    assert table.state() == (0, 0)
