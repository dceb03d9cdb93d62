"""/openapi.json says what the server does: every route, parameter, media type and limit, and
schemathesis finds no answer outside it."""

import re

import pytest
import yaml

import contract
from client import expect
from daemon import REPO

METHODS = ("get", "put", "post", "patch", "delete")


def source_routes():
    """The rows of the table in routes.c: {(method, path): (params, takes, offers)}."""
    text = (REPO / "api" / "routes.c").read_text()
    media_c = (REPO / "api" / "media.c").read_text()
    media = dict(re.findall(r"\{(MEDIA_\w+), \"([^\"]+)\"\}", media_c))
    assert len(media) >= 3
    sets = dict(re.findall(r"#define (\w+) \(([^)]*)\)", text))

    def expand(value):
        names = re.findall(r"\w+", " ".join(sets.get(n, n) for n in re.findall(r"\w+", value)))
        return {media[n] for n in names}

    routes = {}
    for entry in re.findall(r"\{(\.method.*?)\}[,;]?\n", text, re.S):
        entry = re.sub(r"\"\s+\"", "", entry)  # a text in two literals
        fields = dict(re.findall(r"\.(\w+) = (\"[^\"]*\"|[^,}]+)", entry))
        method, path = fields["method"].strip('"'), "/" + fields["path"].strip('"').replace("*", "")
        routes[method, path] = (
            set(fields["params"].strip('"').split()),
            expand(fields.get("takes", "")),
            expand(fields.get("offers", "")),
        )
    return routes


class Document:
    def __init__(self, document):
        self.document = document

    def follow(self, node):
        while "$ref" in node:
            target = self.document
            for part in node["$ref"][2:].split("/"):
                target = target[part]
            node = target
        return node

    def operations(self):
        """{(method, path with {} for its parameters): (path item, operation)}."""
        return {
            (method.upper(), re.sub(r"\{\w+\}", "{}", path)): (item, item[method])
            for path, item in self.document["paths"].items()
            for method in METHODS
            if method in item
        }

    def query_names(self, item, operation):
        parameters = item.get("parameters", []) + operation.get("parameters", [])
        return {p["name"] for p in map(self.follow, parameters) if p["in"] == "query"}

    def content_in(self, operation):
        return set(self.follow(operation.get("requestBody", {})).get("content", {}))

    def content_out(self, operation):
        types = set()
        for status, response in operation["responses"].items():
            if status.startswith("2"):
                types |= set(self.follow(response).get("content", {}))
        return types


@pytest.fixture
def document(client):
    return Document(expect(client.get("/openapi.json")))


def test_it_is_the_file_of_the_source(client, document):
    source = yaml.safe_load((REPO / "api" / "openapi.yaml").read_text())
    source.pop("x-anchors")
    source["info"]["version"] = expect(client.get("/"))["version"]
    assert document.document == source


def test_every_route_is_in_it_and_nothing_else(document):
    routes, operations = source_routes(), document.operations()
    assert len(routes) > 15
    # "delete" is a key as good as any other
    operations.pop(("GET", "/v1/collections/{}/rows/delete"))
    assert set(operations) == set(routes)


def test_parameters_and_media_types_are_those_of_the_routes(document):
    operations = document.operations()
    for name, (params, takes, offers) in source_routes().items():
        item, operation = operations[name]
        assert document.query_names(item, operation) == params, name
        assert document.content_in(operation) == takes, name
        if offers:
            assert document.content_out(operation) == offers, name


def test_every_operation_is_explained_and_may_fail_as_any_does(document):
    ids = set()
    for name, (_, operation) in document.operations().items():
        assert operation["summary"] and operation["tags"], name
        ids.add(operation["operationId"])
        assert {"400", "401", "403", "429", "500", "503"} <= set(operation["responses"]), name
        for status, response in operation["responses"].items():
            if status in ("414", "431"):  # the HTTP library's own page
                assert "content" not in document.follow(response), (name, status)
            elif int(status) >= 400:
                content = document.follow(response)["content"]
                assert set(content) == {"application/problem+json"}, (name, status)
    assert len(ids) == len(document.operations())


def test_bounds_are_the_limits_of_the_server(client, document):
    limits = expect(client.get("/v1/limits"))
    schemas = document.document["components"]["schemas"]
    search = schemas["SearchBody"]["properties"]
    assert search["k"]["maximum"] == limits["k_max"]
    assert search["ef"]["maximum"] == limits["ef_max"]
    vector = schemas["NewSchema"]["properties"]["vector"]["properties"]
    assert vector["dim"]["maximum"] == limits["dim_max"]
    index = schemas["IndexSettings"]["properties"]
    assert index["m"]["maximum"] == limits["m_max"]
    assert index["ef_construction"]["maximum"] == limits["ef_construction_max"]
    assert schemas["Key"]["oneOf"][0]["maxLength"] == limits["key_bytes_max"]


def test_schemathesis_finds_no_answer_outside_it(scratch):
    """Few examples and a fixed seed; `make schemathesis` runs for long."""
    status, report = contract.run(
        scratch, ["--seed", "1", "--max-examples", "10", "--continue-on-failure"]
    )
    assert re.search(r"Selected: (\d+)/\1\b", report), report
    passed = re.search(r"(\d+) generated, (\d+) passed", report)
    assert status == 0 and passed and int(passed[2]) > 500, report
