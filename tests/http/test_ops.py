"""What operators ask: health, readiness, limits, the root, and how unknown things are told."""

import threading

import pytest

from client import Collection, expect, problem


def test_root_says_what_this_is_and_where_to_look(client):
    body = expect(client.get("/"))
    assert body["name"].lower().startswith("loadstone") and body["version"]
    assert "/v1/collections" in str(body)


def test_healthz_and_readyz(client):
    for path in ("/healthz", "/readyz"):
        assert client.get(path).status == 200


def test_head_works_where_get_does(client, collection):
    collection.create(key="string", features={"a": "bool"})
    for path in ("/", "/healthz", "/v1/collections", collection.path, "/v1/limits"):
        got, head = client.get(path), client.request("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Type"] == got.headers["Content-Type"]
    assert client.request("HEAD", "/v1/collections/nowhere").status == 404


def test_limits_name_the_numbers_that_errors_name(client):
    limits = expect(client.get("/v1/limits"))
    text = str(limits)
    for number in (10000, 65536, 1024, 64 * 2**20, 16 * 2**30):
        assert str(number) in text, f"{number} is in no limit: {limits}"
    assert all(isinstance(v, (int, float)) for v in limits.values()), limits


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/v1",
        "/v1/collection",
        "/v2/collections",
        "/v1/collections/a/b/c",
        "/v1/limits/x",
    ],
)
def test_unknown_path_is_404_with_a_sentence(client, path):
    problem(client.get(path), 404)


@pytest.mark.parametrize(
    "method, path, allowed",
    [
        ("POST", "/healthz", "GET"),
        ("DELETE", "/v1/collections", "GET"),
        ("POST", "/", "GET"),
        ("PUT", "/v1/limits", "GET"),
        ("BREW", "/readyz", "GET"),
    ],
)
def test_wrong_method_is_405_with_allow(client, method, path, allowed):
    response = client.request(method, path)
    problem(response, 405, method)
    assert allowed in response.headers["Allow"]


def test_unknown_query_parameter_is_refused(client, collection):
    collection.create(key="string", features={"a": "bool"})
    for path in (collection.path, "/v1/collections", f"{collection.path}/index"):
        problem(client.get(path + "?colour=red"), 400, "colour")


@pytest.mark.parametrize(
    "accept", ["*/*", "application/*", "application/json;q=0.5, text/html", None]
)
def test_json_goes_to_who_takes_anything(client, accept):
    response = client.get("/v1/collections", headers={"Accept": accept} if accept else {})
    assert response.status == 200
    assert response.headers["Content-Type"].split(";")[0] == "application/json"


def test_problem_has_the_members_of_rfc_9457(client):
    body = problem(client.get("/v1/collections/nowhere"), 404)
    assert set(body) <= {"type", "title", "status", "detail", "instance", "row", "field"}
    assert "row" not in body and "field" not in body


def test_many_connections_are_served(client, collection):
    collection.create(key="int64", vector={"dim": 2, "metric": "l2"})
    collection.load([{"key": 1, "vector": [0, 0]}])
    failures = []

    def ask():
        try:
            for _ in range(20):
                assert collection.keys_of(vector=[1, 1]) == [[1]]
        except BaseException as e:
            failures.append(e)
        finally:
            client.close()

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures, failures[0]


def test_readyz_after_a_start_with_many_collections(own_daemon):
    for n in range(50):
        c = Collection(own_daemon.client, f"c{n}").create(key="int64", features={"n": "int64"})
        c.load([{"key": n, "n": n}])
    own_daemon.restart()
    for n in range(50):
        c = Collection(own_daemon.client, f"c{n}")
        assert c.row(n)["features"] == {"n": n}
