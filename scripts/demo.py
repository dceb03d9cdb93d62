"""make demo's second half: embed the descriptions of all Debian packages, load them, ask, measure.

  demo.py run URL DIRECTORY             everything, from apt's lists to the table of figures
  demo.py ask URL DIRECTORY WORDS...    the packages nearest to the words

The daemon answers at URL already; DIRECTORY keeps what is prepared (demolib/prepare.py). Repeating
a run changes nothing: what is prepared or loaded is found to be so and left alone. Any failure ends
with status 1 and one sentence.
"""

import sys
from pathlib import Path

from demolib import corpus, measure, prepare, refresh
from demolib.lsa import DIM
from toolslib import indexing, screen, stats
from toolslib.client import Client, Collection, Refused, Unreachable

QUESTIONS = ("web server", "image editor", "vector similarity search")
REFRESHED = "manual and reference documentation"
FETCHED = ("nginx", "gimp", "libfaiss-dev", "no-such-package")
SHOWN = ("section", "installed_size_kb", "summary")
SCHEMA = {
    "key": "string",
    "vector": {"dim": DIM, "metric": "cosine"},
    "features": corpus.FEATURES,
    "index": {"kind": "hnsw", "m": 16, "ef_construction": 200},
}


class Failed(Exception):
    """A sentence for the user."""


def is_loaded(collection, prepared, record_path):
    """True when the collection is what an earlier run loaded from the same rows."""
    there = collection.describe()
    record = prepare.read_json(record_path)
    return (
        there is not None
        and record is not None
        and record["digest"] == prepared.stamp["digest"]
        and there["version"] == record["version"]
        and there["rows"] == prepared.stamp["rows"]
    )


def load(collection, prepared, record_path):
    """Drops what an earlier run may have left, creates, loads in one commit."""
    record_path.unlink(missing_ok=True)
    if collection.describe() is not None:
        collection.drop()
    collection.create(SCHEMA)
    size = prepared.stamp["bytes"]
    with open(prepared.rows_path, "rb") as f:
        with screen.Progress("POST rows", size, "MB", 1e6) as progress:
            answer = collection.load_ndjson(f, size, progress)
            seconds = progress.seconds()
    rows = answer["rows"]
    screen.note(
        f"version {answer['version']}: {rows:,} rows in one commit, {size / 1e6:,.0f} MB of NDJSON,"
        f" {rows / seconds:,.0f} rows/s"
    )


def embed(model, words):
    vector = model.embed(words)
    if vector is None:
        raise Failed(f'no word of "{words}" occurs in the package descriptions: try other words')
    return [round(float(x), 5) for x in vector]


def ask(collection, model, words):
    """The ten packages nearest to the words, as a table."""
    answer = collection.search(vector=embed(model, words), k=10, features=list(SHOWN))
    print(f'\n   "{words}" ({answer["took_us"] / 1000:.2f} ms in the daemon)')
    rows = (
        (i, f"{hit['distance']:.3f}", hit["key"], *(hit["features"][name] for name in SHOWN))
        for i, hit in enumerate(answer["hits"][0], 1)
    )
    columns = [("", 2, True), ("distance", 8, True), ("package", 26, False)]
    columns += [("section", 11, False), ("KiB", 7, True), ("summary", 50, False)]
    screen.table(columns, rows)


def fetch(collection):
    """Features of a few keys in one request, columnar; one row by its address."""
    names = ["version", "section", "download_bytes", "homepage"]
    answer = collection.features(list(FETCHED), names)
    columns = [answer["features"][name] for name in names]
    found = ["yes" if f else "no" for f in answer["found"]]
    titles = [("key", 16, False), ("found", 5, False), ("version", 20, False)]
    titles += [("section", 9, False), ("bytes", 9, True), ("homepage", 38, False)]
    screen.table(titles, zip(answer["keys"], found, *columns))
    row = collection.row(FETCHED[1])["features"]
    tags = row["tags"] or []
    first = ", ".join(tags[:4])
    screen.note(f"GET rows/{FETCHED[1]}: {len(row)} features; {len(tags)} tags: {first} ...")


def measure_all(collection, prepared):
    """Recall and latency at rising effort, against exact search over the same sample."""
    keys = measure.sample_keys(list(prepared.keys()))
    efforts = [{"ef": ef} for ef in measure.EFFORTS] + [{"exact": True}]
    with screen.Progress("asking", len(keys) * len(efforts), "queries") as progress:
        answers = [measure.Answers(collection, keys, progress, **e) for e in efforts]
    exact = answers[-1]
    rows = []
    for effort, a in zip(efforts, answers):
        name = f"ef {effort['ef']}" if "ef" in effort else "exact"
        inside = (f"{us / 1000:.2f}" for us in stats.percentiles(a.took_us))
        outside = (f"{us / 1000:.2f}" for us in stats.percentiles(a.round_trip_us))
        rows.append((name, f"{a.recall(exact):.3f}", *inside, *outside))
    screen.note(
        f"{len(keys)} packages ask for their {measure.K} nearest, one after the other; milliseconds"
    )
    columns = [("effort", 6, False), (f"recall@{measure.K}", 9, True)]
    for where in ("daemon", "client"):
        columns += [(f"{where} {p}", 10, True) for p in ("p50", "p95", "p99")]
    screen.table(columns, rows)


def run(url, directory):
    screen.heading("1. Embed the descriptions of all Debian packages (latent semantic analysis)")
    prepared = prepare.prepare(directory)
    stamp = prepared.stamp
    screen.note(f"{stamp['rows']:,} rows, {stamp['vectors']:,} vectors of {DIM} dimensions")

    screen.heading("2. Load over HTTP")
    collection = Collection(Client(url), "packages")
    record_path = directory / "loaded.json"
    known = is_loaded(collection, prepared, record_path)
    if known:
        screen.note(f"loaded before: version {collection.describe()['version']}")
    else:
        load(collection, prepared, record_path)
    indexing.wait_ready(collection)

    screen.heading("3. Ask in words")
    model = prepared.model()
    for words in QUESTIONS:
        ask(collection, model, words)

    screen.heading("4. Fetch features by key")
    fetch(collection)

    screen.heading("5. Recall and latency")
    measure_all(collection, prepared)

    screen.heading("6. Refresh all of it while others ask, compare, go back")
    if known:
        screen.note("done by an earlier run; its versions:")
        refresh.show_versions(collection)
        return
    version = refresh.run(url, collection, prepared, embed(model, REFRESHED), REFRESHED)
    record = {"digest": stamp["digest"], "version": version}
    prepare.write_json(record_path, record)


def main(arguments):
    if len(arguments) < 3 or arguments[0] not in ("run", "ask"):
        sys.exit(__doc__)
    command, url, directory = arguments[0], arguments[1], Path(arguments[2])
    try:
        if command == "run":
            run(url, directory)
        else:
            prepared = prepare.Prepared(directory)
            if not prepared.stamp:
                raise Failed("nothing is prepared yet: run make demo first")
            ask(Collection(Client(url), "packages"), prepared.model(), " ".join(arguments[3:]))
    except (corpus.CorpusError, refresh.Changed, Refused, Unreachable, Failed, OSError) as e:
        sys.exit(f"demo: {e}")
    except KeyboardInterrupt:
        sys.exit("\ndemo: broken off; run it again to go on")


if __name__ == "__main__":
    main(sys.argv[1:])
