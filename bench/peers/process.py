"""The processes that are measured, all with the same calls: build, find, measure, memory, disk.

Piped      a peer or the engine behind the line protocol that worker.py explains
OverHttp   a daemon, asked through bench/load_gen with 32 connections from the other core

Each is pinned to one core and told to use one thread.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import load
from service import Collection, Daemon
from sets import K

CONNECTIONS = 32
NAME = "bench"
THREADS = ("OMP", "OPENBLAS", "RAYON", "MKL")
ENV = os.environ | {f"{name}_NUM_THREADS": "1" for name in THREADS} | {"LANCE_CPU_THREADS": "1"}


class Failed(Exception):
    """A peer that ended, with the last line it said."""


def size_bytes(path):
    path = Path(path)
    files = [path] if path.is_file() else path.rglob("*")
    return sum(f.stat().st_blocks * 512 for f in files if f.is_file())


def leave_cache(path):
    """Throws files out of the page cache. Copied ones lie there in small pages; read anew by whoever
    maps them, as files that a daemon wrote are, they come in large ones."""
    for f in Path(path).rglob("*"):
        if f.is_file():
            with f.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident_bytes(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(n) for n in re.findall(r"Rss(?:Anon|File):\s+(\d+) kB", status)) * 1024


def cpu_seconds(pid):
    """Of a process and of its children that ended, such as those that build indexes."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def ask_load_gen(port, workload, **options):
    """One measurement from the client's core; what it told."""
    command = load.command(port, workload, **options, cpu=load.CLIENT_CPU, spin=True, warmup=0.1)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(done.stderr.strip())
    return json.loads(done.stdout)


