"""What HTTP costs a search: the same queries in process and over HTTP, one at a time.

In process, bench/search_direct opens the daemon's directory and calls the engine on one thread.
Over HTTP one connection asks a daemon of one thread; the times are the client's, from before the
request is sent until the whole answer is read. Each has a core, the client another. The aim: a p50
over HTTP at most 60 us above that in process, medians over interleaved rounds.
"""

import os
import statistics

import load
import queries
from service import DIM, ROWS, Collection, Daemon, helper, million

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
SECONDS = float(os.environ.get("BENCH_SECONDS", 1.5))
AIM_US = 60


def in_process(daemon, bodies):
    helper_args = (daemon.data, "million", bodies, queries.K, queries.EF, SECONDS)
    p50_us, _, _ = helper("search_direct", *helper_args, prefix=load.pinned())
    return float(p50_us)


def over_http(daemon, forms):
    figures = {}
    daemon.start()
    c = Collection(daemon.client, "million")
    c.wait_indexed()
    for name, (search, bodies) in forms.items():
        figures[name] = load.run(
            daemon.process.pid,
            daemon.client.port,
            "post",
            **search(c, bodies),
            seconds=SECONDS,
            cpu=load.CLIENT_CPU,
            spin=True,
        ).p50_us
    daemon.stop()
    return figures


def main():
    prepared = million()
    daemon = Daemon(
        prepared.root, args=["--threads", "1"], wrapper=load.pinned(), data=prepared.data
    )
    daemon.start()
    asked = queries.make_queries(Collection(daemon.client, "million"))
    daemon.stop()
    octets = queries.octet_bodies(asked)
    forms = {
        "HTTP, octet-stream": (queries.octet_search, octets),
        "HTTP, JSON": (queries.json_search, queries.json_bodies(asked)),
    }
    p50_us = {"in process": []} | {name: [] for name in forms}
    for number in range(ROUNDS):
        p50_us["in process"].append(in_process(daemon, octets))
        for name, p50 in over_http(daemon, forms).items():
            p50_us[name].append(p50)
        print(
            f"round {number + 1} of {ROUNDS}: "
            + ", ".join(f"{name} {p[-1]:.1f} us" for name, p in p50_us.items()),
            flush=True,
        )
    print(f"\np50 of a search of {ROWS:,} x {DIM} (k {queries.K}, ef {queries.EF}), one at a time")
    direct = statistics.median(p50_us["in process"])
    for name, p50 in p50_us.items():
        median = statistics.median(p50)
        print(f"  {name:20} {median:7.1f} us", end="")
        print("" if name == "in process" else f"  + {median - direct:5.1f} us (aim: at most {AIM_US})")


if __name__ == "__main__":
    main()
