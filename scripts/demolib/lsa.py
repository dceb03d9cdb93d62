"""Embeddings by latent semantic analysis.

  texts -> terms -> counts (rows x terms, sparse) -> BM25 weights -> truncated SVD -> vectors

  A = U S V^T, cut off after `dim` singular values; a text with weights a becomes a V', where V' are
  the term vectors V S drawn toward equal length (LENGTH_POWER), so that rare words count beside
  frequent ones. A query is folded in by the same product.

Deerwester et al., Indexing by Latent Semantic Analysis (1990); Robertson and Zaragoza, The
Probabilistic Relevance Framework: BM25 and Beyond (2009); Halko, Martinsson and Tropp, Finding
Structure with Randomness (2011), for the SVD.

The SVD is learnt from one package per source package, since hundreds of near-copies (one per
language, one per kernel) would claim dimensions for themselves.
"""

from array import array
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
import json
import os

import numpy as np

from .text import Tokenizer

MODEL_REVISION = 1  # raise it when the same texts get other vectors: cached ones are then remade
DIM = 256
OVERSAMPLING = 32
POWER_ITERATIONS = 2
BM25_K1, BM25_B = 3.0, 0.75
WORD_TEXTS_MIN, PAIR_TEXTS_MIN = 4, 6  # rarer terms are left out
TEXTS_SHARE_MAX = 0.2  # and so are terms of more than this share of the texts
COMPOUND_PAIRS_MIN = 15
LENGTH_POWER = 0.75
DECIMALS = 5  # vectors are rounded, so that the text of a row gives the same float32 again
CHUNK_ROWS = 1024


class Sparse:
    """A matrix in compressed rows: columns[starts[i]:starts[i+1]] and values of row i."""

    def __init__(self, starts, columns, values, width):
        self.starts, self.columns, self.values, self.width = starts, columns, values, width
        self.height = len(starts) - 1

    @classmethod
    def from_entries(cls, rows, columns, values, shape):
        """Entries in any order; those of the same place add up."""
        place = rows.astype(np.int64) * shape[1] + columns
        order = np.argsort(place, kind="stable")
        place = place[order]
        first = np.flatnonzero(np.concatenate(([True], place[1:] != place[:-1])))
        summed = np.add.reduceat(values[order], first).astype(np.float32)
        rows, columns = place[first] // shape[1], place[first] % shape[1]
        starts = np.searchsorted(rows, np.arange(shape[0] + 1))
        return cls(starts, columns.astype(np.int32), summed, shape[1])

    def row_of_entries(self):
        return np.repeat(np.arange(self.height, dtype=np.int32), np.diff(self.starts))

    def transposed(self):
        order = np.argsort(self.columns, kind="stable")
        counts = np.bincount(self.columns, minlength=self.width)
        starts = np.concatenate(([0], np.cumsum(counts)))
        return Sparse(starts, self.row_of_entries()[order], self.values[order], self.height)

    def rows(self, wanted):
        """The matrix of the rows whose flag is set."""
        counts = np.diff(self.starts)
        kept = np.repeat(wanted, counts)
        starts = np.concatenate(([0], np.cumsum(counts[wanted])))
        return Sparse(starts, self.columns[kept], self.values[kept], self.width)

    def times(self, dense, pool):
        """self x dense, in chunks of rows: gather, scale, sum."""
        out = np.zeros((self.height, dense.shape[1]), np.float32)

        def chunk(first):
            starts = self.starts[first : first + CHUNK_ROWS + 1]
            here = slice(starts[0], starts[-1])
            filled = np.flatnonzero(np.diff(starts))
            if len(filled):
                terms = dense[self.columns[here]]
                terms *= self.values[here, None]
                out[first + filled] = np.add.reduceat(terms, starts[filled] - starts[0], axis=0)

        list(pool.map(chunk, range(0, self.height, CHUNK_ROWS)))
        return out


