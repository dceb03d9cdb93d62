"""Loadstone for ann-benchmarks: put this file (as module.py) and transport.py into a folder
ann_benchmarks/algorithms/loadstone there, and name the class in a config.yml beside them:

  float:
    any:
    - base_args: ['@metric']
      constructor: Loadstone
      disabled: false
      docker_tag: ann-benchmarks-loadstone
      module: ann_benchmarks.algorithms.loadstone
      name: loadstone
      run_groups:
        m16:
          args: [{m: 16, ef_construction: 200}]
          query_args: [[10, 20, 40, 80, 160, 320]]

LOADSTONE_URL names the running daemon (http://127.0.0.1:7700), LOADSTONE_WRITE_TOKEN its token.
"""

import os

import numpy as np

try:
    from ..base.module import BaseANN
except ImportError:  # outside ann-benchmarks, as in our tests
    BaseANN = object

try:
    from .transport import Collection, Daemon
except ImportError:
    from transport import Collection, Daemon

METRICS = {"euclidean": "l2", "angular": "cosine"}
QUERIES_MAX = 1000  # of one request


class Loadstone(BaseANN):
    def __init__(self, metric, params):
        if metric not in METRICS:
            raise NotImplementedError(f"Loadstone has no metric {metric}")
        url = os.environ.get("LOADSTONE_URL", "http://127.0.0.1:7700")
        self.metric = METRICS[metric]
        self.index = {"kind": "hnsw", **params}
        self.daemon = Daemon(url, os.environ.get("LOADSTONE_WRITE_TOKEN"))
        self.collection = Collection(self.daemon, f"ann-benchmarks-{os.getpid()}")
        self.ef = None
        self.name = f"loadstone({params})"

    def fit(self, X):  # the benchmark's own name for it
        self.collection.create(X.shape[1], self.metric, self.index)
        self.collection.load(X)
        self.collection.wait_indexed()

    def set_query_arguments(self, ef):
        self.ef = ef
        self.name = f"loadstone({self.index}, ef {ef})"

    def query(self, v, n):
        keys, _ = self.collection.search(v, n, ef=self.ef)
        return keys[0][keys[0] >= 0]

    def batch_query(self, X, n):
        parts = range(0, len(X), QUERIES_MAX)
        found = [self.collection.search(X[i : i + QUERIES_MAX], n, ef=self.ef)[0] for i in parts]
        self.results = np.concatenate(found)

    def get_batch_results(self):
        return [row[row >= 0] for row in self.results]

    def get_additional(self):
        return {}

    def done(self):
        self.collection.drop()
        self.daemon.close()

    def __str__(self):
        return self.name
