"""Queries for the search benchmarks: stored vectors, each moved a little, as request bodies."""

import array
import json
import random

from load import write_bodies
from service import ROWS, WORK

QUERIES = 2000
K, EF = 10, 64


def make_queries(c):
    random.seed(7)
    vectors = c.fetch(random.sample(range(ROWS), QUERIES), features=[], with_vectors=True)
    return [array.array("f", (x + random.gauss(0, 0.1) for x in v)) for v in vectors["vectors"]]


def octet_bodies(queries):
    path = WORK / "queries.f32"
    write_bodies(path, (q.tobytes() for q in queries))
    return path


def json_bodies(queries):
    """As a client writes them: the shortest decimals of float32."""
    path = WORK / "queries.json"
    bodies = ({"vector": [float(f"{x:.8g}") for x in q], "k": K, "ef": EF} for q in queries)
    write_bodies(path, (json.dumps(b, separators=(",", ":")).encode() for b in bodies))
    return path


def octet_search(c, bodies):
    """What load.run needs to send them."""
    octets = "application/octet-stream"
    path = f"{c.path}/search?k={K}&ef={EF}"
    return {"path": path, "content_type": octets, "accept": octets, "bodies": bodies}


def json_search(c, bodies):
    return {"path": f"{c.path}/search", "bodies": bodies}
