"""/metrics: read by Prometheus' own parser, and true."""

import re
import shutil
import time

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from client import Collection, RawExchange, expect, problem, request_head

HISTOGRAMS = {
    "loadstone_commit_duration_seconds",
    "loadstone_fetch_duration_seconds",
    "loadstone_http_request_duration_seconds",
    "loadstone_index_build_duration_seconds",
    "loadstone_load_duration_seconds",
    "loadstone_log_sync_duration_seconds",
    "loadstone_seal_duration_seconds",
    "loadstone_search_duration_seconds",
    "loadstone_worker_queue_wait_seconds",
}


def scrape(client):
    response = client.get("/metrics")
    assert response.status == 200, response
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return response.body.decode()


class Samples:
    """The values of one scrape."""

    def __init__(self, client):
        self.text = scrape(client)
        self.families = list(text_string_to_metric_families(self.text))
        self.values = {
            (s.name, tuple(sorted(s.labels.items()))): s.value
            for family in self.families
            for s in family.samples
        }

    def get(self, name, **labels):
        return self.values.get((name, tuple(sorted(labels.items()))))

    def since(self, before, name, **labels):
        return (self.get(name, **labels) or 0) - (before.get(name, **labels) or 0)


def test_every_family_is_typed_explained_and_named_by_the_rules(client):
    samples = Samples(client)
    names = [f.name for f in samples.families]
    assert len(set(names)) == len(names), "a family comes twice"
    assert HISTOGRAMS <= {f.name for f in samples.families if f.type == "histogram"}
    for f in samples.families:
        assert f.type in ("counter", "gauge", "histogram") and f.documentation, f.name
        assert re.fullmatch(r"loadstone_[a-z_]+", f.name), f.name
        if f.type == "counter":
            assert f"# TYPE {f.name}_total counter" in samples.text
        if re.search(r"bytes|seconds", f.name):
            assert re.search(r"(bytes|seconds)(_max)?$", f.name), f"{f.name}: the unit comes last"


def test_histograms_are_whole(client, collection):
    collection.create(key="int64", vector={"dim": 2, "metric": "l2"})
    collection.load([{"key": 1, "vector": [0, 0]}])
    collection.search(vector=[0, 0])
    for family in Samples(client).families:
        if family.type != "histogram":
            continue
        buckets = {}
        for s in family.samples:
            labels = tuple((k, v) for k, v in sorted(s.labels.items()) if k != "le")
            if s.name.endswith("_bucket"):
                buckets.setdefault(labels, []).append((float(s.labels["le"]), s.value))
            elif s.name.endswith("_count"):
                assert buckets[labels][-1] == (float("inf"), s.value), family.name
        for series in buckets.values():
            assert series == sorted(series), f"{family.name}: bounds or counts fall"
            assert len(series) == 28


def test_requests_count_by_route_and_class(client, collection):
    route = {"method": "GET", "route": "/v1/collections/{}"}
    before = Samples(client)
    problem(client.get(collection.path), 404)
    collection.create(key="string", features={"a": "bool"})
    for _ in range(3):
        collection.describe()
    problem(client.get("/nowhere/at/all?x=%22"), 404)
    after = Samples(client)
    requests = "loadstone_http_requests_total"
    assert after.since(before, requests, **route, **{"class": "2xx"}) == 3
    assert after.since(before, requests, **route, **{"class": "4xx"}) == 1
    assert after.since(before, requests, method="", route="", **{"class": "4xx"}) == 1
    assert after.since(before, "loadstone_http_request_duration_seconds_count", **route) == 4
    assert "nowhere" not in after.text


def test_a_load_that_is_waited_for_counts_once(client, collection):
    collection.create(key="int64", vector={"dim": 64, "metric": "l2"}, index={"kind": "flat"})
    before = Samples(client)
    collection.load_vectors(np.zeros((40000, 64), np.float32))  # 10 MB: committed by another thread
    assert Samples(client).since(before, "loadstone_load_duration_seconds_count") == 1


def test_work_is_counted_by_what_it_did(client, collection):
    collection.create(key="int64", vector={"dim": 4, "metric": "l2"}, features={"n": "int64"})
    before = Samples(client)
    body = [{"key": i, "vector": [i, 0, 0, 0], "n": i} for i in range(50)]
    collection.load(body)
    collection.delete_rows([0, 1, 1000])
    collection.search(vectors=[[0, 0, 0, 0]] * 3)
    collection.fetch([1, 2, 3, 4])
    collection.row(5)
    after = Samples(client)
    since = lambda name: after.since(before, name)  # noqa: E731
    assert since("loadstone_rows_loaded_total") == 50
    assert since("loadstone_rows_deleted_total") == 2
    assert since("loadstone_load_duration_seconds_count") == 1
    assert since("loadstone_commit_duration_seconds_count") == 2
    assert since("loadstone_log_records_total") == 2
    assert 1 <= since("loadstone_log_sync_duration_seconds_count") <= 2
    assert since("loadstone_search_duration_seconds_count") == 1
    assert since("loadstone_search_queries_total") == 3
    assert since("loadstone_fetch_duration_seconds_count") == 2
    assert since("loadstone_fetch_keys_total") == 5
    assert since("loadstone_http_received_bytes_total") > 50 * 20
    assert since("loadstone_http_sent_bytes_total") > 100
    assert since("loadstone_search_duration_seconds_sum") > 0


