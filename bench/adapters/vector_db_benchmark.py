"""Loadstone for vector-db-benchmark: put this file (as __init__.py) and transport.py into a folder
engine/clients/loadstone there, add "loadstone" to the three tables of its ClientFactory, and name an
experiment:

  {"name": "loadstone-m16", "engine": "loadstone", "connection_params": {"port": 7700},
   "collection_params": {"index": {"kind": "hnsw", "m": 16, "ef_construction": 200}},
   "search_params": [{"parallel": 8, "search_params": {"ef": 64}}],
   "upload_params": {"batch_size": 4096}}

Metadata become features: keyword and text strings, int int64, float float64; geo is refused. A
condition becomes a filter. LOADSTONE_WRITE_TOKEN is the token.
"""

import json
import os

import numpy as np

try:
    from engine.base_client.configure import BaseConfigurator
    from engine.base_client.search import BaseSearcher
    from engine.base_client.upload import BaseUploader
except ImportError:  # outside the benchmark, as in our tests
    BaseConfigurator = BaseSearcher = BaseUploader = object

try:
    from .transport import Collection, Daemon
except ImportError:
    from transport import Collection, Daemon

NAME = "benchmark"
METRICS = {"l2": "l2", "cosine": "cosine", "dot": "ip"}
TYPES = {"keyword": "string", "text": "string", "int": "int64", "float": "float64"}
BOUNDS = {"lt": "<", "gt": ">", "lte": "<=", "gte": ">="}


def connect(host, connection_params):
    url = f"http://{host}:{connection_params.get('port', 7700)}"
    return Collection(Daemon(url, os.environ.get("LOADSTONE_WRITE_TOKEN")), NAME)


def features_of(schema):
    unknown = sorted(kind for kind in schema.values() if kind not in TYPES)
    if unknown:
        raise NotImplementedError(f"Loadstone has no features of type {unknown[0]}")
    return {name: TYPES[kind] for name, kind in schema.items()}


def literal(value):
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return json.dumps(value)


def condition(field, kind, limits):
    if kind == "match":
        return f"{field} = {literal(limits['value'])}"
    if kind == "range":
        bounds = [(BOUNDS[name], value) for name, value in limits.items() if value is not None]
        return " and ".join(f"{field} {sign} {literal(value)}" for sign, value in bounds)
    raise NotImplementedError(f"Loadstone has no filter for {kind}")


def filter_of(conditions):
    """{"and": [{field: {"match": {"value": v}}}], "or": [...]} as a filter; None without any."""
    groups = []
    for word in ("and", "or"):
        parts = [
            f"({condition(field, kind, limits)})"
            for entry in (conditions or {}).get(word) or []
            for field, tests in entry.items()
            for kind, limits in tests.items()
        ]
        if parts:
            groups.append("(" + f" {word} ".join(parts) + ")")
    return " and ".join(groups) or None


class LoadstoneConfigurator(BaseConfigurator):
    SPARSE_VECTOR_SUPPORT = False

    def __init__(self, host, collection_params, connection_params):
        self.host, self.collection_params = host, collection_params
        self.connection_params = connection_params
        self.collection = connect(host, connection_params)

    def clean(self):
        self.collection.drop()

    def recreate(self, dataset, collection_params):
        config = dataset.config
        metric = METRICS[getattr(config.distance, "value", config.distance)]
        index = collection_params.get("index", {"kind": "hnsw"})
        features = features_of(getattr(config, "schema", None) or {})
        self.collection.create(config.vector_size, metric, index, features)

    def delete_client(self):
        self.collection.daemon.close()


class LoadstoneUploader(BaseUploader):
    collection = None

    @classmethod
    def init_client(cls, host, distance, connection_params, upload_params):
        cls.collection = connect(host, connection_params)

    @classmethod
    def upload_batch(cls, batch):
        ids = [int(record.id) for record in batch]
        plain = all(not record.metadata for record in batch)
        if plain and ids == list(range(ids[0], ids[0] + len(ids))):
            vectors = np.asarray([record.vector for record in batch], "<f4")
            cls.collection.load(vectors, first_key=ids[0])
            return
        cls.collection.load_rows(
            {"key": i, "vector": np.asarray(r.vector, float).tolist()} | (r.metadata or {})
            for i, r in zip(ids, batch, strict=True)
        )

    @classmethod
    def post_upload(cls, distance):
        cls.collection.wait_indexed()
        return {}

    @classmethod
    def get_memory_usage(cls):
        return {}

    @classmethod
    def delete_client(cls):
        cls.collection.daemon.close()


class LoadstoneSearcher(BaseSearcher):
    collection, options = None, {}

    @classmethod
    def init_client(cls, host, distance, connection_params, search_params):
        cls.collection = connect(host, connection_params)
        cls.options = search_params.get("search_params", {})

    @classmethod
    def search_one(cls, query, top):
        options = dict(cls.options)
        where = filter_of(query.meta_conditions)
        if where:
            options["filter"] = where
        keys, distances = cls.collection.search(query.vector, top or 10, **options)
        hits = zip(keys[0].tolist(), distances[0].tolist(), strict=True)
        return [(key, distance) for key, distance in hits if key >= 0]

    @classmethod
    def delete_client(cls):
        cls.collection.daemon.close()
