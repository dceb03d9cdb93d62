"""What the user sees: headings, progress with rate and time left, tables.

On a terminal a bar is redrawn in place; elsewhere (a log, a pipe) one line says what begins and one
what came of it, with a line in between every ten seconds.
"""

import shutil
import sys
import threading
import time

REDRAW_S, LINE_S = 0.1, 10.0


def heading(text):
    print(f"\n== {text}", flush=True)


def note(text):
    print(f"   {text}", flush=True)


def duration(seconds):
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


class Progress:
    """Work of a known size: advance(n) or reach(done), from any thread; close it with a `with`
    statement. `items` (a number, a name) are what the size stands for, when it is in bytes."""

    def __init__(self, label, total, unit="", scale=1, items=None):
        self.label, self.total, self.unit, self.scale = label, max(total, 1), unit, scale
        self.items, self.lock = items, threading.RLock()
        self.done, self.eta_s = 0, None
        self.terminal = sys.stdout.isatty()
        self.started = self.drawn = time.monotonic()
        if not self.terminal:
            note(f"{label} ...")

    def __enter__(self):
        return self

    def __exit__(self, kind, _value, _trace):
        if self.terminal:
            sys.stdout.write("\r\x1b[K")
        if kind is None:
            note(f"{self.label}: {duration(self.seconds())}{self._rate()}")

    def seconds(self):
        return time.monotonic() - self.started

    def advance(self, n):
        with self.lock:
            self.reach(self.done + n)

    def note(self, text):
        """A line of its own above the bar."""
        with self.lock:
            if self.terminal:
                sys.stdout.write("\r\x1b[K")
            note(text)

    def reach(self, done, eta_s=None):
        """`eta_s` when someone knows better than the rate so far."""
        with self.lock:
            self.done, self.eta_s = done, eta_s
            now = time.monotonic()
            if now - self.drawn >= (REDRAW_S if self.terminal else LINE_S):
                self.drawn = now
                self._draw()

    def _rate(self):
        if not self.unit or self.seconds() <= 0:
            return ""
        return f" ({self.done / self.scale / self.seconds():,.0f} {self.unit}/s)"

    def _left(self):
        eta = self.eta_s
        if eta is None and self.done:
            eta = self.seconds() * (self.total - self.done) / self.done
        return "" if eta is None else f", {duration(eta)} left"

    def _draw(self):
        share = min(self.done / self.total, 1)
        items = f" {share * self.items[0]:,.0f} {self.items[1]}" if self.items else ""
        text = f"{share:4.0%}{items}{self._rate()}{self._left()}"
        if not self.terminal:
            note(f"{self.label}: {text}")
            return
        width = shutil.get_terminal_size().columns
        bar = "#" * int(share * 24)
        line = f"   {self.label} [{bar:<24}] {text}"
        sys.stdout.write("\r" + line[: width - 1] + "\x1b[K")
        sys.stdout.flush()


def _cell(value, width, right):
    text = "-" if value is None else str(value)
    text = text if len(text) <= width else text[: width - 1] + "~"
    return f"{text:>{width}}" if right else f"{text:<{width}}"


def _fit(columns):
    """The last column gives way on a narrow terminal, down to 16."""
    room = shutil.get_terminal_size((120, 24)).columns - 4
    taken = sum(width + 2 for _, width, _ in columns[:-1])
    title, width, right = columns[-1]
    return [*columns[:-1], (title, max(min(width, room - taken), 16), right)]


def row(columns, cells):
    """One line of a table that grows while its figures are found."""
    fitted = (_cell(v, w, r) for v, (_, w, r) in zip(cells, columns))
    print("   " + "  ".join(fitted).rstrip(), flush=True)


def table(columns, rows):
    """columns: (title, width, right-aligned). Longer cells are cut (~); None is a dash."""
    if not columns[-1][2]:
        columns = _fit(columns)
    for cells in ([title for title, _, _ in columns], *rows):
        row(columns, cells)
