"""Holds a real daemon against its own OpenAPI document with schemathesis.

    python tests/http/contract.py SECONDS     runs that long, with a seed of its own each time
    run(scratch, arguments)                   what the tests call: few examples, a fixed seed

The daemon has a write token and serves a few small collections. The document is the one that it serves, narrowed where
generated values would nearly always miss what is there: names of collections, keys, features and
the length of vectors. Everything else is as served, so that an answer outside it is a finding.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from client import Collection, expect
from daemon import REPO, Daemon

DIM = 3
FEATURES = {
    "flag": "bool",
    "small": "int32",
    "big": "int64",
    "price": "float32",
    "exact": "float64",
    "title": "string",
    "blob": "bytes",
    "at": "timestamp",
    "floats": "float32[]",
    "ids": "int64[]",
    "tags": "string[]",
}
TOKEN = "contract-token-0123456789"
SEEDED = ["strings", "ints", "table"]

# A valid document cannot say what the collection's schema allows: 400, 412, 413 and 422 are right
# answers to data that fits it.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = [
  "2xx", "304", "307", "400", "401", "403", "404", "406", "409", "410", "412", "413", "414", "415", "422", "431"
]
[checks.negative_data_rejection]
expected-statuses = [
  "400", "401", "403", "404", "405", "406", "409", "412", "413", "414", "415", "422", "431"
]
"""


def seed(client):
    vector = {"dim": DIM, "metric": "cosine"}
    strings = Collection(client, "strings").create(key="string", vector=vector, features=FEATURES)
    strings.load([{"key": k, "vector": [1, i, 0], "title": k} for i, k in enumerate("abcd")])
    ints = Collection(client, "ints").create(key="int64", vector=vector, features=FEATURES)
    ints.load([{"key": i, "vector": [1, i, 0], "big": i} for i in range(20)])
    table = Collection(client, "table").create(key="int64", features=FEATURES)
    table.load([{"key": i, "big": i} for i in range(20)])


def or_else(preferred, schema):
    return {"anyOf": [preferred, dict(schema)]}


def narrow(document):
    parts = document["components"]
    document["security"] = [{"token": []}]  # with a token set, it is not optional
    schemas = parts["schemas"]
    parts["parameters"]["collection"]["schema"] = or_else({"enum": SEEDED}, schemas["Name"])
    schemas["Vector"] = or_else({**schemas["Vector"], "minItems": DIM, "maxItems": DIM},
                                schemas["Vector"])
    schemas["FeatureNames"]["items"] = or_else({"enum": list(FEATURES)}, schemas["Name"])
    for path, item in document["paths"].items():
        for parameter in item.get("parameters", []):
            if parameter.get("name") == "key":
                parameter["schema"] = or_else({"enum": ["a", "b", "1", "2"]}, parameter["schema"])
        if path.endswith("{collection}"):
            scratch = {"name": "collection", "in": "path", "required": True,
                       "schema": or_else({"enum": ["scratch_a", "scratch_b"]}, schemas["Name"])}
            for method in ("put", "delete"):
                item[method].setdefault("parameters", []).append(scratch)
    return document


class Janitor(threading.Thread):
    """Drops what a long run created, so that neither the disk nor the list of collections fills."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client = client
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(2):
            for c in expect(self.client.get("/v1/collections"))["collections"]:
                if c["name"] not in SEEDED:
                    self.client.delete(f"/v1/collections/{c['name']}")


def run(scratch, arguments, tidy=False):
    """Returns schemathesis' status and report; the daemon must have survived."""
    scratch = Path(scratch)
    daemon = Daemon(scratch / "contract", env={"LOADSTONE_WRITE_TOKEN": TOKEN}).start()
    try:
        client = daemon.client.with_token(TOKEN)
        seed(client)
        janitor = Janitor(client)
        if tidy:
            janitor.start()
        document = narrow(expect(client.get("/openapi.json")))
        (scratch / "openapi.json").write_text(json.dumps(document))
        (scratch / "schemathesis.toml").write_text(CONFIG)
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml",
                   "run", "openapi.json", "--url", f"http://127.0.0.1:{daemon.client.port}",
                   "--header", f"Authorization: Bearer {TOKEN}", "--checks", "all", "--warnings", "off", "--no-color",
                   "--generation-database", "none", "--suppress-health-check", "all", *arguments]
        done = subprocess.run(command, cwd=scratch, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        janitor.over.set()
        assert daemon.alive(), f"the daemon died:\n{daemon.log_tail()}\n{done.stdout}"
        return done.returncode, done.stdout
    finally:
        daemon.forget()


def main():
    seconds = sys.argv[1] if len(sys.argv) == 2 else "600"
    parent = REPO / "build" / "tmp"
    parent.mkdir(parents=True, exist_ok=True)
    scratch = tempfile.mkdtemp(prefix="contract-", dir=parent)
    status, report = run(scratch, ["--max-time", seconds, "--continue-on-failure"], tidy=True)
    print(report)
    shutil.rmtree(scratch)
    return status


if __name__ == "__main__":
    sys.exit(main())
