"""A closed-loop load generator: processes that send prepared requests and time the answers.

  parent --fork--> process 1: connections 1, 3, ..   each connection: send, wait, note, send ...
                   process 2: connections 2, 4, ..
         <--pipe-- latencies, CPU time, and the answers when they are to be kept

There are as many processes as connections or cores, whichever is less, so that Python is not what
is measured; the sockets are spoken to directly, without http.client, for the same reason. How much
is left is in every Result: the client's CPU time per request. All connections begin together.
Failure: the first answer that is not 200 ends the run as Refused, a lost connection as Unreachable.
"""

import multiprocessing
import os
import selectors
import socket
import ssl
import threading
import time
from urllib.parse import urlsplit

from . import client, stats
from .numeric import np

TIMEOUT_S = 120


class Target:
    """Where the requests go; makes their bytes."""

    def __init__(self, url, token=None):
        parts = urlsplit(url if "//" in url else f"http://{url}")
        self.secure = parts.scheme == "https"
        self.host, self.port = parts.hostname, parts.port or (443 if self.secure else 80)
        self.netloc, self.token = parts.netloc, token

    def request(self, method, path, body=b"", **headers):
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.netloc}"]
        if self.token:
            lines.append(f"Authorization: Bearer {self.token}")
        if method != "GET":
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body

    def connect(self):
        plain = socket.create_connection((self.host, self.port), TIMEOUT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.secure:
            return plain
        return ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


class Wire:
    """One connection with at most one request on its way."""

    def __init__(self, target, numbers):
        self.socket = target.connect()
        self.numbers = numbers  # of the requests to send, one after the other
        self.buffer, self.need, self.body_at = bytearray(), None, 0
        self.number = self.sent_at = None

    def send(self, requests):
        """The next request; False when there is none."""
        self.number = next(self.numbers, None)
        if self.number is None:
            return False
        self.sent_at = time.monotonic()
        self.socket.sendall(requests[self.number])
        return True

    def receive(self):
        """The answer's body, or None while it is not whole."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise client.Unreachable("the daemon closed a connection in the middle")
        self.buffer += data
        if self.need is None and not self._read_head():
            return None
        if len(self.buffer) < self.need:
            return None
        body = bytes(self.buffer[self.body_at : self.need])
        del self.buffer[: self.need]
        self.need = None
        if self.status != 200:
            raise client.refusal(self.status, body)
        return body

    def _read_head(self):
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self.buffer[:end]).lower()
        _, _, length = head.partition(b"\r\ncontent-length:")
        self.status = int(head[9:12])
        self.body_at = end + 4
        self.need = self.body_at + int(length.split(b"\r\n")[0] or 0)
        return True


class Result:
    """What one run came to; latencies in seconds, in no order."""

    def __init__(self, latencies, seconds, cpu_s, bodies):
        self.latencies, self.bodies = latencies, bodies
        self.requests = len(latencies)
        self.qps = self.requests / seconds if seconds > 0 else 0.0
        self.cpu_us = cpu_s / max(self.requests, 1) * 1e6
        p50, p95, p99 = stats.percentiles(latencies.tolist()) if len(latencies) else (0, 0, 0)
        self.p50_ms, self.p95_ms, self.p99_ms = p50 * 1e3, p95 * 1e3, p99 * 1e3


def _in_turn(wires):
    """The wires whose answers have begun to come."""
    if len(wires) == 1:
        while True:
            yield wires[0]
    selector = selectors.DefaultSelector()
    for wire in wires:
        selector.register(wire.socket, selectors.EVENT_READ, wire)
    while True:
        for key, _ in selector.select(TIMEOUT_S):
            yield key.data


class Span:
    """When a worker counts: after the warm-up, for so many seconds, or until its requests are used
    up (None)."""

    def __init__(self, warmup_s, seconds):
        self.start = time.monotonic() + warmup_s
        self.end = self.start + seconds if seconds else None

    def holds(self, now):
        return now >= self.start and not self.over(now)

    def over(self, now):
        return self.end is not None and now > self.end


def _drive(wires, requests, span, keep):
    """What is answered within the span is counted; the rest is warm-up."""
    latencies, bodies, last, cpu_began_s = [], {}, span.start, None
    waiting = sum(wire.send(requests) for wire in wires)
    turns = _in_turn(wires)
    while waiting:
        wire = next(turns)
        body = wire.receive()
        if body is None:
            continue
        now = time.monotonic()
        if span.holds(now):
            cpu_began_s = time.process_time() if cpu_began_s is None else cpu_began_s
            latencies.append(now - wire.sent_at)
            last = now
            if keep:
                bodies[wire.number] = body
        if span.over(now) or not wire.send(requests):
            waiting -= 1
    cpu_s = time.process_time() - cpu_began_s if latencies else 0.0
    return np.array(latencies), span.start, last, cpu_s, bodies


def _work(pipe, together, target, requests, orders, warmup_s, seconds, keep):
    try:
        wires = [Wire(target, iter(order)) for order in orders]
        together.wait(TIMEOUT_S)
        pipe.send(_drive(wires, requests, Span(warmup_s, seconds), keep))
    except threading.BrokenBarrierError:
        pass  # another one failed, and says why
    except (client.Refused, client.Unreachable, OSError) as e:
        together.abort()
        lost = isinstance(e, OSError)
        pipe.send(client.Unreachable(f"no answer from {target.netloc}: {e}") if lost else e)
    except KeyboardInterrupt:
        pass
    finally:
        pipe.close()


def _endless(count, first):
    while True:
        yield from range(first, count)
        first = 0


def _orders(count, connections, rounds):
    """Which requests each connection sends."""
    if rounds is None:
        return [_endless(count, count * i // connections) for i in range(connections)]
    return [list(range(i, count, connections)) * rounds for i in range(connections)]


def run(target, requests, connections, seconds=None, rounds=None, warmup_s=0.0, keep=False):
    """Sends `requests` (bytes, whole) over so many connections: for so many seconds after the
    warm-up, or each request `rounds` times."""
    fork = multiprocessing.get_context("fork")
    processes = connections if target.secure else min(connections, os.cpu_count() or 1)
    orders = _orders(len(requests), connections, rounds)
    together = fork.Barrier(processes)
    workers = []
    for i in range(processes):
        ours, theirs = fork.Pipe(False)
        args = (theirs, together, target, requests, orders[i::processes], warmup_s, seconds, keep)
        process = fork.Process(target=_work, args=args, daemon=True)
        process.start()
        theirs.close()
        workers.append((process, ours))
    latencies, starts, lasts, cpu_s, bodies = zip(*_collect(workers))
    merged = {number: body for part in bodies for number, body in part.items()}
    took_s = seconds or max(lasts) - min(starts)
    return Result(np.concatenate(latencies), took_s, sum(cpu_s), merged)


def _collect(workers):
    """The result of each process; the first that failed ends it all."""
    results, failures = [], []
    for process, pipe in workers:
        try:
            result = pipe.recv()
            (failures if isinstance(result, Exception) else results).append(result)
        except EOFError:
            pass
        process.join()
    if failures:
        raise failures[0]
    if len(results) < len(workers):
        raise client.Unreachable("a client process ended without a result")
    return results
