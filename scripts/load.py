#!/usr/bin/env python3
"""Loads a file of vectors or of NDJSON rows into a Loadstone server, and goes on where it stopped.

  load.py base.fvecs                          into the collection "base", keys 0, 1, 2 ...
  load.py emb.npy --collection docs --metric cosine --wait
  load.py sift-128-euclidean.hdf5 --index hnsw --m 16
  load.py rows.ndjson.gz --url http://10.0.0.5:7700 --token-file token

Formats: npy, fvecs, bvecs, fbin, u8bin, i8bin, ann-benchmarks' HDF5 (with h5py), and these but HDF5
with .gz: their rows get the int64 keys --first-key, --first-key + 1 ...; numbers that are not
float32 are converted to it. NDJSON (.ndjson, .jsonl, .gz): one row a line, {"key":..,"vector":..}.

A missing collection is created. The file is sent in parts over several connections at once, each
part one commit, so memory stays small whatever the size. Broken off in any way (Ctrl-C, a crash
here or there, a restart of the server), the same command goes on: what the server acknowledged is
noted in a small file and compared with what the server holds, and only the rest is sent. Nothing is
doubled, since keys are fixed by the file.

Ends with status 0, or 1 and a sentence, or 130 after Ctrl-C.
"""

import argparse
import functools
import json
import os
import queue
import re
import sys
import threading
from pathlib import Path

from toolslib import client, formats, indexing, journal, screen, sources
from toolslib.client import Client, Collection, Patience, Refused, Unreachable

PART_BYTES = 512 << 20
CONNECTIONS = 4
CONFLICTS = (409, 422)
INDEX_OPTIONS = {"hnsw": ("m", "ef_construction"), "ivf": ("nlist",)}


class Failed(Exception):
    """A sentence for the user."""


class Stopped(Exception):
    """Another connection failed: no need to go on."""


# ---- options ----


def byte_size(text):
    found = re.fullmatch(r"(\d+)([KMG]?)", text.strip().upper())
    if not found or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no size: write 64M, 1G or a number of bytes")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]]


def whole(least):
    def parse(text):
        if not re.fullmatch(r"[+-]?\d+", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is no whole number from {least} on")
        return int(text)

    return parse


def schema_file(path):
    try:
        with open(path) as f:
            schema = json.load(f)
    except OSError as e:
        raise argparse.ArgumentTypeError(client.system_sentence(e)) from e
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{path}: {e}") from e
    if not isinstance(schema, dict):
        raise argparse.ArgumentTypeError(f"{path} is no JSON object")
    return schema


def default_name(path):
    """The file's name without suffixes, as far as a collection may be called so."""
    stem = Path(path).name.split(".")[0]
    name = re.sub(r"[^A-Za-z0-9_-]", "_", stem)[:128]
    return name if re.match(r"[A-Za-z_]", name) else f"c_{name}"[:128]


def parse_arguments(arguments):
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="what to load; its suffix names the format")
    add("--collection", metavar="NAME", help="where to (the file's name without suffixes)")
    add(
        "--mode",
        choices=("upsert", "append"),
        default="upsert",
        help="append: keys that exist already are an error (%(default)s)",
    )
    add(
        "--first-key",
        type=whole(-(2**63)),
        default=0,
        metavar="N",
        help="key of the first row of a vector file (%(default)s)",
    )
    add("--rows", type=whole(1), metavar="N", help="only the first N rows of a vector file")
    add("--dataset", default="train", help="which one of an HDF5 file (%(default)s)")
    add("--wait", action="store_true", help="wait until the index is built")
    new = parser.add_argument_group("a collection that does not exist yet")
    new.add_argument(
        "--metric",
        choices=("l2", "cosine", "ip"),
        help="how to measure distance (what an HDF5 file says, else cosine)",
    )
    new.add_argument("--index", choices=("auto", "flat", "hnsw", "ivf"), help="kind of index")
    new.add_argument("--m", type=whole(2), help="hnsw: neighbours of a node")
    new.add_argument("--ef-construction", type=whole(1), metavar="N", help="hnsw: build effort")
    new.add_argument("--nlist", type=whole(1), metavar="N", help="ivf: number of lists")
    new.add_argument(
        "--schema",
        type=schema_file,
        metavar="FILE",
        help="NDJSON: the collection as JSON, as PUT /v1/collections/NAME takes it "
        "(else inferred from the first 1,000 rows)",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--connections",
        type=whole(1),
        default=CONNECTIONS,
        metavar="N",
        help="parts in flight at once (%(default)s); with 1 they commit in order",
    )
    how.add_argument(
        "--part-bytes",
        type=byte_size,
        default=PART_BYTES,
        metavar="SIZE",
        help="of one part and commit, 64M for instance; each has an index of its "
        "own, so larger is better (512M)",
    )
    how.add_argument(
        "--patience",
        type=float,
        default=60,
        metavar="S",
        help="how long to try again while the server is busy or away (60)",
    )
    how.add_argument(
        "--again",
        action="store_true",
        help="send everything: what was loaded before is known by a few rows of each part, so that "
        "others which were deleted or changed since are not noticed otherwise",
    )
    how.add_argument(
        "--state",
        metavar="FILE",
        help="where to note what is loaded (a file in ~/.local/state/loadstone)",
    )
    client.add_arguments(parser)
    options = parser.parse_args(arguments)
    lines = formats.suffix(options.file) in sources.NDJSON
    if lines and (options.rows or options.first_key):
        parser.error("--rows and --first-key are for vector files: NDJSON rows carry their keys")
    if options.schema is not None and not lines:
        parser.error("--schema is for NDJSON: a vector file says all but --metric and --index")
    for kind, names in INDEX_OPTIONS.items():
        given = [name for name in names if getattr(options, name) is not None]
        if given and options.index not in (None, "auto", kind):
            flag = given[0].replace("_", "-")
            parser.error(f"--{flag} is for --index {kind}, not for --index {options.index}")
    options.collection = options.collection or default_name(options.file)
    return options


