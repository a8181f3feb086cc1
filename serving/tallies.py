"""Counters and histograms that are cheap to count in, and told to Prometheus when it asks.

Its library's own take a lock for each number, at ten microseconds for one histogram; a call counts in a dozen
numbers, and holds Python's lock meanwhile. Here a call takes one lock for all of them.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["Counts", "Histograms", "Tallies"]

Labels = tuple[str, ...]


class Counts:
    """Sums by their labels; `Tallies.lock` is held to add to them."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._told = (name, text, tuple(labels))
        self._sums: dict[Labels, float] = {}

    def add(self, labels: Labels, amount: float = 1.0) -> None:
        """Add to the sum of these labels."""
        self._sums[labels] = self._sums.get(labels, 0.0) + amount

    def tell(self) -> Metric:
        """As Prometheus has it."""
        name, text, names = self._told
        family = CounterMetricFamily(name, text, labels=names)
        for labels, total in self._sums.items():
            family.add_metric(labels, total)
        return family


class Histograms:
    """Seconds by their labels, in buckets; `Tallies.lock` is held to add to them."""

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._told = (name, text, tuple(labels))
        self._bounds = tuple(bounds)
        self._counts: dict[Labels, list[int]] = {}  # in each bucket, and beyond the last
        self._sums: dict[Labels, float] = {}

    def add(self, labels: Labels, seconds: float) -> None:
        """One more duration with these labels."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self._bounds, seconds)] += 1
        self._sums[labels] += seconds

    def add_each(self, labels: Sequence[Labels], durations: Sequence[float]) -> None:
        """One more duration for each of some labels; as `add`, at half the price."""
        counts, sums, bounds = self._counts, self._sums, self._bounds
        for some, seconds in zip(labels, durations, strict=True):
            if some in sums:
                counts[some][bisect_left(bounds, seconds)] += 1
                sums[some] += seconds
            else:
                self.add(some, seconds)

    def tell(self) -> Metric:
        """As Prometheus has it: each bucket holds those below it as well."""
        name, text, names = self._told
        family = HistogramMetricFamily(name, text, labels=names)
        bounds = (*(str(float(bound)) for bound in self._bounds), "+Inf")
        for labels, counts in self._counts.items():
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            family.add_metric(labels, buckets, self._sums[labels])
        return family


class Tallies(Collector):
    """Counters and histograms under one lock.

    Attributes:
        lock: To be held while any of them is added to.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._all: list[Counts | Histograms] = []

    def counts(self, name: str, text: str, labels: Sequence[str]) -> Counts:
        """A new counter; Prometheus will call it ``NAME_total``."""
        made = Counts(name, text, labels)
        self._all.append(made)
        return made

    def histograms(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> Histograms:
        """A new histogram whose buckets end at `bounds` seconds."""
        made = Histograms(name, text, labels, bounds)
        self._all.append(made)
        return made

    def collect(self) -> Iterator[Metric]:
        """What was counted so far."""
        with self.lock:
            told = [some.tell() for some in self._all]
        yield from told
