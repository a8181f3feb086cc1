"""A few seconds of the soak in benchmarks/, which runs for minutes there."""

import importlib.util

from tests.conftest import ROOT


def _soak():
    spec = importlib.util.spec_from_file_location("soak", ROOT / "benchmarks" / "soak.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_hostile_traffic_leaves_nothing_behind():
    report = _soak().soak(4.0, clients=4)
    assert report["problems"] == []
    assert {line.split()[0] for line in report["by_habit"]} >= {"good", "fuzzed"}
    assert report["by_habit"]["good OK"] > 5


def test_what_is_left_behind_is_told():
    soak = _soak()
    clean = {"rss_mb": 100.0, "files": 9, "threads": 5, "slots": {"requests": 0}, "queues": {"images": 0}}
    assert soak.grown(clean, clean) == []
    dirty = {"rss_mb": 300.0, "files": 99, "threads": 50, "slots": {"requests": 1}, "queues": {"images": 2}}
    assert len(soak.grown(clean, dirty)) == 5
