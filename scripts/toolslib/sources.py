"""What load.py sends, as ranges that can be cut, sent, sent again and compared with the server's.

A source is a line of `extent` units (rows of a vector file, bytes of an NDJSON file). A range
[first, end) of units is one body and so one commit: it is on the server as a whole or not at all.

  cut(first, size)     the end of a range of about `size` bytes that begins at `first`
  size(first, end)     bytes of its body
  blocks(first, end)   the body, in blocks
  query(first)         what the address needs to know of it
  samples(first, end)  [(key, vector or None)] of a few of its rows, the first and the last among
                       them, to be compared with what the server has
  place(first, row)    where the body's row number `row` is in the file
"""

import json

from . import client, formats
from .numeric import np

SAMPLES = 8
NDJSON = (".ndjson", ".jsonl")


class Rows:
    """Rows of a vector file; their keys count from first_key."""

    content_type = client.OCTETS

    def __init__(self, vectors, first_key, rows_max=None):
        self.vectors, self.first_key = vectors, first_key
        self.extent = min(vectors.rows, rows_max or vectors.rows)
        self.row_bytes = vectors.dim * 4
        self.bytes = self.extent * self.row_bytes

    def schema(self, metric):
        metric = metric or self.vectors.metric or "cosine"
        return {"key": "int64", "vector": {"dim": self.vectors.dim, "metric": metric}}

    def cut(self, first, size):
        return min(first + max(size // self.row_bytes, 1), self.extent)

    def size(self, first, end):
        return (end - first) * self.row_bytes

    def rows(self, first, end):
        return end - first

    def blocks(self, first, end):
        step = max(formats.BLOCK_BYTES // self.row_bytes, 1)
        for at in range(first, end, step):
            yield memoryview(self.vectors.read(at, min(at + step, end))).cast("B")

    def query(self, first):
        return {"first_key": self.first_key + first}

    def samples(self, first, end):
        rows = sorted({int(x) for x in np.linspace(first, end - 1, SAMPLES)})
        return [(self.first_key + i, self.vectors.read(i, i + 1)[0]) for i in rows]

    def place(self, first, row):
        return f"row {first + row:,} of the file (counted from 0)"


class Lines:
    """Lines of an NDJSON file, one row each, keys and features in them."""

    content_type = client.NDJSON

    def __init__(self, path, data, schema=None):
        self.path, self.data, self.given = path, data, schema
        self.extent = self.bytes = len(data)

    def schema(self, metric):
        if self.given is not None:
            return self.given
        return infer_schema(self.path, self.first_rows(1000), metric or "cosine")

    def first_rows(self, n):
        """The first n rows, parsed."""
        found, at = [], 0
        while at < self.extent and len(found) < n:
            end = self._line_end(at)
            if line := self.data[at:end].strip():
                found.append(self._parse(line, at))
            at = end
        if not found:
            raise formats.WrongFile(f"{self.path}: it holds no rows")
        return found

    def _line_end(self, at):
        return self.data.find(b"\n", at) + 1 or self.extent

    def _parse(self, line, at):
        try:
            row = json.loads(line)
        except ValueError as e:
            raise formats.WrongFile(f"{self.path}: {self.place(at, 0)} is no JSON ({e})") from e
        if not isinstance(row, dict) or "key" not in row:
            raise formats.WrongFile(
                f'{self.path}: {self.place(at, 0)} is no row: write {{"key":..,"vector":[..],..}}'
            )
        return row

    def cut(self, first, size):
        return self._line_end(min(first + max(size, 1), self.extent) - 1)

    def size(self, first, end):
        return end - first

    def rows(self, first, end):
        return None

    def blocks(self, first, end):
        for at in range(first, end, formats.BLOCK_BYTES):
            yield self.data[at : min(at + formats.BLOCK_BYTES, end)]

    def query(self, first):
        return {}

    def samples(self, first, end):
        found = {}
        for at in np.linspace(first, end - 1, SAMPLES):
            start = max(self.data.rfind(b"\n", first, int(at)) + 1, first)
            if line := self.data[start : self._line_end(start)].strip():
                row = self._parse(line, start)
                vector = row.get("vector")
                found[row["key"]] = None if vector is None else np.array(vector, "<f4")
        return list(found.items())

    def place(self, first, row):
        """Counts lines up to `first`, then rows: an empty line is none."""
        line = 1
        for at in range(0, first, formats.BLOCK_BYTES):
            line += self.data[at : min(at + formats.BLOCK_BYTES, first)].count(b"\n")
        while first < self.extent:
            end = self._line_end(first)
            if self.data[first:end].strip():
                if row == 0:
                    break
                row -= 1
            line, first = line + 1, end
        return f"line {line:,}"


# ---- the schema of NDJSON rows ----


def _type_of(value):
    if isinstance(value, list):
        inner = {_type_of(v) for v in value}
        if inner <= {"int64"}:
            return "int64[]" if inner else None
        if inner <= {"int64", "float64"}:
            return "float32[]"
        return "string[]" if inner == {"string"} else "?"
    names = {bool: "bool", int: "int64", float: "float64", str: "string", type(None): None}
    return names.get(type(value), "?")


def _join(a, b):
    """The type that holds values of both."""
    pairs = {("float64", "int64"): "float64", ("float32[]", "int64[]"): "float32[]"}
    if a is None or b is None or a == b:
        return a or b
    return pairs.get(tuple(sorted((a, b))), "?")


def infer_schema(path, rows, metric):
    """A schema that holds these rows, as JSON's types tell it."""
    types, dim = {}, None
    for row in rows:
        for name, value in row.items():
            if name == "vector":
                dim = dim or (len(value) if isinstance(value, list) else None)
            elif name != "key":
                types[name] = _join(types.get(name), _type_of(value))
    unclear = [name for name, t in types.items() if t in (None, "?")]
    if unclear:
        raise formats.WrongFile(
            f"{path}: the type of {', '.join(unclear)} is not clear from the first {len(rows):,} "
            "rows: write the collection's schema to a file and name it with --schema"
        )
    key = "int64" if all(type(row["key"]) is int for row in rows) else "string"
    schema = {"key": key, "features": types}
    if dim:
        schema["vector"] = {"dim": dim, "metric": metric}
    return schema


def open_source(path, options, tell=None):
    """The source that a file's name and the options ask for."""
    if formats.suffix(path) in NDJSON:
        return Lines(path, formats.map_file(path, tell), options.schema)
    vectors = formats.open_vectors(path, options.dataset, tell, also=NDJSON)
    return Rows(vectors, options.first_key, options.rows)


# ---- what the server has ----


def same_rows(collection, source, ranges):
    """For each range: whether the server holds all of its sampled rows as the file has them."""
    sampled = [source.samples(*r) for r in ranges]
    flat = [sample for samples in sampled for sample in samples]
    dim = max((len(vector) for _, vector in flat if vector is not None), default=1)
    fetched = collection.fetch_vectors([key for key, _ in flat], dim)
    same = [
        found and (mine is None or _equal(mine, its))
        for (_, mine), (found, its) in zip(flat, fetched)
    ]
    checks = iter(same)
    return [all([next(checks) for _ in samples]) for samples in sampled]


def _equal(mine, its):
    return its is not None and mine.tobytes() == np.array(its, "<f4").tobytes()


def still_there(collection, source, done):
    """Those of the noted ranges that the server holds."""
    inside = [r for r in done if r[1] <= source.extent]
    return [r for r, same in zip(inside, same_rows(collection, source, inside)) if same]
