"""What run.py measured, as a table and as a recall-QPS plot."""

MARKS = "os^vDP*X<>"
BUSY = 3


def _rate(value):
    return "-" if value is None else f"{value:,.0f}"


def _ratio(value, reference):
    return "-" if not value or not reference else f"{value / reference:.2f}"


def _effort_at(peer, target=0.95):
    """The first effort that reaches a recall, for its times."""
    return next((p for p in peer["points"] if p["recall"] >= target), peer["points"][-1])


def table(result):
    reference = result["peers"].get(result["reference"], {})
    batch = result["batch"]
    print(f"\n{result['set']}: queries a second at recall@{result['k']} (x {result['reference']})")
    one, many = "one query at a time", f"batches of {batch}"
    print(f"{'':16} {one:^46} | {many:^46} | {'us at .95':^15} | searchable, s |  bytes a vector")
    heads = "".join(f"{t:>9} {'x':>5}" for t in (".90", ".95", ".99"))
    print(
        f"{'':16}  {heads} |  {heads} | {'p50':>7} {'p99':>7} | {'wall':>7} {'cpu':>6} | {'memory':>8} {'disk':>6}"
    )
    for name, peer in sorted(result["peers"].items()):
        cells = []
        for kind in ("qps_at", "batch_qps_at"):
            base = reference.get(kind, {})
            rates = peer[kind].items()
            cells.append("".join(f"{_rate(v):>9} {_ratio(v, base.get(t)):>5}" for t, v in rates))
        at = _effort_at(peer)
        print(
            f"{name:16}  {cells[0]} |  {cells[1]} | {at['p50_us']:7.0f} {at['p99_us']:7.0f} |"
            f" {peer['searchable_s']:7.1f} {peer['build_cpu_s']:6.1f} | {peer['memory_per_vector']:8.0f}"
            f" {peer['disk_per_vector']:6.0f}"
        )
    for target, point in result["asked_for_recall"].items():
        less = f"; {point['less']:.4f} with less effort" if "less" in point else ""
        print(f"asked for recall {target}: {point['recall']:.4f} at ef {point['ef']}{less}")
    if result["load_average"] > BUSY:
        print(
            f"other work ran here too (load average {result['load_average']:.1f}): trust ratios only"
        )
    for name, why in sorted(result["absent"].items()):
        print(f"{name:16}  not measured: {why}")


def plot(result, folder):
    """Rate over recall, one query at a time, as a PNG; returns its path."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6))
    for i, (name, peer) in enumerate(sorted(result["peers"].items())):
        recall = [p["recall"] for p in peer["points"]]
        rate = [p["qps"] for p in peer["points"]]
        width = 2.5 if name.startswith("loadstone") else 1.2
        axes.plot(recall, rate, marker=MARKS[i % len(MARKS)], linewidth=width, label=name)
    axes.set_yscale("log")
    axes.set_xlabel(f"recall@{result['k']}")
    axes.set_ylabel("queries a second, one core")
    axes.set_title(f"{result['set']}: {result['rows']:,} x {result['dim']}")
    axes.grid(True, which="both", color="#e0e0e0")
    axes.legend()
    path = folder / f"{result['set']}.png"
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
    return path
