"""Search against FAISS itself: distances, neighbours and their order, on every metric and by every
way of asking; deletes, updates and ties; JSON and octet-stream in and out."""

import numpy as np
import pytest

from client import JSON, OCTETS, Collection, expect, key_path, ndjson, problem, read_hits
from data import clustered, faiss_exact

METRICS = ["l2", "ip", "cosine"]
N, DIM, K = 3000, 33, 10


def close(got, want):
    return np.allclose(got, want, rtol=1e-5, atol=1e-5)


def same_neighbours(hits, want_ids, want_distances, key=int):
    """The same distances, and the same keys but where two lie within rounding of each other."""
    distances = [h["distance"] for h in hits]
    assert close(distances, want_distances), (distances, want_distances)
    for h, want in zip(hits, want_ids, strict=True):
        if h["key"] != key(want):
            near = np.abs(want_distances - h["distance"]) < 1e-4
            assert h["key"] in [key(i) for i in want_ids[near]], (h, want_ids)


@pytest.fixture(scope="module", params=METRICS)
def filled(request, shared_server):
    """N vectors behind int64 keys 0..N-1, and what FAISS says of 20 queries."""
    base, queries = clustered(N, DIM, seed=11), clustered(20, DIM, seed=12)
    c = Collection(shared_server.client, f"search_{request.param}")
    c.create(
        key="int64",
        vector={"dim": DIM, "metric": request.param},
        features={"label": "int32", "name": "string"},
    )
    c.load_vectors(base)
    c.load(
        ndjson({"key": i, "label": i % 10, "name": f"n{i}"} for i in range(0, N, 2)),
        "application/x-ndjson",
    )
    c.base, c.queries, c.metric = base, queries, request.param
    c.ids, c.distances = faiss_exact(request.param, base, queries, K)
    return c


@pytest.mark.parametrize("exact", [False, True])
def test_single_vectors_agree_with_faiss(filled, exact):
    for q, ids, distances in zip(filled.queries, filled.ids, filled.distances, strict=True):
        answer = filled.search(vector=q.tolist(), k=K, exact=exact)
        assert len(answer["hits"]) == 1 and answer["took_us"] >= 0
        same_neighbours(answer["hits"][0], ids, distances)


def test_many_vectors_at_once_agree_with_one_by_one(filled):
    answer = filled.search(vectors=filled.queries.tolist(), k=K, exact=True)
    assert len(answer["hits"]) == len(filled.queries)
    for q, hits in zip(filled.queries, answer["hits"], strict=True):
        assert filled.search(vector=q.tolist(), k=K, exact=True)["hits"] == [hits]


def test_hits_are_sorted_by_distance_then_key(filled):
    for hits in filled.search(vectors=filled.queries.tolist(), k=200)["hits"]:
        order = [(h["distance"], h["key"]) for h in hits]
        assert order == sorted(order) and len(set(order)) == 200


def test_search_by_key_leaves_the_key_out(filled):
    for key in (0, 17, N - 1):
        ids, distances = faiss_exact(filled.metric, filled.base, filled.base[key : key + 1], K + 1)
        keep = ids[0] != key
        hits = filled.search(key=key, k=K, exact=True)["hits"][0]
        assert key not in [h["key"] for h in hits]
        same_neighbours(hits, ids[0][keep][:K], distances[0][keep][:K])


def test_search_by_keys_gives_one_list_each_in_order(filled):
    keys = [5, 2, 5, 99]
    hits = filled.search(keys=keys, k=3, exact=True)["hits"]
    assert hits == [filled.search(key=k, k=3, exact=True)["hits"][0] for k in keys]


def test_keys_given_as_strings_find_int64_keys(filled):
    assert filled.keys_of(key="5", k=3) == filled.keys_of(key=5, k=3)


def test_features_come_only_when_asked_and_null_where_null(filled):
    q = filled.queries[0].tolist()
    assert set(filled.search(vector=q)["hits"][0][0]) == {"key", "distance"}
    for hit in filled.search(vector=q, k=50, features=["name", "label"])["hits"][0]:
        even = hit["key"] % 2 == 0
        assert hit["features"] == {
            "name": f"n{hit['key']}" if even else None,
            "label": hit["key"] % 10 if even else None,
        }
    hit = filled.search(vector=q, k=1, features=[])["hits"][0][0]
    assert hit.get("features", {}) == {}


def test_vectors_come_back_bit_for_bit(filled):
    for hit in filled.search(vector=filled.queries[0].tolist(), k=50, with_vectors=True)["hits"][0]:
        assert np.array_equal(np.float32(hit["vector"]), filled.base[hit["key"]])


def test_k_defaults_to_ten_and_takes_ten_thousand(filled):
    q = filled.queries[0].tolist()
    assert len(filled.search(vector=q)["hits"][0]) == 10
    assert sorted(filled.keys_of(vector=q, k=10000)[0]) == list(range(N)), "k > rows: all of them"


