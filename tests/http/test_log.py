"""The log of the daemon: a file that is rotated under it, and lines that machines read."""

import json
import signal
import time


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_sighup_opens_the_renamed_log_anew(start_daemon, scratch):
    path, moved = scratch / "daemon.log", scratch / "daemon.log.1"
    daemon = start_daemon(args=[f"--log-file={path}"])
    wait_for(lambda: "serves" in path.read_text())
    assert daemon.log() == ""
    assert path.stat().st_mode & 0o007 == 0
    path.rename(moved)
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: path.exists() and "reloaded" in path.read_text())
    before = moved.read_text()
    assert daemon.stop() == 0
    assert "stopping" in path.read_text() and moved.read_text() == before


def test_json_lines_are_json(start_daemon):
    daemon = start_daemon(args=["--log-format=json", "--log-level=debug"])
    assert daemon.stop() == 0
    lines = [json.loads(line) for line in daemon.log().splitlines()]
    assert any("serves" in line["msg"] for line in lines)
    assert all({"time", "level", "msg"} <= line.keys() for line in lines)


def test_a_log_file_that_cannot_be_opened_is_told(scratch):
    from test_process import one_sentence, run

    args = [f"--data={scratch / 'unused'}", "--listen=127.0.0.1:0", "--log-file=/nowhere/x.log"]
    one_sentence(run("serve", *args), 1, "/nowhere/x.log")
