"""What a server tells of itself: numbers, lines and spans; and that none of them holds a word or a token."""

import itertools
import json
import logging
import urllib.request

import grpc
import numpy as np
import pytest
from grpc_status import rpc_status
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from ovperception.errors import InvalidParameter, Unavailable
from ovperception.images import encode_png
from ovperception.v1 import perceive_pb2 as pp
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.image_pb2 import Image
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.v1.vocabulary_pb2 import Vocabulary, VocabularySpec
from serving import Server, ServerConfig
from serving.logs import AccessLog, JSONFormatter
from serving.metrics import Metrics
from serving.telemetry import STAGES, CallRecord, infos
from serving.tracing import Tracing
from tests.serving.fake_model import FakeModel

PICTURE = np.full((40, 50, 3), 100, np.uint8)
SECRET = "a-word-of-somebody"


class Remember:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.records = []

    def observe(self, record):
        self.records.append(record)


@pytest.fixture
def watched(connect):
    """`(server, client, observer)` with metrics on."""
    observer = Remember()
    with Server([FakeModel()], ServerConfig(port=0, metrics_port=0), observers=[observer]) as server:
        yield server, connect(server), observer


def _scrape(server):
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as reply:
        text = reply.read().decode()
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name, *sorted(sample.labels.values())] = sample.value
    return text, samples


def test_metrics_count_calls_stages_and_what_is_held(watched):
    server, client, _ = watched
    for _ in range(3):
        client.detect(PICTURE, [SECRET])
    with pytest.raises(InvalidParameter):
        client.detect(PICTURE, [SECRET], score_threshold=2)
    client.encode(PICTURE)
    text, samples = _scrape(server)
    assert samples["ovp_requests_total", "DetectObjects", "OK"] == 3
    assert samples["ovp_requests_total", "DetectObjects", "INVALID_ARGUMENT"] == 1
    assert samples["ovp_request_seconds_count", "DetectObjects"] == 4
    for stage in STAGES:
        assert samples["ovp_stage_seconds_count", *sorted(("fake", stage))] == 4
    assert samples["ovp_stage_seconds_sum", "fake", "trunk"] == pytest.approx(4 * 0.002)  # as the fake says
    assert samples["ovp_encoded_images_total", "fake"] == 4
    assert samples["ovp_passes_total", "fake"] == pytest.approx(4)
    assert samples["ovp_pass_slots_total", "fake"] == pytest.approx(4 * 8)
    assert samples[("ovp_kept_scenes",)] == 1
    assert samples[("ovp_kept_scene_bytes",)] == 1000
    assert samples["ovp_in_work", "requests"] == 0
    assert samples["ovp_in_work_limit", "requests"] == 64
    assert samples["ovp_queue_depth", "images"] == 0
    assert samples["ovp_bytes_total", "in"] > 4 * 40
    assert samples["ovp_text_cache_texts", "disk", "fake"] == 3
    assert samples[("process_open_fds",)] > 0
    assert SECRET not in text


def test_time_is_told_behind_the_reply_too(watched):
    server, _, _ = watched
    with grpc.insecure_channel(server.address) as channel:
        spec = VocabularySpec(inline=Vocabulary(classes=[{"name": "cat"}]))
        image = Image(encoded=encode_png(PICTURE))
        request = pb.DetectObjectsRequest(image=image, vocabulary=spec)
        reply, call = PerceptionServiceStub(channel).DetectObjects.with_call(request)
        (told,) = [value for key, value in call.trailing_metadata() if key == "server-timing"]
        times = dict(part.split(";dur=") for part in told.split(", "))
        assert float(times["trunk"]) == pytest.approx(reply.info.timing.trunk_ms, abs=0.001)
        assert float(times["total"]) >= reply.info.timing.total_ms
        _, call = PerceptionServiceStub(channel).GetServerInfo.with_call(pb.GetServerInfoRequest())
        assert "server-timing" not in dict(call.trailing_metadata())


def test_time_is_told_behind_errors_and_streams_too(watched):
    server, _, _ = watched
    with grpc.insecure_channel(server.address) as channel:
        stub = PerceptionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.DetectObjects(pb.DetectObjectsRequest(model="none"))
        assert "server-timing" in dict(caught.value.trailing_metadata())
        assert rpc_status.from_call(caught.value).details  # as before
        config = pp.StreamConfig(outputs=[pp.PerceiveOutput(heatmap=pp.HeatmapOutput(text="cat"))])
        call = stub.StreamPerceive(iter([pp.StreamPerceiveRequest(config=config)]))
        assert [reply.WhichOneof("message") for reply in call] == ["accepted"]
        spent = dict(call.trailing_metadata())["server-timing"]
        assert float(spent.removeprefix("total;dur=")) > 0


def test_images_of_one_pass_make_one_pass():
    metrics = Metrics(max_batch=4)
    from ovperception.v1.results_pb2 import ModelInfo, ResultInfo, Timing

    info = ResultInfo(model=ModelInfo(name="m"), timing=Timing(batch_size=3, total_ms=5))
    for _ in range(3):
        metrics.observe(CallRecord(method="/a/B", replies=(info,)))
    read = metrics.registry.get_sample_value
    assert read("ovp_encoded_images_total", {"model": "m"}) == 3
    assert read("ovp_passes_total", {"model": "m"}) == pytest.approx(1)
    assert read("ovp_pass_slots_total", {"model": "m"}) == pytest.approx(4)


