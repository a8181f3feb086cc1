"""``ovp bench``: what it counts, what it does not leave out, and its two reports side by side."""

import json
import threading
import time
from types import SimpleNamespace

import grpc
import pytest

from ovperception.cli import main
from ovperception.errors import InvalidParameter, Unavailable
from serving import Server, ServerConfig
from serving.bench import run
from serving.bench_load import Load, Sample, open_loop
from serving.bench_plan import Plan, requests_of
from serving.bench_report import summary
from serving.stub_model import StubModel, expected_score
from tests.serving.fake_model import FakeModel

QUICK = {"duration_s": 0.3, "warm_up_s": 0.0, "sizes": ((32, 24),), "classes": 2}


@pytest.fixture(scope="module")
def stub():
    with Server([StubModel(pass_ms=2)], ServerConfig(port=0, max_client_requests=64)) as server:
        yield server


def _samples(latencies, **rest):
    return [Sample(due_s=0.1 * i, latency_ms=ms, **rest) for i, ms in enumerate(latencies)]


def test_a_summary_by_hand():
    good = _samples(range(1, 101), batch_size=4, stages_ms={"trunk": 2.0}, reply_bytes=10)
    found = summary([*good, *_samples([3], code="RESOURCE_EXHAUSTED")], duration_s=20, max_batch=8)
    assert found["requests"] == 101
    assert found["codes"] == {"OK": 100, "RESOURCE_EXHAUSTED": 1}
    assert found["goodput_per_s"] == 5
    assert found["latency_ms"] == {"p50": 50.5, "p95": 95.05, "p99": pytest.approx(99.01), "max": 100}
    assert found["refusal_ms"]["p50"] == 3
    assert found["stages_ms"]["trunk"]["p99"] == 2
    assert (found["mean_batch"], found["batch_fill"]) == (4, 0.5)


def test_answers_that_come_after_the_end_do_not_make_a_server_faster():
    assert summary(_samples([10_000]), duration_s=1)["goodput_per_s"] == pytest.approx(0.1)


def test_nothing_answered():
    found = summary(_samples([1, 2], code="UNAVAILABLE"), duration_s=1)
    assert (found["goodput_per_s"], found["latency_ms"], found["mean_batch"]) == (0, None, 0)


@pytest.mark.parametrize("kind", [{"concurrency": 3}, {"concurrency": 0, "rate": 60.0}])
def test_loads_of_each_kind(stub, kind):
    report = run(Plan(**QUICK, vocabularies=3, **kind), stub.address, max_batch=8)
    result = report["result"]
    assert set(result["codes"]) == {"OK"}
    assert result["goodput_per_s"] > 5
    assert result["stages_ms"]["trunk"]["p50"] == 2
    assert 1 <= result["mean_batch"] <= 8
    assert result["latency_ms"]["p50"] >= 2
    assert report == json.loads(json.dumps(report))


def test_an_open_loop_counts_from_when_a_request_was_due():
    """A server that stalls once makes every request late that was due meanwhile."""
    model = FakeModel()
    requests = requests_of(Plan(**QUICK))
    with Server([model], ServerConfig(port=0)) as server, grpc.insecure_channel(server.address) as channel:
        load = Load(channels=[channel], requests=requests, duration_s=0.6)
        model.hold()
        release = threading.Timer(0.5, model.release)
        release.start()
        samples = open_loop(load, rate=50)
        release.join()
    assert len(samples) > 10
    early = [sample for sample in samples if sample.due_s < 0.4]
    assert early
    assert all(sample.latency_ms > 1e3 * (0.45 - sample.due_s) for sample in early)


def test_an_open_loop_counts_what_it_was_too_slow_to_send(monkeypatch):
    """The sender sleeps through; what it sends late was due before."""
    from serving import bench_load

    class Late:
        def future(self, request, timeout, metadata):
            reply = SimpleNamespace(info=bench_load.results_pb2.ResultInfo(), ByteSize=lambda: 1)
            return SimpleNamespace(
                result=lambda: reply,
                add_done_callback=lambda note: note(SimpleNamespace(result=lambda: reply)),
            )

    monkeypatch.setattr(bench_load, "PerceptionServiceStub", lambda _: SimpleNamespace(DetectObjects=Late()))
    monkeypatch.setattr(
        bench_load, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: time.sleep(0.3))
    )
    samples = open_loop(Load(channels=[None], requests=[None], duration_s=0.2), rate=100)
    assert min(sample.latency_ms for sample in samples) > 90


def test_pictures_and_words_are_all_paired():
    plan = Plan(sizes=((32, 24), (64, 48)), vocabularies=3, classes=2)
    requests = requests_of(plan)
    assert len({request.SerializeToString() for request in requests}) == 6
    assert [r.SerializeToString() for r in requests_of(plan)] == [r.SerializeToString() for r in requests]


def test_a_stub_answers_by_the_words(stub, connect):
    import numpy as np

    found = connect(stub).detect(np.zeros((64, 64, 3), np.uint8), ["cat", "dog"])
    assert found.scores.tolist() == [expected_score("cat"), expected_score("dog")]
    assert len(found.masks) == 2


@pytest.mark.parametrize("wrong", [{"rate": 1.0}, {"concurrency": 0}, {"classes": 0}, {"duration_s": 0}])
def test_plans_are_checked(wrong):
    with pytest.raises(InvalidParameter):
        Plan(**wrong)


def test_nobody_there():
    with pytest.raises(Unavailable, match="does not answer"):
        run(Plan(**QUICK), "127.0.0.1:1")


def test_the_command_and_two_reports(stub, tmp_path, capfd):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    command = ["bench", "--duration", "0.2", "--warm-up", "0", "--sizes", "32x24", "--server", stub.address]
    assert main([*command, "--out", str(first)]) == 0
    assert "answers/s" in capfd.readouterr().out
    assert main([*command, "--concurrency", "2", "--out", str(second), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["plan"]["concurrency"] == 2
    assert main(["bench", "compare", str(first), str(second)]) == 0
    out = capfd.readouterr().out
    assert "latency_ms p99" in out
    assert "plan concurrency: 8 and 2" in out
    assert main(["bench", "compare", str(first), str(tmp_path / "none")]) == 2
    assert main(["bench", "--sizes", "large"]) == 2


def test_a_server_of_its_own(capfd):
    assert (
        main(["bench", "--duration", "0.2", "--warm-up", "0", "--sizes", "32x24", "--stub-ms", "1", "--json"])
        == 0
    )
    result = json.loads(capfd.readouterr().out)["result"]
    assert set(result["codes"]) == {"OK"}
    assert 0 < result["batch_fill"] <= 1
