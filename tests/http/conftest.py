"""Fixtures: a daemon shared by the whole run, daemons of a test's own, and names for collections.

Data lies under build/tmp, on the file system of the checkout: tmpfs accepts misaligned direct
writes that a real one refuses.
"""

import itertools
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from client import Collection
from daemon import BINARY, REPO, Daemon

BACKENDS = {"default_io": {}, "posix_io": {"LOADSTONE_IO": "posix"}}

_numbers = itertools.count()


def pytest_sessionstart(session):
    if not BINARY.exists():
        pytest.exit(f"{BINARY} is missing: run make first, or set LOADSTONED", returncode=3)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for daemon in Daemon.living:
            report.sections.append((f"log of the daemon on {daemon.data}", daemon.log_tail()))
    return report


@pytest.fixture(scope="session")
def scratch():
    """A directory on a real file system, removed at the end."""
    parent = Path(os.environ.get("TEST_TMPDIR", REPO / "build" / "tmp"))
    parent.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="http-", dir=parent))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _serve(scratch, name, **kw):
    return Daemon(scratch / f"{name}-{next(_numbers)}", **kw).start()


@pytest.fixture(scope="session")
def shared_server(scratch):
    daemon = _serve(scratch, "shared")
    yield daemon
    status = daemon.stop()
    daemon.forget()
    assert status == 0, f"shutdown ended with status {status}"


@pytest.fixture
def server(shared_server):
    """The shared daemon; a test that brings it down fails, and so does no other."""
    if not shared_server.alive():
        shared_server.start()
    yield shared_server
    assert shared_server.alive(), f"the daemon died:\n{shared_server.log_tail()}"


@pytest.fixture
def client(server):
    return server.client


def fresh_name(request):
    stem = re.sub(r"[^A-Za-z0-9]+", "_", request.node.name)[:80]
    return f"c{next(_numbers)}_{stem}"


@pytest.fixture
def collection(request, client):
    """A collection that does not exist yet, on the shared daemon."""
    return Collection(client, fresh_name(request))


@pytest.fixture(scope="session", params=BACKENDS)
def backend_server(request, scratch):
    daemon = _serve(scratch, request.param, env=BACKENDS[request.param])
    yield daemon
    daemon.forget()


@pytest.fixture
def backend_collection(request, backend_server):
    """As `collection`, once on each io backend."""
    yield Collection(backend_server.client, fresh_name(request))
    assert backend_server.alive(), f"the daemon died:\n{backend_server.log_tail()}"


@pytest.fixture
def start_daemon(scratch):
    """Starts daemons of the test's own: start_daemon(env=..., args=...)."""
    started = []

    def start(**kw):
        started.append(_serve(scratch, "own", **kw))
        return started[-1]

    yield start
    for daemon in started:
        daemon.forget()
        shutil.rmtree(daemon.root, ignore_errors=True)


@pytest.fixture(params=BACKENDS)
def own_daemon(request, start_daemon):
    """A daemon of the test's own, once on each io backend."""
    return start_daemon(env=BACKENDS[request.param])
