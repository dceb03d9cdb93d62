"""Vectors to load and the oracle to compare with: FAISS itself."""

import gzip
import os
from pathlib import Path

import faiss
import numpy as np

from daemon import REPO

faiss.omp_set_num_threads(2)

MNIST_DIR = Path(os.environ.get("MNIST_DIR", REPO.parent / "shared" / "data" / "mnist-784"))


def clustered(n, dim, seed=1, clusters=50, spread=0.35):
    """Float32 vectors around random centres: what embeddings look like to a graph."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim))
    points = centres[rng.integers(clusters, size=n)] + spread * rng.standard_normal((n, dim))
    return points.astype(np.float32)


def faiss_exact(metric, base, queries, k):
    """Row numbers and Loadstone's distances of the k nearest, by FAISS's flat indexes."""
    base, queries = np.ascontiguousarray(base), np.ascontiguousarray(queries)
    if metric == "l2":
        index = faiss.IndexFlatL2(base.shape[1])
    else:
        index = faiss.IndexFlatIP(base.shape[1])
    if metric == "cosine":
        base, queries = normalised(base), normalised(queries)
    index.add(base)
    values, ids = index.search(queries, k)
    values = values.astype(np.float64)
    if metric == "l2":
        return ids, np.sqrt(np.maximum(values, 0))
    return ids, (1 - values if metric == "cosine" else -values)


def normalised(vectors):
    wide = vectors.astype(np.float64)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def recall(found, truth):
    """Share of the true neighbours that were found, over all queries."""
    hits = sum(len(set(f) & set(t)) for f, t in zip(found, truth, strict=True))
    return hits / sum(len(t) for t in truth)


def _read_u8bin(path):
    with gzip.open(path) as f:
        n, dim = np.frombuffer(f.read(8), dtype="<i4")
        return np.frombuffer(f.read(), dtype=np.uint8).reshape(n, dim).astype(np.float32)


def digits(nbase, nquery):
    """Vectors, labels and queries: MNIST where it lies beside the checkout, else a synthetic
    stand-in of the same shape (ten overlapping clusters of bytes, 784 wide)."""
    if (MNIST_DIR / "base.u8bin.gz").exists():
        base = _read_u8bin(MNIST_DIR / "base.u8bin.gz")[:nbase]
        labels = np.frombuffer((MNIST_DIR / "base.labels.u8").read_bytes(), np.uint8)[:nbase]
        return base, labels, _read_u8bin(MNIST_DIR / "query.u8bin.gz")[:nquery]
    rng = np.random.default_rng(784)
    # strokes have far fewer degrees of freedom than pixels: 12 directions a digit
    centres, axes = rng.uniform(90, 165, (10, 784)), rng.standard_normal((10, 12, 784)) * 20
    labels = rng.integers(10, size=nbase + nquery).astype(np.uint8)
    points = centres[labels]
    for digit in range(10):
        rows = np.flatnonzero(labels == digit)
        points[rows] += rng.standard_normal((len(rows), 12)) @ axes[digit]
    points = np.clip(np.rint(points), 0, 255).astype(np.float32)
    return points[:nbase], labels[:nbase], points[nbase:]