def test_what_is_shed_is_counted_by_reason():
    metrics = Metrics()
    for code, reason in (
        ("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"),
        ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
        ("CANCELLED", ""),
        ("INVALID_ARGUMENT", "INVALID_IMAGE"),
    ):
        metrics.observe(CallRecord(method="/a/B", code=code, reason=reason))
    counted = {
        sample.labels["reason"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "ovp_shed_total"
    }
    assert counted == {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"}


def test_a_port_of_metrics_in_use(watched):
    server, _, _ = watched
    with pytest.raises(Unavailable, match="metrics_port"):
        Metrics().start("127.0.0.1", server.metrics_port)


def test_records_name_who_and_how_but_not_what(watched):
    _, client, observer = watched
    client.detect(PICTURE, [SECRET])
    with pytest.raises(InvalidParameter):
        client.detect(PICTURE, [SECRET], score_threshold=2)
    good, bad = observer.records
    assert good.method == "/ovperception.v1.PerceptionService/DetectObjects"
    assert (good.code, len(good.replies), good.replies[0].image.width) == ("OK", 1, 50)
    assert good.request_id
    assert good.duration_ms >= good.replies[0].timing.total_ms > 0
    assert good.reply_bytes > 0
    assert (bad.code, bad.reason, bad.field) == ("INVALID_ARGUMENT", "INVALID_PARAMETER", "score_threshold")


def test_an_observer_that_fails_fails_no_call(serve, connect, caplog):
    class Broken:
        def observe(self, record):
            raise ZeroDivisionError

    with Server([FakeModel()], ServerConfig(port=0), observers=[Broken()]) as server:
        assert connect(server).detect(PICTURE, ["cat"])
    assert "Broken failed" in caplog.text


def test_a_line_of_json_for_each_call(connect, caplog):
    caplog.set_level(logging.INFO, "serving.access")
    with Server([FakeModel()], ServerConfig(port=0), observers=[AccessLog()]) as server:
        connect(server).detect(PICTURE, [SECRET])
        with pytest.raises(InvalidParameter):
            connect(server).detect(PICTURE, [SECRET], score_threshold=2)
    records = [record for record in caplog.records if record.name == "serving.access"]
    good, bad = (json.loads(JSONFormatter().format(record)) for record in records)
    assert (good["level"], good["code"], good["model"], good["width"]) == ("info", "OK", "fake", 50)
    assert good["timing_ms"]["trunk"] == 2
    assert good["request_bytes"] > 40
    assert (bad["code"], bad["field"]) == ("INVALID_ARGUMENT", "score_threshold")
    assert SECRET not in json.dumps([good, bad])


def test_a_bug_is_a_line_with_its_trace(serve, connect, caplog):
    model = FakeModel()
    model.embed_text = None
    with pytest.raises(Exception, match="its log says why"):
        connect(serve(model)).embed_text(["cat"])
    (record,) = [record for record in caplog.records if record.exc_info]
    line = json.loads(JSONFormatter().format(record))
    assert line["level"] == "error"
    assert "TypeError" in line["trace"]


def test_spans_follow_the_caller_and_hold_the_stages(watched):
    _, client, observer = watched
    client.detect(PICTURE, [SECRET])
    record = observer.records[0]
    record.trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    exporter = InMemorySpanExporter()
    tracing = Tracing("", exporter=exporter)
    tracing.observe(record)
    tracing.close()
    *stages, call = exporter.get_finished_spans()
    assert call.name == "ovperception.v1.PerceptionService/DetectObjects"
    assert (call.context.trace_id, call.parent.span_id) == (int("a" * 32, 16), int("b" * 16, 16))
    assert call.end_time - call.start_time == int(1e6 * record.duration_ms)
    names = [span.name for span in stages]
    assert {"trunk", "head", "classify"} <= set(names)
    assert names == [name for name in STAGES if name in names]
    for before, after in itertools.pairwise(stages):
        assert before.end_time == after.start_time
    assert all(span.parent.span_id == call.context.span_id for span in stages)
    assert SECRET not in "".join(span.to_json() for span in exporter.get_finished_spans())


def test_infos_of_every_kind_of_reply():
    from ovperception.v1 import perceive_pb2 as pp
    from ovperception.v1 import perception_service_pb2 as pb
    from ovperception.v1.results_pb2 import ResultInfo

    info = ResultInfo(request_id="x")
    result = pp.PerceiveResult(info=info)
    assert list(infos(pb.DetectObjectsResponse(info=info))) == [info]
    items = [pp.BatchItemResult(result=result), pp.BatchItemResult(error={"code": 3})]
    assert list(infos(pp.BatchPerceiveResponse(items=items))) == [info]
    assert list(infos(pp.StreamPerceiveResponse(result=result))) == [info]
    assert list(infos(pp.StreamPerceiveResponse(dropped={}))) == []
    assert list(infos(pb.ForgetImageResponse())) == []


def test_what_is_no_message_is_the_callers_mistake(serve):
    server = serve()
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/ovperception.v1.PerceptionService/DetectObjects")(b"\xff\xff\xff", timeout=5)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