class Piped:
    METRIC = "l2"

    def __init__(self, name, command, scratch, stored=None):
        self.name, self.stored = name, stored
        self.scratch = Path(scratch)
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.errors = self.scratch.with_suffix(".log")
        with open(self.errors, "w") as log:
            self.process = subprocess.Popen(
                [*load.pinned(), *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=ENV,
            )
        self.ask("hello")
        self.empty_bytes = resident_bytes(self.process.pid)

    def ask(self, *words):
        try:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self.process.stdout.readline().split()
        if not answer:
            said = self.errors.read_text(errors="replace").strip().splitlines()
            raise Failed(said[-1] if said else f"ended with status {self.process.wait()}")
        return answer

    def build(self):
        wall_s, cpu_s = map(float, self.ask("build"))
        return {"build_s": wall_s, "build_cpu_s": cpu_s, "searchable_s": wall_s}

    def find(self, effort, path):
        self.ask("find", effort, path)

    def measure(self, effort, batch, seconds):
        return tuple(map(float, self.ask("measure", effort, batch, seconds)))

    def memory(self):
        return resident_bytes(self.process.pid) - self.empty_bytes

    def disk(self):
        if self.stored:
            return size_bytes(self.stored)
        path = self.scratch / "saved"
        self.ask("disk", path)
        size = size_bytes(path)
        path.unlink()
        return size

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


class OverHttp:
    METRIC = "l2"

    def __init__(self, name, data, root):
        self.name, self.data, self.root = name, data, Path(root)
        shutil.rmtree(self.root, ignore_errors=True)
        args = ["--threads", "1", "--build-threads", "1"]
        self.daemon = Daemon(self.root, args=args, wrapper=load.pinned(), env=ENV).start()
        self.collection = Collection(self.daemon.client, NAME)
        self.empty_bytes = resident_bytes(self.daemon.process.pid)

    def build(self):
        """From the first byte of the rows to an index that holds all of them."""
        self.collection.create(
            key="int64",
            vector={"dim": self.data.dim, "metric": "l2"},
            index={"kind": "hnsw", "m": 16, "ef_construction": 200},
        )
        octets = {"Content-Type": "application/octet-stream"}
        before_s = cpu_seconds(self.daemon.process.pid)
        path = f"{self.collection.path}/rows?first_key=0&mode=append"
        start = time.monotonic()
        answer = self.daemon.client.post(path, self.data.base_path.read_bytes(), headers=octets)
        assert answer.status == 200, answer
        loaded_s = time.monotonic() - start
        while self.collection.index()["state"] != "ready":
            time.sleep(0.02)
        took_s = time.monotonic() - start
        indexed = self.collection.index()["indexed_rows"]
        assert indexed == self.data.rows, f"{indexed} of {self.data.rows} rows are indexed"
        return {
            "load_s": loaded_s,
            "build_s": took_s - loaded_s,
            "build_cpu_s": cpu_seconds(self.daemon.process.pid) - before_s,
            "searchable_s": took_s,
        }

    def copy(self, path):
        """The data for the engine in process: a directory serves one at a time."""
        self.daemon.stop()
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.daemon.data, path)
        leave_cache(path)
        self.daemon.start()
        self.empty_bytes = 0

    def path(self, effort):
        return f"{self.collection.path}/search?k={K}&ef={effort}"

    def find(self, effort, path):
        self.find_at(self.path(effort), path)

    def find_recall(self, recall, path):
        """Asked for recall instead; returns the effort it took, 0 where that was left open."""
        answer = self.find_at(f"{self.collection.path}/search?k={K}&recall={recall}", path)
        return int(answer.headers.get("Loadstone-Ef", 0))

    def find_at(self, address, path):
        octets = "application/octet-stream"
        headers = {"Content-Type": octets, "Accept": octets}
        found = []
        for at in range(0, len(self.data.queries), 64):
            asked = self.data.queries[at : at + 64]
            answer = self.daemon.client.post(address, asked.tobytes(), headers=headers)
            assert answer.status == 200, answer
            found.append(np.frombuffer(answer.body, "<i8", len(asked) * K))
        np.concatenate(found).tofile(path)
        return answer

    def measure(self, effort, batch, seconds):
        """The settings stand in the address, so that one set of bodies serves all efforts."""
        bodies = self.write_bodies(f"octets-{batch}", batch, np.ndarray.tobytes)
        return self.ask_for(self.path(effort), "octet-stream", bodies, batch, seconds)

    def write_bodies(self, name, batch, encode):
        """`encode` makes a body of n x dim queries."""
        path = self.root / name
        if not path.exists():
            rows = range(0, len(self.data.queries) - batch + 1, batch)
            load.write_bodies(path, (encode(self.data.queries[at : at + batch]) for at in rows))
        return path

    def ask_for(self, path, kind, bodies, batch, seconds):
        media = f"application/{kind}"
        options = {"path": path, "content_type": media, "accept": media, "bodies": bodies}
        options |= {"connections": CONNECTIONS, "seconds": seconds}
        told = ask_load_gen(self.daemon.client.port, "post", **options)
        return told["rate"] * batch, told["p50_us"], told["p99_us"]

    def memory(self):
        return resident_bytes(self.daemon.process.pid) - self.empty_bytes

    def disk(self):
        return size_bytes(self.daemon.data)

    def close(self):
        self.daemon.stop()
        shutil.rmtree(self.root, ignore_errors=True)


class OverJson:
    """The daemon of another peer, asked and answering in JSON."""

    METRIC = "l2"

    def __init__(self, http):
        self.http = http
        self.find, self.memory, self.disk = http.find, http.memory, http.disk

    def measure(self, effort, batch, seconds):
        def encode(queries):
            vectors = [[float(f"{x:.7g}") for x in q] for q in queries.tolist()]
            settings = {"vectors": vectors, "k": K, "ef": effort}
            return json.dumps(settings, separators=(",", ":")).encode()

        bodies = self.http.write_bodies(f"json-{effort}-{batch}", batch, encode)
        path = f"{self.http.collection.path}/search"
        return self.http.ask_for(path, "json", bodies, batch, seconds)

    def close(self):
        pass
