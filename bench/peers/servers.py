"""Servers as peers, with the calls of process.py: Redis 8 with its vector sets.

Vector sets know no distance but the cosine, so this peer is judged by cosine: its queries are as
hard as those of the others, its neighbours are not the same ones.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import load
import numpy as np
from process import CONNECTIONS, ENV, Failed, ask_load_gen, cpu_seconds, resident_bytes, size_bytes
from sets import K

M, EF_CONSTRUCTION = 16, 200
PIPELINE = 256


def command(*words):
    """A command as Redis reads it."""
    parts = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Replies:
    """Reads the replies of one connection."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")

    def read(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:].strip()
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2]
        if kind in (b":", b"+"):
            return rest
        raise Failed(line.decode(errors="replace").strip() or "the server hung up")

    def ask(self, *commands):
        self.socket.sendall(b"".join(commands))
        return [self.read() for _ in commands]


class RedisVectorSet:
    """Codes of 8 bits, which is its default; attributes and vectors live in its memory alone."""

    METRIC = "cosine"

    def __init__(self, name, server, data, root):
        self.name, self.data, self.root = name, data, Path(root)
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        self.port = free_port()
        options = {"port": self.port, "dir": self.root, "save": "", "bind": "127.0.0.1"}
        words = [w for key, value in options.items() for w in (f"--{key}", str(value))]
        with open(self.root.with_suffix(".log"), "w") as log:
            self.process = subprocess.Popen([*load.pinned(), server, *words], stdout=log, env=ENV)
        self.redis = self._connect()
        self.empty_bytes = resident_bytes(self.process.pid)
        self.bodies = {}

    def _connect(self):
        for _ in range(500):
            try:
                return Replies(self.port)
            except ConnectionRefusedError:
                time.sleep(0.02)
        raise Failed("redis-server does not listen")

    def build(self):
        before_s, start = cpu_seconds(self.process.pid), time.monotonic()
        graph = ("M", M, "EF", EF_CONSTRUCTION)
        for at in range(0, self.data.rows, PIPELINE):
            part = self.data.base[at : at + PIPELINE]
            self.redis.ask(
                *(
                    command("VADD", "bench", "FP32", row.tobytes(), at + i, "Q8", *graph)
                    for i, row in enumerate(part)
                )
            )
        took_s = time.monotonic() - start
        spent_s = cpu_seconds(self.process.pid) - before_s
        return {"build_s": took_s, "build_cpu_s": spent_s, "searchable_s": took_s}

    @staticmethod
    def search(query, effort):
        """NOTHREAD: a thread a query costs more than the query."""
        blob = query.tobytes()
        return command("VSIM", "bench", "FP32", blob, "COUNT", K, "EF", effort, "NOTHREAD")

    def find(self, effort, path):
        ids = np.full((len(self.data.queries), K), -1, np.int64)
        for i, query in enumerate(self.data.queries):
            (found,) = self.redis.ask(self.search(query, effort))
            ids[i, : len(found)] = [int(key) for key in found]
        ids.tofile(path)

    def measure(self, effort, batch, seconds):
        """A batch is that many commands in one pipeline."""
        key = effort, batch
        if key not in self.bodies:
            self.bodies[key] = self.root / f"bodies-{effort}-{batch}"
            rows = range(0, len(self.data.queries) - batch + 1, batch)
            asked = (
                b"".join(self.search(q, effort) for q in self.data.queries[at : at + batch])
                for at in rows
            )
            load.write_bodies(self.bodies[key], asked)
        told = ask_load_gen(
            self.port,
            "resp",
            bodies=self.bodies[key],
            batch=batch,
            connections=CONNECTIONS,
            seconds=seconds,
        )
        return told["rate"] * batch, told["p50_us"], told["p99_us"]

    def memory(self):
        return resident_bytes(self.process.pid) - self.empty_bytes

    def disk(self):
        self.redis.ask(command("SAVE"))
        return size_bytes(self.root / "dump.rdb")

    def close(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.root, ignore_errors=True)


def redis_server():
    """The binary that peers.sh built or that $REDIS8_SERVER names; None when there is none."""
    return os.environ.get("REDIS8_SERVER") or None
