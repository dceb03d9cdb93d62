"""Runs bench/load_gen and reads what a server spent meanwhile."""

import json
import os
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from service import WORK

SERVER_CPU, CLIENT_CPU = 0, 1 % os.cpu_count()


def pinned(cpu=SERVER_CPU):
    """Before a command: it runs on that core alone."""
    return ["taskset", "-c", str(cpu)]


@dataclass
class Figures:
    rate: float  # requests a second
    p50_us: float
    p95_us: float
    p99_us: float
    max_us: float
    client_busy: float  # share of its time
    server_us: float  # CPU time of the server, user and system, for one request


def cpu_seconds(pid):
    """CPU time of all living threads of a process, exact to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / 1e9


def command(port, workload, **options):
    """The load generator's command line: keys=5, int_keys=True is --keys 5 --int-keys."""
    words = [str(WORK / "load_gen"), "--port", str(port), "--workload", workload]
    for name, value in options.items():
        if value is not False and value is not None:
            words.append("--" + name.replace("_", "-"))
        if value is not True and value is not False and value is not None:
            words.append(str(value))
    return words


def run(pid, port, workload, **options):
    """One measurement; `pid` is the server's."""
    before = cpu_seconds(pid)
    done = subprocess.run(
        command(port, workload, **options), check=True, stdout=subprocess.PIPE, text=True
    )
    spent = cpu_seconds(pid) - before
    told = json.loads(done.stdout)
    all_requests = told["requests"] + told["rate"] * options.get("warmup", 0.2)
    return Figures(
        told["rate"],
        told["p50_us"],
        told["p95_us"],
        told["p99_us"],
        told["max_us"],
        told["client_busy"],
        spent / max(all_requests, 1) * 1e6,
    )


def metrics(client):
    """/metrics: name with labels -> value."""
    lines = client.get("/metrics").body.decode().splitlines()
    return {k: float(v) for k, v in (x.rsplit(" ", 1) for x in lines if x and x[0] != "#")}


def write_bodies(path, bodies):
    """Request bodies for --bodies."""
    with open(path, "wb") as f:
        for body in bodies:
            f.write(struct.pack("<I", len(body)) + body)
