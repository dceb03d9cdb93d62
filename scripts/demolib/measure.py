"""Recall of the index against exact search, and how long answers take.

A hit counts when it is at least as near as the last exact one: among packages with the same text
any choice is right (toolslib/stats.py).
"""

import random
import time

from toolslib import stats

SAMPLE = 200
K = 10
EFFORTS = (16, 64, 128, 512)


class Answers:
    """The answers to the sample at one effort, one request at a time on one connection."""

    def __init__(self, collection, keys, progress, **effort):
        self.distances, self.round_trip_us, self.took_us = [], [], []
        for key in keys:
            started = time.perf_counter()
            answer = collection.search(key=key, k=K, **effort)
            self.round_trip_us.append((time.perf_counter() - started) * 1e6)
            self.took_us.append(answer["took_us"])
            self.distances.append([hit["distance"] for hit in answer["hits"][0]])
            progress.advance(1)

    def recall(self, exact):
        kth = [right[-1] if right else None for right in exact.distances]
        return stats.recall(self.distances, kth, [len(right) for right in exact.distances])


def sample_keys(keys):
    return random.Random(7).sample(keys, min(SAMPLE, len(keys)))