def _orthonormal(y):
    """A basis of y's columns through the eigenvectors of y^T y; far cheaper than QR when tall."""
    gram = (y.T @ y).astype(np.float64)
    squares, vectors = np.linalg.eigh(gram)
    squares = np.maximum(squares, squares[-1] * 1e-10)
    return y @ (vectors / np.sqrt(squares)).astype(np.float32)


def _term_space(a, dim, pool, progress):
    """Singular values and right singular vectors (width x dim) of a, by subspace iteration."""
    at = a.transposed()
    basis = np.random.default_rng(1).standard_normal((a.width, dim + OVERSAMPLING))
    basis = basis.astype(np.float32)
    for i in range(POWER_ITERATIONS + 1):
        left = _orthonormal(a.times(basis, pool))
        progress.advance(1)
        right = at.times(left, pool)
        progress.advance(1)
        basis = _orthonormal(right) if i < POWER_ITERATIONS else right
    squares, vectors = np.linalg.eigh((basis.T @ basis).astype(np.float64))
    singular = np.sqrt(squares[::-1][:dim]).astype(np.float32)
    return singular, basis @ (vectors[:, ::-1][:, :dim].astype(np.float32) / singular)


class _Counts:
    """Terms of all texts as they are read: term ids, weights and the text each belongs to."""

    def __init__(self):
        self.ids = {}
        self.rows, self.columns, self.weights = array("i"), array("i"), array("f")
        self.nrows = 0

    def add(self, weighted_terms):
        merged = Counter()
        for term, weight in weighted_terms:
            merged[self.ids.setdefault(term, len(self.ids))] += weight
        self.rows.extend([self.nrows] * len(merged))
        self.columns.extend(merged.keys())
        self.weights.extend(merged.values())
        self.nrows += 1

    def matrix(self, compounds):
        """The sparse counts; a compound word also counts as its parts and their pair."""
        rows, columns = np.frombuffer(self.rows, "i4"), np.frombuffer(self.columns, "i4")
        weights = np.frombuffer(self.weights, "f4")
        parts = np.full((len(self.ids), 3), -1, np.int32)
        for word, (a, b) in compounds.items():
            parts[self.ids[word]] = self.ids[a], self.ids[b], self.ids[f"{a} {b}"]
        at = np.flatnonzero(parts[columns, 0] >= 0)
        more = parts[columns[at]].T.ravel()
        return Sparse.from_entries(
            np.concatenate((rows, np.tile(rows[at], 3))),
            np.concatenate((columns, more)),
            np.concatenate((weights, np.tile(weights[at], 3))),
            (self.nrows, len(self.ids)),
        )

    def compounds(self):
        """Words written together that are common apart: webserver -> (web, server)."""
        seen = np.bincount(np.frombuffer(self.columns, "i4"), minlength=len(self.ids))
        found = {}
        for term, i in self.ids.items():
            a, _, b = term.partition(" ")
            if b and min(len(a), len(b)) > 2 and seen[i] >= COMPOUND_PAIRS_MIN:
                if a + b in self.ids:
                    found[a + b] = (a, b)
        return found


def _one_per_source(packages):
    """Flags of the packages to learn from: of each source the namesake, else the first."""
    chosen = {}
    for i, p in enumerate(packages):
        source = p.features["source"]
        if source not in chosen or p.name == source:
            chosen[source] = i
    flags = np.zeros(len(packages), bool)
    flags[list(chosen.values())] = True
    return flags


def _keep_terms(counts, ids, learnt):
    """Drops rare and ubiquitous terms; returns the narrower matrix, its terms and their idf."""
    texts = int(learnt.sum())
    frequency = np.bincount(counts.rows(learnt).columns, minlength=counts.width)
    least = np.array([PAIR_TEXTS_MIN if " " in t else WORD_TEXTS_MIN for t in ids])
    kept = (frequency >= least) & (frequency <= texts * TEXTS_SHARE_MAX)
    renumbered = np.cumsum(kept) - 1
    entries = kept[counts.columns]
    starts = np.concatenate(([0], np.cumsum(entries)))[counts.starts]
    columns = renumbered[counts.columns[entries]].astype(np.int32)
    narrow = Sparse(starts, columns, counts.values[entries], int(kept.sum()))
    f = frequency[kept]
    idf = np.log1p((texts - f + 0.5) / (f + 0.5)).astype(np.float32)
    return narrow, [t for t, keep in zip(ids, kept) if keep], idf