def test_version_header_names_the_version(filled):
    response = filled.send_search(vector=filled.queries[0].tolist())
    assert response.headers["Loadstone-Version"] == str(response.json()["version"]) == "2"


# ---- octet-stream ----


def send_octets(c, queries, accept, **settings):
    query = "&".join(f"{k}={v}" for k, v in settings.items())
    headers = {"Content-Type": OCTETS, "Accept": accept}
    body = np.ascontiguousarray(queries).tobytes()
    return c.client.post(f"{c.path}/search?{query}", body, headers=headers)


def test_all_four_wire_combinations_give_the_same_hits(filled):
    want = filled.search(vectors=filled.queries.tolist(), k=K, exact=True)["hits"]
    keys = [[h["key"] for h in hits] for hits in want]
    distances = [[h["distance"] for h in hits] for hits in want]

    from_octets = send_octets(filled, filled.queries, JSON, k=K, exact="true")
    assert expect(from_octets)["hits"] == want

    body = {"vectors": filled.queries.tolist(), "k": K, "exact": True}
    to_octets = filled.client.post(f"{filled.path}/search", body, headers={"Accept": OCTETS})
    both = send_octets(filled, filled.queries, OCTETS, k=K, exact="true")
    for response in (to_octets, both):
        assert response.headers["Content-Type"] == OCTETS
        assert response.headers["Loadstone-Version"] == "2"
        got_keys, got_distances = read_hits(response, len(filled.queries), K)
        assert got_keys == keys
        assert close(got_distances, distances)


def test_octet_results_mark_missing_hits(collection):
    collection.create(key="int64", vector={"dim": 2, "metric": "l2"})
    collection.load([{"key": 7, "vector": [0, 0]}, {"key": -9, "vector": [3, 4]}, {"key": 1}])
    response = send_octets(collection, np.zeros((2, 2), np.float32), OCTETS, k=4)
    keys, distances = read_hits(response, 2, 4)
    assert keys == [[7, -9, -1, -1]] * 2
    assert distances == [[0, 5, np.inf, np.inf]] * 2


def test_octet_results_tell_hits_beyond_float32_from_missing_ones(collection):
    collection.create(key="int64", vector={"dim": 2, "metric": "ip"})
    collection.load([{"key": 7, "vector": [3e38, 3e38]}, {"key": -1, "vector": [1, 0]}])
    query = np.array([[-3e38, -3e38]], np.float32)
    keys, distances = read_hits(send_octets(collection, query, OCTETS, k=3), 1, 3)
    assert keys == [[-1, 7, -1]]
    assert distances == [[np.float32(3e38), np.finfo(np.float32).max, np.inf]]


def test_octet_queries_take_features_and_vectors_settings(filled):
    got = expect(
        send_octets(
            filled, filled.queries[:1], JSON, k=2, features="label,name", with_vectors="true"
        )
    )
    want = filled.search(
        vector=filled.queries[0].tolist(), k=2, features=["label", "name"], with_vectors=True
    )
    assert got["hits"] == want["hits"]


@pytest.mark.parametrize("settings", ["k=0", "k=x", "k=10001", "ef=0", "colour=1", "exact=maybe"])
def test_bad_octet_settings_are_refused(filled, settings):
    response = filled.client.post(
        f"{filled.path}/search?{settings}",
        filled.queries[:1].tobytes(),
        headers={"Content-Type": OCTETS},
    )
    assert response.status in (400, 422), response
    problem(response, response.status, settings.split("=")[0])


# ---- what changes under the search ----


@pytest.mark.parametrize("metric", METRICS)
def test_ties_are_ordered_by_key(backend_collection, metric):
    c = backend_collection.create(key="int64", vector={"dim": 8, "metric": metric})
    one, other = np.arange(1, 9, dtype=float).tolist(), [1.0] * 8
    keys = [9, 10, -3, 100, 2**40, 1, 5, -(2**50)]
    c.load([{"key": k, "vector": one} for k in keys] + [{"key": 0, "vector": other}])
    c.load([{"key": 3, "vector": one}, {"key": -4, "vector": one}])
    want = sorted(keys + [3, -4])
    for k in (1, 4, len(want)):
        assert c.keys_of(vector=one, k=k) == [want[:k]]


def test_string_ties_are_ordered_by_bytes(collection):
    collection.create(key="string", vector={"dim": 2, "metric": "l2"})
    keys = ["b", "a", "", "é", "Z", "aa", "10", "9", "\U0001f9f2", "\uffff"]
    keys.remove("")
    collection.load([{"key": k, "vector": [1, 1]} for k in keys])
    assert collection.keys_of(vector=[0, 0]) == [sorted(keys, key=str.encode)]