# ---- the collection ----


def wanted_schema(source, options):
    schema = source.schema(options.metric)
    given = {
        "kind": options.index,
        "m": options.m,
        "ef_construction": options.ef_construction,
        "nlist": options.nlist,
    }
    index = {name: value for name, value in given.items() if value is not None}
    return {**schema, "index": {**schema.get("index", {}), **index}} if index else schema


def check_fits(there, source, options):
    """What would make the server refuse the first part is said before anything is sent."""
    schema = there["schema"]
    vector = schema.get("vector")
    if isinstance(source, sources.Rows):
        if schema["key"] != "int64":
            raise Failed(
                f"{options.collection} has string keys, a vector file's rows have int64 keys: "
                "name another --collection"
            )
        if not vector or vector["dim"] != source.vectors.dim:
            has = f"vectors of {vector['dim']}" if vector else "no vectors"
            raise Failed(
                f"{options.collection} has {has}, {options.file} has vectors of "
                f"{source.vectors.dim}: name another --collection"
            )
    if options.metric and vector and vector["metric"] != options.metric:
        raise Failed(
            f"{options.collection} exists with metric {vector['metric']}, --metric says "
            f"{options.metric}: name another --collection or leave --metric out"
        )


def prepare_collection(collection, source, options):
    there = collection.describe()
    if there is None:
        collection.create(wanted_schema(source, options))
        there = collection.describe()
        made, vector = there["schema"], there["schema"].get("vector")
        what = f"vectors of {vector['dim']} ({vector['metric']})" if vector else "no vectors"
        screen.note(
            f"created {options.collection}: {made['key']} keys, {what}, "
            f"{len(made['features'])} features, index {made['index']['kind']}"
        )
    check_fits(there, source, options)


# ---- sending ----


