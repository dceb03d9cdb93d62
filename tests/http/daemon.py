"""One real loadstoned on a directory of its own: start, wait, kill, restart, look inside.

The daemon listens on a port the kernel picks and tells it through --port-file. It dies with the
test process (PR_SET_PDEATHSIG), so that an aborted run leaves nothing behind. Start it from the
main thread only: the death signal belongs to the thread that forked.
"""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from client import Client

REPO = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("LOADSTONED", REPO / "build" / "loadstoned")).resolve()

# a sanitizer's shadow and quarantine count as anonymous memory too
SANITIZED = BINARY.exists() and any(
    mark in BINARY.read_bytes() for mark in (b"__asan_init", b"__tsan_init")
)
MEMORY_ALLOWANCE = 768 * 2**20 if SANITIZED else 0

_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent():
    _libc.prctl(1, signal.SIGKILL)


class Daemon:
    living = []  # every daemon whose log a failing test should show

    def __init__(self, root, env=None, args=(), wrapper=(), data=None):
        self.root = Path(root)
        self.data = Path(data) if data else self.root / "data"
        self.log_path = self.root / "daemon.log"
        self.port_file = self.root / "port"
        self.env = dict(os.environ, **(env or {}))
        self.args = list(args)
        self.listen = "127.0.0.1:0"  # set to keep one port over restarts
        self.wrapper = list(wrapper)
        self.process = None
        self.client = None
        self.root.mkdir(parents=True, exist_ok=True)
        Daemon.living.append(self)

    def command(self, listen=None):
        return self.wrapper + [
            str(BINARY),
            "serve",
            "--data",
            str(self.data),
            "--listen",
            listen or self.listen,
            "--port-file",
            str(self.port_file),
            *self.args,
        ]

    def start(self, ready=True):
        self.port_file.unlink(missing_ok=True)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
            )
        self.client = Client("127.0.0.1", self._wait_port())
        if ready:
            self.wait_ready()
        return self

    def _wait_port(self, timeout_s=30):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.port_file.exists():
                text = self.port_file.read_text()
                if text.endswith("\n"):
                    return int(text)
            self._check_running()
            time.sleep(0.005)
        raise AssertionError(f"the daemon wrote no port within {timeout_s} s:\n{self.log_tail()}")

    def _check_running(self):
        status = self.process.poll()
        if status is not None:
            raise AssertionError(f"the daemon ended with status {status}:\n{self.log_tail()}")

    def wait_ready(self, timeout_s=60):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._check_running()
            if self.client.get("/readyz").status == 200:
                return
            time.sleep(0.01)
        raise AssertionError(f"not ready within {timeout_s} s:\n{self.log_tail()}")

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """SIGKILL: what the daemon had in memory is gone."""
        if self.alive():
            self.process.kill()
            self.process.wait()
        if self.client:
            self.client.close()

    def stop(self, timeout_s=30):
        """SIGTERM; returns the exit status of an orderly shutdown."""
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def restart(self):
        """SIGKILL and a fresh start on the same data."""
        self.kill()
        return self.start()

    def forget(self):
        self.kill()
        Daemon.living.remove(self)
        found = re.search(r".*(runtime error:|Sanitizer: ).*", self.log())
        assert not found, f"a sanitizer's finding: {found[0]}"

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_log(self, text, timeout_s=10):
        """The port file may be there before the line that tells of it."""
        deadline = time.monotonic() + timeout_s
        while text not in self.log():
            assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{self.log_tail()}"
            time.sleep(0.02)

    def log_tail(self, lines=60):
        return "\n".join(self.log().splitlines()[-lines:])

    def memory(self, field="RssAnon"):
        """A figure of /proc/PID/status in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.M)[1]) * 1024

    def children(self):
        found = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a thread that has ended
                found += [int(p) for p in (task / "children").read_text().split()]
        return found