def test_gauges_of_the_process_and_the_server(server, client):
    samples = Samples(client)
    fds = samples.get("loadstone_process_open_files")
    assert 5 < fds <= samples.get("loadstone_process_open_files_max")
    resident, anonymous = server.memory("VmRSS"), server.memory()
    assert 0.5 < samples.get("loadstone_process_resident_bytes") / resident < 2
    assert 0.5 < samples.get("loadstone_process_anonymous_bytes") / anonymous < 2
    assert samples.get("loadstone_process_cpu_seconds_total") > 0
    assert samples.get("loadstone_http_connections") >= 1
    assert samples.get("loadstone_http_requests_running") >= 1
    assert samples.get("loadstone_worker_running", pool="writer") >= 1, "a scrape runs on a worker"
    assert samples.get("loadstone_ready") == 1
    info = [s for f in samples.families for s in f.samples if s.name == "loadstone_build_info"]
    root = expect(client.get("/"))
    assert [s.labels["version"] for s in info] == [root["version"]]
    assert info[0].labels["io"] in ("io_uring", "posix")


def test_a_collection_is_told_by_its_gauges(start_daemon):
    """On a daemon of its own: a scrape names no more than 256 collections."""
    client = start_daemon().client
    collection = Collection(client, "c")
    collection.create(
        key="int64", vector={"dim": 8, "metric": "l2"}, index={"kind": "hnsw", "m": 8}
    )
    collection.load_vectors(np.random.default_rng(1).random((2000, 8), np.float32))
    state = collection.wait_indexed()[-1]
    samples, name = Samples(client), collection.name
    described = collection.describe()
    gauge = lambda what: samples.get(f"loadstone_collection_{what}", collection=name)  # noqa: E731
    assert gauge("version") == described["version"] == 1
    assert gauge("rows") == gauge("vectors") == described["rows"] == 2000
    assert gauge("indexed_rows") == state["indexed_rows"]
    assert gauge("index_progress") == 1 and gauge("index_building") == 0
    assert gauge("index_bytes") == state["bytes"]
    assert gauge("read_only") == gauge("quarantined") == 0
    assert samples.get("loadstone_mapped_bytes") >= gauge("index_bytes")
    expect(client.delete(collection.path), 204)
    assert f'"{name}"' not in scrape(client)


def test_a_quarantined_collection_raises_its_gauge(start_daemon):
    daemon = start_daemon()
    for name in ("good", "bad"):
        Collection(daemon.client, name).create(key="int64", features={"n": "int64"})
    assert daemon.stop() == 0
    log = next((daemon.data / "bad" / "log").glob("*.log"))
    log.write_bytes(b"\0" * 4096 + log.read_bytes()[4096:])
    daemon.start()
    samples = Samples(daemon.client)
    assert samples.get("loadstone_collection_quarantined", collection="bad") == 1
    assert samples.get("loadstone_collection_quarantined", collection="good") == 0
    assert samples.get("loadstone_collection_rows", collection="bad") is None
    assert samples.get("loadstone_collections", state="quarantined") == 1
    assert samples.get("loadstone_collections", state="serving") == 1


def test_series_of_collections_are_bounded(start_daemon):
    daemon = start_daemon()
    Collection(daemon.client, "c000").create(key="int64", features={"n": "int64"})
    assert daemon.stop() == 0
    for n in range(1, 300):
        shutil.copytree(daemon.data / "c000", daemon.data / f"c{n:03}")
    daemon.start()
    samples = Samples(daemon.client)
    listed = [k for k in samples.values if k[0] == "loadstone_collection_rows"]
    assert len(listed) == 256
    assert samples.get("loadstone_collections", state="serving") == 300
    assert re.search(r"^# 44 collections ", samples.text, re.M)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_metrics_are_only_read(client, method):
    problem(client.request(method, "/metrics"), 405, method)


def test_an_answer_past_the_library_and_a_client_that_leaves_are_told_apart(start_daemon):
    """A body that is refused before it has come, and one that never comes whole."""
    daemon = start_daemon(args=["--drain-bytes-max", "1024"])
    client = daemon.client
    c = Collection(client, "c").create(key="int64", vector={"dim": 2, "metric": "l2"})
    before = Samples(client)
    path, rows = f"{c.path}/rows", {"method": "POST", "route": "/v1/collections/{}/rows"}
    head = {"Content_Type": "application/octet-stream", "Content_Length": 2**20}
    with RawExchange(client) as exchange:
        exchange.send(request_head("POST", path, **head) + bytes(4096)).finish_sending()
        problem(exchange.answer(), 400, "first_key")
    with RawExchange(client) as exchange:
        exchange.send(request_head("POST", f"{path}?first_key=0", **head) + bytes(4096))
    deadline = time.monotonic() + 30
    requests = "loadstone_http_requests_total"
    while Samples(client).since(before, requests, **rows, **{"class": "aborted"}) < 1:
        assert time.monotonic() < deadline, "the client that left is not counted"
        time.sleep(0.02)
    assert Samples(client).since(before, requests, **rows, **{"class": "4xx"}) == 1
