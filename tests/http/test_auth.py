"""Bearer tokens: who has none learns nothing, who may read cannot write, and tokens are changed
while the daemon runs."""

import os
import signal
import time

import pytest

from client import Collection, RawExchange, expect, problem, request_head
from test_process import one_sentence, run

READ, WRITE, OTHER = "read-token-0123456789", "write-token-0123456789", "other-token-0123456789"


def token_files(directory, read=READ, write=WRITE):
    directory.mkdir(parents=True, exist_ok=True)
    args = []
    for name, token in (("read", read), ("write", write)):
        path = directory / name
        path.write_text(token + "\n")
        path.chmod(0o600)
        args.append(f"--{name}-token-file={path}")
    return args


@pytest.fixture(scope="module")
def guarded(scratch):
    from daemon import Daemon

    daemon = Daemon(scratch / "guarded", args=token_files(scratch / "tokens")).start()
    c = Collection(daemon.client.with_token(WRITE), "secret_plans")
    c.create(key="int64", vector={"dim": 2, "metric": "l2"}, features={"n": "int64"})
    c.load([{"key": 1, "vector": [1, 2], "n": 5}])
    yield daemon
    daemon.forget()


PATH = "/v1/collections/secret_plans"
VECTOR = {"vector": [1, 2]}
READS = [
    ("GET", PATH, None),
    ("GET", "/v1/collections", None),
    ("GET", "/v1/limits", None),
    ("GET", "/metrics", None),
    ("GET", "/openapi.json", None),
    ("GET", f"{PATH}/index", None),
    ("GET", f"{PATH}/rows", None),
    ("GET", f"{PATH}/rows/1", None),
    ("HEAD", f"{PATH}/rows/1", None),
    ("POST", f"{PATH}/search", VECTOR),
    ("POST", f"{PATH}/features", {"keys": [1]}),
    ("POST", f"{PATH}/count", {}),
]
WRITES = [
    ("POST", f"{PATH}/rows", {"rows": [{"key": 2, "n": 1}]}),
    ("POST", f"{PATH}/rows/delete", {"keys": [1]}),
    ("DELETE", f"{PATH}/rows", {"keys": [1]}),
    ("PUT", "/v1/collections/other", {"key": "int64", "features": {"n": "int64"}}),
    ("PATCH", PATH, {"features": {"m": "int64"}}),
    ("POST", f"{PATH}/index", {}),
    ("DELETE", PATH, None),
]
UNKNOWN = [("GET", "/v1/collections/nowhere", None), ("GET", "/nowhere", None), ("PUT", "/", None)]


def refused(answer):
    assert answer.status == 401, answer
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="loadstone"'
    assert "secret_plans" not in str(answer.body)


@pytest.mark.parametrize("method, path, body", READS + WRITES + UNKNOWN, ids=str)
@pytest.mark.parametrize("token", [None, OTHER, READ[:-1], READ + "x"])
def test_without_a_known_token_all_is_401(guarded, method, path, body, token):
    refused(guarded.client.with_token(token).request(method, path, body))


@pytest.mark.parametrize("method, path, body", READS, ids=str)
@pytest.mark.parametrize("token", [READ, WRITE])
def test_both_tokens_read(guarded, method, path, body, token):
    assert guarded.client.with_token(token).request(method, path, body).status == 200


@pytest.mark.parametrize("method, path, body", WRITES, ids=str)
def test_the_read_token_does_not_write(guarded, method, path, body):
    answer = guarded.client.with_token(READ).request(method, path, body)
    problem(answer, 403, "may read only", "write token")
    assert Collection(guarded.client.with_token(READ), "secret_plans").state() == (1, 1)


def test_with_a_token_the_unknown_is_told(guarded):
    client = guarded.client.with_token(READ)
    assert [client.request(*call).status for call in UNKNOWN] == [404, 404, 405]


def test_health_needs_no_token_and_names_no_collection(guarded):
    for path in ("/", "/healthz", "/readyz"):
        answer = guarded.client.get(path)
        assert answer.status == 200 and b"secret_plans" not in answer.body


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", f"Basic {WRITE}", WRITE, f"Bearer {WRITE} x", f"Bearer{WRITE}",
     f"Bearer {'x' * 5000}"],
)  # fmt: skip
def test_malformed_authorization_is_401(guarded, header):
    answer = guarded.client.get("/v1/limits", headers={"Authorization": header})
    refused(answer)
    problem(answer, 401, "token")


def test_the_scheme_is_read_in_any_case(guarded):
    for scheme in ("bearer", "BEARER", "Bearer  "):
        header = {"Authorization": f"{scheme} {READ}"}
        expect(guarded.client.get("/v1/limits", headers=header))