def _weigh(counts, idf):
    """BM25 weights, each row brought to length 1."""
    row = counts.row_of_entries()
    lengths = np.bincount(row, counts.values, counts.height)
    norm = 1 - BM25_B + BM25_B * lengths / max(lengths.mean(), 1e-9)
    tf = counts.values * (BM25_K1 + 1) / (counts.values + BM25_K1 * norm[row])
    weights = tf * idf[counts.columns]
    length = np.sqrt(np.bincount(row, weights * weights, counts.height))
    weights = (weights / np.maximum(length, 1e-9)[row]).astype(np.float32)
    return Sparse(counts.starts, counts.columns, weights, counts.width)


def _unit_rows(x):
    """Rows of length 1, rounded; a row of zeros stays."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.round(x / np.maximum(length, 1e-12), DECIMALS).astype(np.float32)


class Model:
    """What turns words into a vector: terms, compounds, idf and the term vectors."""

    def __init__(self, terms, compounds, idf, term_vectors):
        self.terms, self.compounds, self.idf = terms, compounds, idf
        self.term_vectors = term_vectors
        self._ids = {t: i for i, t in enumerate(terms)}
        self._tokenizer = Tokenizer()

    def embed(self, words):
        """The vector of a query (unit length), or None when no word of it is known."""
        weights = np.zeros(len(self.terms), np.float32)
        for term in self._query_terms(words):
            if term in self._ids:
                weights[self._ids[term]] += self.idf[self._ids[term]]
        used = np.flatnonzero(weights)
        vector = _unit_rows((weights[used] @ self.term_vectors[used])[None, :])[0]
        return vector if vector.any() else None

    def _query_terms(self, words):
        for term in self._tokenizer.terms(words):
            yield term
            if term in self.compounds:
                a, b = self.compounds[term]
                yield from (a, b, f"{a} {b}")

    def save(self, path):
        """Writes path.npz beside a temporary name first, so that it is whole or not there."""
        words = json.dumps({"terms": self.terms, "compounds": self.compounds}).encode()
        temporary = f"{path}.tmp.npz"
        np.savez(
            temporary,
            words=np.frombuffer(words, np.uint8),
            idf=self.idf,
            term_vectors=self.term_vectors,
        )
        os.replace(temporary, path)

    @classmethod
    def load(cls, path):
        with np.load(path) as f:
            words = json.loads(f["words"].tobytes())
            return cls(words["terms"], words["compounds"], f["idf"], f["term_vectors"])


def count_terms(packages, progress):
    """Reads all texts; `progress` advances by texts."""
    tokenizer, counts = Tokenizer(), _Counts()
    for p in packages:
        counts.add(tokenizer.package_terms(p))
        progress.advance(1)
    return counts


def fit_steps():
    """How far `progress` advances in fit()."""
    return 2 * (POWER_ITERATIONS + 1) + 1


def fit(packages, counts, progress):
    """Learns a model and returns it with the packages' vectors (n x DIM float32, unit length)."""
    compounds = counts.compounds()
    learnt = _one_per_source(packages)
    matrix, terms, idf = _keep_terms(counts.matrix(compounds), counts.ids, learnt)
    weights = _weigh(matrix, idf)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        singular, vectors = _term_space(weights.rows(learnt), DIM, pool, progress)
        scaled = vectors * singular
        length = np.linalg.norm(scaled, axis=1, keepdims=True)
        term_vectors = scaled * np.maximum(length, 1e-6) ** -LENGTH_POWER
        embeddings = _unit_rows(weights.times(term_vectors, pool))
        progress.advance(1)
    return Model(terms, compounds, idf, term_vectors.astype(np.float32)), embeddings