def test_empty_collection_gives_one_empty_list_per_query(collection):
    collection.create(key="string", vector={"dim": 2})
    assert collection.search(vector=[1, 1])["hits"] == [[]]
    assert collection.search(vectors=[[1, 1]] * 3)["hits"] == [[], [], []]
    assert collection.search(vectors=[])["hits"] == []
    collection.load([{"key": "no vector"}])
    assert collection.search(vectors=[[1, 1]] * 2)["hits"] == [[], []]


def test_deleted_rows_are_never_hits_and_updated_ones_are_where_they_went(backend_collection):
    """Over a bulk segment, later commits, deletes and updates, compared with FAISS at each step."""
    c = backend_collection.create(key="int64", vector={"dim": 24, "metric": "l2"})
    rng = np.random.default_rng(7)
    state = {}

    def check():
        keys = np.array(sorted(state))
        base = np.array([state[k] for k in keys])
        queries = np.concatenate([clustered(10, 24, seed=len(state)), base[:5]])
        ids, distances = faiss_exact("l2", base, queries, 5)
        for exact in (True, False):
            hits = c.search(vectors=queries.tolist(), k=5, exact=exact)["hits"]
            found = [h["key"] for row in hits for h in row]
            assert set(found) <= set(state)
            if exact:
                for row, i, d in zip(hits, ids, distances, strict=True):
                    same_neighbours(row, keys[i], d)

    base = clustered(8000, 24, seed=8)
    c.load_vectors(base)
    state.update(enumerate(base))
    check()
    for step in range(4):
        gone = rng.choice(sorted(state), 1500, replace=False)
        assert c.delete_rows([int(k) for k in gone])["deleted"] == len(gone)
        for k in gone:
            del state[k]
        check()
        moved = rng.choice(sorted(state), 200, replace=False)
        places = clustered(200, 24, seed=100 + step)
        c.load([{"key": int(k), "vector": p.tolist()} for k, p in zip(moved, places, strict=True)])
        state.update(zip(moved, places, strict=True))
        check()
        k, p = int(moved[0]), places[0]
        assert c.keys_of(vector=p.tolist(), k=1) == [[k]]
    assert c.describe()["rows"] == len(state)


def test_null_vectors_amid_others_are_never_hits(backend_collection):
    c = backend_collection.create(key="int64", vector={"dim": 4, "metric": "ip"})
    base = clustered(500, 4, seed=3)
    c.load([{"key": i, "vector": None if i % 3 == 0 else base[i].tolist()} for i in range(500)])
    keys = np.array([i for i in range(500) if i % 3])
    ids, distances = faiss_exact("ip", base[keys], base[:20], 7)
    hits = c.search(vectors=base[:20].tolist(), k=7)["hits"]
    for row, i, d in zip(hits, ids, distances, strict=True):
        same_neighbours(row, keys[i], d)
    assert len(c.keys_of(vector=base[1].tolist(), k=1000)[0]) == len(keys)


@pytest.mark.parametrize("dim", [1, 2, 7, 8, 15, 16, 17, 31, 64, 100, 255, 768, 1536, 4097, 65536])
def test_any_dimension_agrees_with_faiss(backend_collection, dim):
    c = backend_collection.create(key="int64", vector={"dim": dim, "metric": "cosine"})
    n = 200 if dim < 5000 else 12
    base = clustered(n, dim, seed=dim)
    c.load_vectors(base)
    ids, distances = faiss_exact("cosine", base, base[:3] + 0.01, 5)
    hits = c.search(vectors=(base[:3] + np.float32(0.01)).tolist(), k=5)["hits"]
    for row, i, d in zip(hits, ids, distances, strict=True):
        if dim > 1:
            same_neighbours(row, i, d)
        else:
            assert close([h["distance"] for h in row], d)


def test_extreme_magnitudes_do_not_overflow(collection):
    """Squares beyond float32 still order right and come out finite where a double can hold them."""
    collection.create(key="int64", vector={"dim": 2, "metric": "l2"})
    collection.load([{"key": i, "vector": [10.0**e, 0]} for i, e in enumerate((-30, 0, 25, 38))])
    hits = collection.search(vector=[0, 0], exact=True)["hits"][0]
    assert [h["key"] for h in hits] == [0, 1, 2, 3]
    assert np.allclose([h["distance"] for h in hits], [1e-30, 1, 1e25, 1e38], rtol=1e-5)


def test_key_of_a_path_is_found_by_search_too(collection):
    collection.create(key="string", vector={"dim": 2, "metric": "l2"}, features={"n": "int32"})
    keys = ["a/b c", "é?x=1", "%41"]
    collection.load([{"key": k, "vector": [i, 1], "n": i} for i, k in enumerate(keys)])
    for i, k in enumerate(keys):
        assert collection.keys_of(vector=[i, 1], k=1) == [[k]]
        assert k not in collection.keys_of(key=k)[0]
        path = f"{collection.path}/rows/{key_path(k)}?features=n"
        assert expect(collection.client.get(path))["features"] == {"n": i}