def test_two_authorizations_are_none(guarded):
    head = (
        f"GET /v1/limits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OTHER}\r\n"
        f"Authorization: Bearer {READ}\r\n\r\n"
    )
    with RawExchange(guarded.client) as exchange:
        refused(exchange.send(head.encode()).answer())


def test_the_token_is_looked_at_before_the_body(guarded):
    """The answer comes while the body is still owed, here to a client that asks first."""
    head = request_head(
        "POST", f"{PATH}/rows", Content_Type="application/json", Content_Length=1000,
        Expect="100-continue",
    )  # fmt: skip
    with RawExchange(guarded.client) as exchange:
        refused(exchange.send(head).answer())


def test_a_refused_body_leaves_the_connection_in_step(guarded):
    body = b'{"keys":[1]}'
    head = request_head(
        "POST", f"{PATH}/features", Content_Type="application/json", Content_Length=len(body)
    )
    with RawExchange(guarded.client) as exchange:
        exchange.send(head + body + request_head("GET", "/healthz"))
        refused(exchange.answer())
        assert exchange.answer().status == 200


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def status(daemon, token):
    return daemon.client.with_token(token).get("/v1/limits").status


def test_sighup_reads_the_tokens_anew_and_keeps_them_when_it_cannot(start_daemon, scratch):
    directory = scratch / "rotated"
    daemon = start_daemon(args=token_files(directory))
    (directory / "write").write_text(f"{WRITE}\n{OTHER}\n")
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: status(daemon, OTHER) == 200)
    assert status(daemon, WRITE) == 200
    (directory / "write").write_text(f"{OTHER}\n")
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: status(daemon, WRITE) == 401)
    (directory / "write").write_text("short\n")
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "the tokens stay as they are" in daemon.log())
    assert status(daemon, OTHER) == 200


def test_tokens_from_the_environment_do_not_reach_children_or_the_log(start_daemon):
    daemon = start_daemon(env={"LOADSTONE_WRITE_TOKEN": WRITE, "LOADSTONE_LOG_LEVEL": "debug"})
    assert (status(daemon, None), status(daemon, WRITE)) == (401, 200)
    assert WRITE not in daemon.log()


def test_a_file_that_all_can_read_is_warned_of(start_daemon, scratch):
    args = token_files(scratch / "open")
    (scratch / "open" / "write").chmod(0o644)
    log = start_daemon(args=args).log()
    assert f"{scratch / 'open' / 'write'} can be read by every user" in log
    assert f"{scratch / 'open' / 'read'} can be read" not in log


def test_with_a_token_an_address_of_others_is_served(start_daemon, scratch):
    args = [*token_files(scratch / "remote"), "--listen=0.0.0.0:0"]
    from daemon import Daemon

    daemon = Daemon(scratch / "remote-daemon", args=args)
    command = daemon.command
    daemon.command = lambda: [a for a in command() if a not in ("--listen", "127.0.0.1:0")]
    daemon.start()
    try:
        assert (status(daemon, None), status(daemon, READ)) == (401, 200)
    finally:
        daemon.forget()


@pytest.mark.parametrize(
    "read, write, words",
    [
        ("short", WRITE, ["16 to 256 characters", "openssl rand"]),
        ("", WRITE, ["empty"]),
        ("has spaces in the middle", WRITE, ["letters, digits"]),
        (READ, READ, ["a read token is a write token too"]),
        (READ, None, ["write_token_file"]),
        (READ, "\n".join(f"{WRITE}{i}" for i in range(5)), ["more than 4 tokens"]),
    ],
    ids=str,
)
def test_bad_tokens_are_refused_at_the_start(scratch, read, write, words):
    args = token_files(scratch / "bad", read, write or "")
    if write is None:
        args = args[:1]
    result = run("serve", f"--data={scratch / 'unused'}", "--listen=127.0.0.1:0", *args)
    one_sentence(result, 1, *words)
    assert READ not in result.stderr and WRITE not in result.stderr


def test_a_token_and_its_file_exclude_each_other(scratch):
    args = token_files(scratch / "both")
    env = dict(os.environ, LOADSTONE_WRITE_TOKEN=OTHER)
    one_sentence(run("serve", f"--data={scratch / 'unused'}", *args, env=env), 1, "exclude each")


def test_a_missing_token_file_is_told(scratch):
    args = ["serve", f"--data={scratch / 'unused'}", "--write-token-file=/nowhere/token"]
    one_sentence(run(*args), 1, "/nowhere/token")


def test_a_token_on_the_command_line_is_refused(scratch):
    result = run("serve", f"--data={scratch / 'unused'}", f"--write-token={WRITE}")
    one_sentence(result, 2, "list of processes")
    assert WRITE not in result.stderr
