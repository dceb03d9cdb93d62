"""Settings from flags, environment and config file: one table, one order, and sentences that say
what to change."""

import os
import re

import pytest

from client import Collection, expect
from daemon import REPO
from test_process import one_sentence, run


def serve(scratch, *flags, config=None, **env):
    """A start that must fail before it serves."""
    args = ["serve", f"--data={scratch / 'never_made'}", "--listen=127.0.0.1:0", *flags]
    if config is not None:
        path = scratch / "settings.conf"
        path.write_text(config)
        args.append(f"--config={path}")
    return run(*args, env=dict(os.environ, **env))


def test_flag_beats_environment_beats_file(start_daemon, scratch):
    path = scratch / "precedence.conf"
    path.write_text("k_max = 10\nef_max = 20   # too\nqueries_max = 30\n")
    daemon = start_daemon(
        args=["--config", str(path), "--k-max=12"],
        env={"LOADSTONE_K_MAX": "11", "LOADSTONE_EF_MAX": "21"},
    )
    limits = expect(daemon.client.get("/v1/limits"))
    assert [limits[n] for n in ("k_max", "ef_max", "queries_max")] == [12, 21, 30]


def test_the_file_may_be_named_by_the_environment(start_daemon, scratch):
    path = scratch / "named.conf"
    path.write_text("json_body_bytes_max = 2M\n")
    daemon = start_daemon(env={"LOADSTONE_CONFIG": str(path)})
    assert expect(daemon.client.get("/v1/limits"))["json_body_bytes_max"] == 2 << 20


@pytest.mark.parametrize(
    "flags, env, config, words",
    [
        (["--treads=2"], {}, None, ["--treads", "--threads"]),
        ([], {"LOADSTONE_K_MAXX": "2"}, None, ["LOADSTONE_K_MAXX", "LOADSTONE_K_MAX"]),
        ([], {}, "k_max = 5\n\nkmax = 5\n", ["settings.conf, line 3", "'kmax'", "k_max"]),
        ([], {}, "k_max = 0\n", ["settings.conf, line 1", "from 1 to 10000"]),
        ([], {}, "k_max\n", ["line 1", "name = value"]),
        (["--k-max=5", "--k-max=6"], {}, None, ["--k-max", "twice", "5", "6"]),
        ([], {}, "k_max = 5\nk_max = 6\n", ["line 2", "twice"]),
        (["--limit", "k_max=5"], {}, None, ["--limit"]),
        (["--k-max=5"], {"LOADSTONE_K_MAX": "x"}, None, ["LOADSTONE_K_MAX", "'x'"]),
        (["--buffer-bytes-max=32M"], {}, None, ["buffer_bytes_max", "json_body_bytes_max"]),
        (["--config=/nowhere/x.conf"], {}, None, ["/nowhere/x.conf"]),
        (["--memory=1K"], {}, None, ["--memory takes a whole number of bytes from 16M"]),
    ],
    ids=str,
)
def test_wrong_settings_are_told(scratch, flags, env, config, words):
    one_sentence(serve(scratch, *flags, config=config, **env), 2, *words)
    assert not (scratch / "never_made").exists()


def test_every_setting_is_in_the_help_the_sample_and_the_table():
    sample = run("settings").stdout
    names = re.findall(r"^#(\w+) =", sample, re.M)
    assert len(names) > 20 and "body_bytes_max" in names
    help_text, table = run("--help").stdout, run("settings", "--markdown").stdout
    for name in names:
        assert f"--{name.replace('_', '-')}" in help_text
        assert f"`{name}`" in table


def test_the_sample_with_its_defaults_serves(start_daemon, scratch):
    """What `loadstoned settings` prints is a config file: uncommented, it changes nothing."""
    plain = expect(start_daemon().client.get("/v1/limits"))
    lines = re.findall(r"^#(\w+ = .+)$", run("settings").stdout, re.M)
    own = ("listen ", "port_file ")
    path = scratch / "sample.conf"
    path.write_text("\n".join(line for line in lines if not line.startswith(own)) + "\n")
    client = start_daemon(args=["--config", str(path)]).client
    assert expect(client.get("/v1/limits")) == plain
    Collection(client, "c").create(key="int64", features={"n": "int64"})


def test_the_documented_table_is_up_to_date():
    """Written anew by: build/loadstoned settings --markdown >api/settings.md"""
    assert (REPO / "api" / "settings.md").read_text() == run("settings", "--markdown").stdout


def test_settings_takes_nothing_else():
    one_sentence(run("settings", "--colour"), 2, "--markdown")


def test_kernels_and_backend_are_settings_too(start_daemon):
    daemon = start_daemon(args=["--isa=scalar", "--io=posix"])
    daemon.wait_log("io posix, kernels scalar")


def test_kernels_that_there_are_none_of_are_a_usage_error():
    takes = "takes auto, avx512, avx2 or scalar, not 'mmx'"
    one_sentence(run("serve", "--data=x", "--isa=mmx"), 2, f"--isa {takes}")
