"""Numbers for Prometheus, counted by hand and beside its own library."""

import threading

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from serving.tallies import Tallies

BOUNDS = (0.001, 0.01, 0.5, 1, 30)
TIMES = (0.0, 0.001, 0.0011, 0.3, 1.0, 31.0)


def _numbers(registry):
    lines = generate_latest(registry).decode().splitlines()
    return sorted(line for line in lines if "_created" not in line)


def test_they_read_as_the_library_s_own():
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    calls = Counter("calls", "Calls.", ["method", "code"], registry=theirs)
    seconds = Histogram("seconds", "Time.", ["method"], registry=theirs, buckets=BOUNDS)
    tallies = Tallies()
    ours.register(tallies)
    our_calls = tallies.counts("calls", "Calls.", ["method", "code"])
    our_seconds = tallies.histograms("seconds", "Time.", ["method"], BOUNDS)
    for index, time_s in enumerate(TIMES):
        labels = ("A", str(index % 2))
        calls.labels(*labels).inc(1.5)
        seconds.labels("A").observe(time_s)
        our_calls.add(labels, 1.5)
        our_seconds.add(("A",), time_s)
    assert _numbers(ours) == _numbers(theirs)
    assert any('le="0.5",method="A"} 4.0' in line for line in _numbers(ours))


def test_nothing_is_lost_between_threads():
    tallies = Tallies()
    counts = tallies.counts("calls", "Calls.", ["method"])

    def count():
        for _ in range(2000):
            with tallies.lock:
                counts.add(("A",))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        list(tallies.collect())
    (family,) = tallies.collect()
    assert [sample.value for sample in family.samples] == [pytest.approx(8000)]