class Loader:
    """Threads that take parts from a queue until it is empty or one of them fails."""

    def __init__(self, source, parts, options, token, state, progress):
        self.source, self.options, self.token = source, options, token
        self.state, self.progress = state, progress
        self.parts = queue.SimpleQueue()
        for part in parts:
            self.parts.put(part)
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.error, self.commits, self.rows = None, 0, 0

    def run(self):
        count = min(self.options.connections, self.parts.qsize())
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
        finally:
            self.stop.set()
        if self.error:
            raise self.error

    def _work(self):
        collection = Collection(Client(self.options.url, self.token), self.options.collection)
        patience = Patience(self.options.patience, self.progress.note, self._pause, met=True)
        try:
            while not self.stop.is_set():
                part = self.parts.get_nowait()
                answer = patience.call(functools.partial(self._send, collection, *part))
                self._acknowledged(part, answer)
        except (queue.Empty, Stopped):
            pass
        except BaseException as e:
            with self.lock:
                self.error = self.error or e
            self.stop.set()

    def _pause(self, seconds):
        if self.stop.wait(seconds):
            raise Stopped

    def _acknowledged(self, part, answer):
        with self.lock:
            self.state.add(*part)
            self.commits += 1
            self.rows += answer["rows"]

    def _blocks(self, first, end, sent):
        for block in self.source.blocks(first, end):
            if self.stop.is_set():
                raise Stopped
            yield block
            sent[0] += len(block)
            self.progress.advance(len(block))

    def _send(self, collection, first, end):
        """One part, one commit; what the bar counted of a failed attempt is taken back."""
        sent = [0]
        size = self.source.size(first, end)
        query = {"mode": self.options.mode, **self.source.query(first)}
        try:
            return collection.load_blocks(
                self._blocks(first, end, sent), size, self.source.content_type, **query
            )
        except Refused as e:
            appended = self.options.mode == "append" and e.status in CONFLICTS
            if appended and all(sources.same_rows(collection, self.source, [(first, end)])):
                self.progress.advance(size - sent[0])
                return {"rows": self.source.rows(first, end) or 0}  # an answer that got lost
            self.progress.advance(-sent[0])
            raise self._explained(e, first, end) from e
        except (Unreachable, Stopped):
            self.progress.advance(-sent[0])
            raise

    def _explained(self, e, first, end):
        """A refusal that names a row names it as it is numbered in the file."""
        if e.row is None or e.status in (429, 503):
            return e
        return Failed(f"{self.options.file}: {self.source.place(first, e.row)}: {e.detail}")


def cut_parts(source, gaps, part_bytes):
    parts = []
    for first, end in gaps:
        while first < end:
            cut = min(source.cut(first, part_bytes), end)
            parts.append((first, cut))
            first = cut
    return parts


def body_bytes_max(server):
    return server.get("/v1/limits").get("body_bytes_max", PART_BYTES)


def send_missing(source, state, options, token, part_bytes):
    gaps = journal.missing(state.done, source.extent)
    parts = cut_parts(source, gaps, part_bytes)
    if not parts:
        screen.note("everything is loaded already; --again would send it anew")
        return
    size = sum(source.size(*part) for part in parts)
    counted = [source.rows(*part) for part in parts]
    items = None if None in counted else (sum(counted), "rows")
    if state.done:
        before = source.bytes - size
        screen.note(f"going on: {before / 1e6:,.0f} of {source.bytes / 1e6:,.0f} MB are loaded")
    with screen.Progress(f"loading {Path(options.file).name}", size, "MB", 1e6, items) as progress:
        loader = Loader(source, parts, options, token, state, progress)
        loader.run()
        seconds = progress.seconds()
    screen.note(
        f"{loader.rows:,} rows in {loader.commits} commit{'s' if loader.commits > 1 else ''}, "
        f"{loader.rows / seconds:,.0f} rows/s"
    )


# ---- all of it ----


def open_file(options):
    if Path(options.file).suffix.lower() != ".gz":
        return sources.open_source(options.file, options)
    packed = os.path.getsize(options.file)
    with screen.Progress(f"unpacking {Path(options.file).name}", packed, "MB", 1e6) as progress:
        return sources.open_source(options.file, options, progress.reach)


def identity_of(options):
    return {
        "file": os.path.realpath(options.file),
        "url": options.url,
        "collection": options.collection,
        "dataset": options.dataset,
        "first_key": options.first_key,
        **journal.fingerprint(options.file),
    }


def load(options):
    token = client.token_of(options.token, options.token_file)
    server = Client(options.url, token)
    patience = Patience(options.patience, screen.note)
    identity = identity_of(options)
    source = open_file(options)
    collection = Collection(server, options.collection)
    limit = patience.call(lambda: body_bytes_max(server))
    patience.call(lambda: prepare_collection(collection, source, options))
    with journal.Journal(options.state or journal.default_path(identity), identity) as state:
        if options.again:
            state.rewrite([])
        if state.done:
            there = patience.call(lambda: sources.still_there(collection, source, state.done))
            state.rewrite(there)
        send_missing(source, state, options, token, min(options.part_bytes, limit))
    there = patience.call(collection.describe)
    screen.note(f"{options.collection}: {there['rows']:,} rows, version {there['version']}")
    if options.wait:
        indexing.wait_ready(collection, patience.call)


def main(arguments):
    options = parse_arguments(arguments)
    try:
        load(options)
    except (Failed, Refused, Unreachable, formats.WrongFile, journal.Busy) as e:
        sys.exit(f"load: {e}")
    except OSError as e:
        sys.exit(f"load: {client.system_sentence(e)}")
    except KeyboardInterrupt:
        print("\nload: broken off; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main(sys.argv[1:])
