"""Start: from exec to the first correct search over an indexed collection, page cache warm.

The daemon is started again and again on the same directory; a client asks for a search as soon as
a port is there and until the answer is a 200, which must hold the hits that were noted before. The
aim: under 300 ms.
"""

import http.client
import json
import os
import statistics
import time

from service import DIM, ROWS, Collection, million

STARTS = int(os.environ.get("BENCH_STARTS", 11))
KEYS = [1, ROWS // 3, ROWS - 1]
AIM_MS = 300


def first_search_ms(daemon, body, want):
    """One start; returns milliseconds from exec to the right answer, and to the port."""
    started = time.perf_counter()
    daemon.start(ready=False)
    port_ms = (time.perf_counter() - started) * 1e3
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.client.port, timeout=30)
        connection.request(
            "POST", "/v1/collections/million/search", body, {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status == 200:
            break
        assert answer.status == 503, text
        time.sleep(0.001)
    took_ms = (time.perf_counter() - started) * 1e3
    assert json.loads(text)["hits"] == want, "a wrong first answer"
    return took_ms, port_ms


def main():
    daemon = million()
    daemon.start()
    c = Collection(daemon.client, "million")
    query = {"vectors": [c.row(k, with_vectors="true")["vector"] for k in KEYS], "k": 10, "ef": 128}
    want = c.search(**query)["hits"]
    assert [hits[0]["key"] for hits in want] == KEYS
    assert c.index()["indexed_rows"] == ROWS
    daemon.stop()
    times = []
    for _ in range(STARTS):
        times.append(first_search_ms(daemon, json.dumps(query), want))
        daemon.stop()
    total, port = (sorted(t) for t in zip(*times, strict=True))
    print(
        f"exec to first correct search, {ROWS:,} x {DIM} indexed, page cache warm, {STARTS} starts"
    )
    print(
        f"  median {statistics.median(total):.0f} ms, worst {total[-1]:.0f} ms (aim: {AIM_MS} ms)"
    )
    print(f"  of which until the port is open: median {statistics.median(port):.0f} ms")


if __name__ == "__main__":
    main()
