"""make install: what it puts where, and that it runs from there as the systemd unit would."""

import configparser
import os
import re
import shlex
import socket
import subprocess

import pytest
import yaml

import daemon as daemon_module
from client import expect
from daemon import BINARY, REPO

BUILD = BINARY.parent


def make(target, root):
    done = subprocess.run(
        ["make", target, f"BUILD={os.path.relpath(BUILD, REPO)}", f"DESTDIR={root}", "PREFIX=/usr"],
        cwd=REPO, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def installed(scratch, request):
    root = scratch / request.node.name
    root.mkdir()
    return root, make("install", root)


class Unit(configparser.RawConfigParser):
    optionxform = str  # names keep their case


def read_unit(root):
    unit = Unit(strict=True, interpolation=None)
    unit.read(root / "usr/lib/systemd/system/loadstoned.service")
    return unit


def read_document(root):
    return (root / "usr/share/doc/loadstone/openapi.yaml").read_text()


def test_everything_is_put_in_its_place_and_taken_away(installed):
    root, files = installed
    assert {
        "usr/bin/loadstoned",
        "usr/lib/systemd/system/loadstoned.service",
        "usr/share/doc/loadstone/LICENSE",
        "usr/share/doc/loadstone/README.md",
        "usr/share/doc/loadstone/openapi.yaml",
        "etc/loadstone/loadstone.conf",
    } <= files
    assert "usr/bin/loadstoned" not in make("uninstall", root)
    assert not any("share/doc" in f or f.endswith(".service") for f in make("uninstall", root))


def test_the_installed_program_serves_as_its_unit_starts_it(
    installed, start_daemon, monkeypatch
):
    """With the state directory and the port where a test may have them."""
    root, _ = installed
    command = shlex.split(read_unit(root)["Service"]["ExecStart"])
    program = root / command[0].lstrip("/")
    assert command[1] == "serve" and command[command.index("--data") + 1] == "%S/loadstone"
    config = root / command[command.index("--config") + 1].lstrip("/")
    monkeypatch.setattr(daemon_module, "BINARY", program)
    daemon = start_daemon(args=["--config", str(config)])
    assert os.path.samefile(f"/proc/{daemon.process.pid}/exe", program)
    served = expect(daemon.client.get("/openapi.json"))
    assert set(served["paths"]) == set(yaml.safe_load(read_document(root))["paths"])


def test_settings_survive_an_update_and_an_uninstall(installed):
    root, _ = installed
    config = root / "etc/loadstone/loadstone.conf"
    config.write_text("threads = 3\n")
    make("install", root)
    assert "etc/loadstone/loadstone.conf" in make("uninstall", root)
    assert config.read_text() == "threads = 3\n"


def test_the_unit_confines_the_daemon_and_gives_it_time(installed, client):
    root, _ = installed
    unit = read_unit(root)["Service"]
    for name, value in {
        "DynamicUser": "yes",
        "StateDirectory": "loadstone",
        "ProtectSystem": "strict",
        "NoNewPrivileges": "yes",
        "Restart": "on-failure",
        "OOMPolicy": "continue",
        "Type": "notify",
    }.items():
        assert unit[name] == value
    limits = expect(client.get("/v1/limits"))
    assert int(re.fullmatch(r"(\d+)s", unit["TimeoutStopSec"])[1]) > limits["shutdown_timeout_s"]
    assert int(unit["LimitNOFILE"]) > 2 * limits["connections_max"]
    text = (root / "usr/lib/systemd/system/loadstoned.service").read_text()
    assert not re.search("@[A-Z]+@", text)


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told_of_start_and_stop(start_daemon, scratch, abstract):
    name = f"@loadstone-test-{os.getpid()}" if abstract else str(scratch / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(30)
        daemon = start_daemon(env={"NOTIFY_SOCKET": name})
        assert manager.recv(100) == b"READY=1"
        assert daemon.stop() == 0
        assert manager.recv(100) == b"STOPPING=1"


def test_a_service_manager_that_is_not_there_is_a_warning(start_daemon, scratch):
    daemon = start_daemon(env={"NOTIFY_SOCKET": str(scratch / "nowhere")})
    assert daemon.stop() == 0
    assert "service manager" in daemon.log()
