"""Recall and percentiles as the field counts them."""

TIE = 1e-3
ROUNDING = 1e-6  # of distances near 0, in float32


def percentiles(values, wanted=(0.50, 0.95, 0.99)):
    ordered = sorted(values)
    return [ordered[min(int(len(ordered) * q), len(ordered) - 1)] for q in wanted]


def reach(kth_distance):
    """How far a hit may lie and still count: the true k-th distance and 1e-3 of it, so that among
    rows equally far (or nearly so) any choice is right."""
    return kth_distance + TIE * abs(kth_distance) + ROUNDING


def recall(found, kth_distances, wanted):
    """found: per query the distances of its hits, each row counted once; kth_distances: per query
    the distance of the last true neighbour; wanted: per query how many there are."""
    hits = asked = 0
    for distances, kth, n in zip(found, kth_distances, wanted):
        asked += n
        if n:
            hits += min(sum(d <= reach(kth) for d in distances), n)
    return hits / max(asked, 1)
