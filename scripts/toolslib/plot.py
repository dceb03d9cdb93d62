"""The curves of a measurement as a PNG: recall against throughput, and against latency."""

import math

COLOURS = ("#1f5fa8", "#d1495b", "#2e8b57", "#e08e1b", "#7a4fa3", "#5b6770", "#00a0a8", "#a0522d")
DPI, NAME_WIDTH, NAME_HEIGHT, TICK_GAP = 130, 62, 14, 0.07


class NoMatplotlib(Exception):
    """A sentence that says how to get it."""


def _matplotlib():
    try:
        import matplotlib
    except ImportError as e:
        raise NoMatplotlib(
            "--png needs matplotlib: apt-get install python3-matplotlib (for /usr/bin/python3), or "
            "pip install matplotlib; without --png everything else works"
        ) from e
    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def check():
    """Says so before anything is measured."""
    _matplotlib()


def _curves(points):
    """Points by concurrency, each in the order of its recall."""
    curves = {}
    for point in points:
        curves.setdefault(point["concurrency"], []).append(point)
    return {c: sorted(ps, key=lambda p: (p["recall"], -p["qps"])) for c, ps in curves.items()}


def _frame(axes, title, x, y):
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_yscale("log")
    axes.grid(True, which="major", color="#d9d9d9", linewidth=0.8)
    axes.grid(True, which="minor", axis="y", color="#eeeeee", linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _plain_ticks(axes):
    """1,000 in place of 10^3, and ticks between the powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.4g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


class RecallAxis:
    """Recall on the scale of what is missed: from .9 to .99 is as far as from .99 to .999. A recall
    of 1 lies where half a hit would be missed."""

    TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)

    def __init__(self, report):
        self.missed_min = 0.5 / (report["queries"]["count"] * report["k"])
        places = [self.place(p["recall"]) for p in report["points"]]
        self.low, self.high = min(places) - 0.1, max(places) + 0.1

    def place(self, recall):
        return -math.log10(max(1 - recall, self.missed_min))

    def share(self, recall):
        return (self.place(recall) - self.low) / (self.high - self.low)

    def apply(self, axes):
        axes.set_xlim(self.low, self.high)
        ticks = self._ticks()
        axes.set_xticks([self.place(t) for t in ticks], [f"{t:g}" for t in ticks])

    def _ticks(self):
        """Those within the axis, the rightmost first, with room for their numbers."""
        ticks, last = [], self.high + (self.high - self.low)
        for tick in (1.0, *reversed(self.TICKS)):
            place = self.place(tick)
            if self.low <= place <= self.high and last - place > TICK_GAP * (self.high - self.low):
                ticks.append(tick)
                last = place
        return ticks


def _name_points(axes, recall, points):
    """The efforts beside their points, to the left of the last ones, as far as they don't cover
    each other."""
    named = []
    for point in points:
        at = (recall.place(point["recall"]), point["qps"])
        x, y = axes.transData.transform(at)
        if any(abs(x - a) < NAME_WIDTH and abs(y - b) < NAME_HEIGHT for a, b in named):
            continue
        named.append((x, y))
        inside = recall.share(point["recall"]) < 0.85
        axes.annotate(
            point["name"],
            at,
            fontsize=8,
            color="#555555",
            xytext=(5, 5) if inside else (3, 8),
            ha="left" if inside else "right",
            textcoords="offset points",
        )


def write(path, report):
    """`report` is what recall_latency.py writes as JSON."""
    pyplot = _matplotlib()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained")
    title = f"recall@{report['k']}"
    _frame(left, "Throughput (up and right is better)", title, "queries per second")
    _frame(right, "Latency (down and right is better)", title, "milliseconds")
    recall, curves = RecallAxis(report), _curves(report["points"])
    for i, (concurrency, points) in enumerate(curves.items()):
        style = {"color": COLOURS[i % len(COLOURS)]}
        x = [recall.place(p["recall"]) for p in points]
        label = f"{concurrency} connection{'s' if concurrency > 1 else ''}"
        left.plot(x, [p["qps"] for p in points], "o-", ms=4, label=label, **style)
        p50, p99 = ([p[name] for p in points] for name in ("p50_ms", "p99_ms"))
        right.plot(x, p50, "o-", ms=4, label=f"{label}, p50", **style)
        right.plot(x, p99, "s--", ms=3, lw=1, label=f"{label}, p99", **style)
    for axes in (left, right):
        recall.apply(axes)
        _plain_ticks(axes)
    left.legend(fontsize=8, frameon=False, loc="lower left")
    right.legend(fontsize=8, framealpha=0.8, edgecolor="none", loc="best")
    figure.suptitle(report["title"], fontsize=12)
    figure.canvas.draw()
    _name_points(left, recall, max(curves.values(), key=lambda ps: ps[-1]["qps"]))
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)
