"""The files the demo works from, made once for each state of apt's lists.

  model.npz        turns words into vectors
  packages.ndjson  the rows as they are loaded: key, vector, features
  prepared.json    written last: the digest of what the two were made from, and their counts

A run that is broken off leaves no prepared.json, and the next one starts over.
"""

import json
import os

import numpy as np

from toolslib import screen

from . import corpus, lsa

LOOKUP = 10**lsa.DECIMALS


def _digest(lists):
    return f"{lists.digest}-{lsa.MODEL_REVISION}-{lsa.DIM}"


def read_json(path):
    try:
        with open(path) as f:
            return json.load(f)
    except (OSError, ValueError):
        return None


def write_json(path, value):
    temporary = f"{path}.tmp"
    with open(temporary, "w") as f:
        json.dump(value, f)
    os.replace(temporary, path)


def _decimal_texts():
    """Texts of -1 ... 1 in steps of the rounding: a table is far faster than formatting."""
    texts = [f"{i / LOOKUP:.{lsa.DECIMALS}f}" for i in range(LOOKUP + 1)]
    return texts + [f"-{texts[LOOKUP - i]}" for i in range(LOOKUP)]


def _vector_text(row, texts):
    """JSON of one vector; null for a text in which no term is known."""
    if not row.any():
        return "null"
    return "[" + ",".join([texts[i] for i in row.tolist()]) + "]"


def _write_rows(path, packages, embeddings):
    """Negative table indices count from the end, where the negative texts stand."""
    texts = _decimal_texts()
    steps = np.rint(embeddings * LOOKUP).astype(np.int32)
    with screen.Progress("writing the rows", len(packages), "rows") as progress:
        with open(path, "w", encoding="utf-8", buffering=1 << 20) as f:
            for package, row in zip(packages, steps):
                key = json.dumps(package.name)
                rest = json.dumps(package.features, ensure_ascii=False)
                f.write(f'{{"key":{key},"vector":{_vector_text(row, texts)},{rest[1:]}\n')
                progress.advance(1)


def _embed(packages):
    with screen.Progress("reading the descriptions", len(packages), "texts") as progress:
        counts = lsa.count_terms(packages, progress)
    with screen.Progress("truncated SVD", lsa.fit_steps()) as progress:
        return lsa.fit(packages, counts, progress)


class Prepared:
    def __init__(self, directory):
        self.model_path = directory / "model.npz"
        self.rows_path = directory / "packages.ndjson"
        self.stamp_path = directory / "prepared.json"
        self.stamp = read_json(self.stamp_path)

    def model(self):
        return lsa.Model.load(self.model_path)

    def keys(self):
        """The keys of the rows that have a vector, in the order of the file."""
        with open(self.rows_path, encoding="utf-8") as f:
            for line in f:
                key, _, rest = line[len('{"key":') :].partition(',"vector":')
                if not rest.startswith("null"):
                    yield json.loads(key)


def prepare(directory):
    """Makes what is missing; returns it."""
    lists = corpus.Lists(corpus.find_lists(directory / "apt", screen.note))
    prepared = Prepared(directory)
    if prepared.stamp and prepared.stamp.get("digest") == _digest(lists):
        screen.note("as prepared before: the package lists are the same")
        return prepared
    prepared.stamp_path.unlink(missing_ok=True)
    packages = corpus.parse(lists)
    screen.note(f"{len(packages):,} packages in apt's lists")
    model, embeddings = _embed(packages)
    _write_rows(prepared.rows_path, packages, embeddings)
    model.save(prepared.model_path)
    prepared.stamp = {
        "digest": _digest(lists),
        "rows": len(packages),
        "vectors": int(embeddings.any(axis=1).sum()),
        "bytes": prepared.rows_path.stat().st_size,
    }
    write_json(prepared.stamp_path, prepared.stamp)
    return prepared
