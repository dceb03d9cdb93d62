"""Which ranges of a file the server has acknowledged: what lets a broken-off load go on.

One small file for each (file, server, collection), a line of JSON each:

  {"file": .., "size": .., "mtime_ns": .., "digest": .., "url": .., "collection": ..}
  [0, 131072]
  [262144, 393216]

A line is written after its commit was acknowledged. A range that was committed but not written
(the process died in between) is sent again: an upsert of the same keys changes nothing. A head
that differs (another file, or the same changed) starts over. A torn last line is no line. An
exclusive lock keeps a second load of the same file away. load.py trusts no range before it has
compared samples of it with what the server holds.
"""

import fcntl
import hashlib
import json
import os
from pathlib import Path

PROBES, PROBE_BYTES = 64, 4096


class Busy(Exception):
    """Another process is loading the same file."""


def fingerprint(path):
    """Size, time of change and a hash of samples: a changed file is another file."""
    hasher = hashlib.sha256()
    with open(path, "rb") as f:
        stat = os.fstat(f.fileno())
        for i in range(PROBES):
            f.seek(max(stat.st_size - PROBE_BYTES, 0) * i // (PROBES - 1))
            hasher.update(f.read(PROBE_BYTES))
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "digest": hasher.hexdigest()}


def default_path(identity):
    """In the user's state directory, named by what is loaded to where."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    names = [str(identity[name]) for name in ("file", "url", "collection", "dataset")]
    stem = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    return Path(home) / "loadstone" / f"load-{stem}.jsonl"


class Journal:
    def __init__(self, path, identity):
        self.path, self.identity = Path(path), identity
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self.path, "a+")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            self.file.close()
            raise Busy(f"another load of this file is running ({self.path} is locked)") from e
        self.done = self._read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def _read(self):
        self.file.seek(0)
        lines = []
        for line in self.file:
            try:
                lines.append(json.loads(line))
            except ValueError:
                pass  # torn by a crash
        if not lines or lines[0] != self.identity:
            self.rewrite([])
            return []
        return [tuple(line) for line in lines[1:]]

    def rewrite(self, done):
        self.done = list(done)
        self.file.truncate(0)
        self._write(self.identity, *self.done)

    def add(self, first, end):
        self.done.append((first, end))
        self._write((first, end))

    def _write(self, *values):
        """Each line begins with a line feed of its own: it may follow a torn one."""
        self.file.write("".join(f"\n{json.dumps(v)}" for v in values) + "\n")
        self.file.flush()


def missing(done, extent):
    """The ranges of [0, extent) that `done` leaves out."""
    gaps, at = [], 0
    for first, end in sorted(done):
        if first > at:
            gaps.append((at, first))
        at = max(at, end)
    return gaps + ([(at, extent)] if at < extent else [])
