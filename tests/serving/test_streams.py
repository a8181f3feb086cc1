"""Streams against a real server: one reply for every frame, in order, with the words of its time."""

import queue
import threading
import time

import grpc
import numpy as np
import pytest
from grpc_status import rpc_status

from ovperception.errors import InvalidInput
from ovperception.images import encode_png
from ovperception.v1 import image_pb2 as im
from ovperception.v1 import perceive_pb2 as pb
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.v1.vocabulary_pb2 import Vocabulary as VocabularyMessage
from ovperception.v1.vocabulary_pb2 import VocabularySpec
from ovperception.wire_errors import error_of
from tests.serving.fake_model import POISON, FakeModel

PICTURE = np.full((40, 50, 3), 100, np.uint8)
PNG = encode_png(PICTURE)
DETECT = [pb.PerceiveOutput(detect={})]


def _words(*names):
    return VocabularySpec(inline=VocabularyMessage(classes=[{"name": name} for name in names]))


class _Caller:
    """A stream written by hand, as somebody with other stubs would."""

    def __init__(self, server, **config):
        self.channel = grpc.insecure_channel(server.address)
        self.requests = queue.Queue()
        self.call = PerceptionServiceStub(self.channel).StreamPerceive(iter(self.requests.get, None))
        config = {"vocabulary": _words("cat"), "outputs": DETECT, **config}
        self.requests.put(pb.StreamPerceiveRequest(config=pb.StreamConfig(**config)))

    def frame(self, sequence, data=PNG):
        frame = pb.StreamFrame(sequence=sequence, image=im.Image(encoded=data))
        self.requests.put(pb.StreamPerceiveRequest(frame=frame))

    def update(self, sequence, **changes):
        update = pb.StreamUpdate(from_sequence=sequence, **changes)
        self.requests.put(pb.StreamPerceiveRequest(update=update))

    def end(self):
        self.requests.put(None)

    def next(self):
        return next(self.call)


@pytest.fixture
def stream(serve, model):
    callers = []

    def open_stream(server=None, **config):
        callers.append(_Caller(server or serve(model), **config))
        return callers[-1]

    yield open_stream
    for caller in callers:
        caller.end()
        caller.call.cancel()
        caller.channel.close()


def _kind(reply):
    return reply.sequence, reply.WhichOneof("message")


def test_a_configuration_then_a_reply_for_every_frame(stream):
    caller = stream(max_in_flight=99, overload_policy="OVERLOAD_POLICY_BLOCK")
    accepted = caller.next().accepted
    assert accepted.max_in_flight == 16
    assert accepted.model.name == "fake"
    assert [entry.name for entry in accepted.classes] == ["cat"]
    assert accepted.vocabulary.handle.startswith("vocabularies/sha256-")
    for sequence in range(1, 40):
        caller.frame(sequence)
    caller.end()
    replies = list(caller.call)
    assert [_kind(reply) for reply in replies] == [(i, "result") for i in range(1, 40)]
    info = replies[-1].result.info
    assert info.timing.total_ms > 0
    assert info.timing.batch_size > 0
    assert info.model.weights_digest == "0" * 64
    assert len(replies[0].result.answers[0].objects.detections) == 1


def test_a_bad_frame_does_not_end_the_stream(stream):
    caller = stream(overload_policy="OVERLOAD_POLICY_BLOCK")
    caller.next()
    poison = PICTURE.copy()
    poison[0, 0, 0] = POISON
    for sequence, data in ((1, PNG), (2, b"GIF89a"), (3, encode_png(poison)), (4, PNG), (9, b"")):
        caller.frame(sequence, data)
    caller.end()
    replies = list(caller.call)
    kinds = {1: "result", 2: "error", 3: "error", 4: "result", 9: "error"}
    assert [_kind(reply) for reply in replies] == list(kinds.items())
    assert replies[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert len(replies[1].error.details) == 2


def test_words_change_at_the_stated_frame(stream, model):
    """100 times, far ahead of the answers, and no frame gets other words than its own."""
    caller = stream(vocabulary=_words("word 0"), overload_policy="OVERLOAD_POLICY_BLOCK", max_in_flight=8)
    caller.next()

    def send():
        for swap in range(1, 101):
            caller.frame(3 * swap - 2)
            caller.frame(3 * swap - 1)
            caller.update(3 * swap, vocabulary=_words(f"word {swap}", "other"))
            caller.frame(3 * swap)
        caller.end()

    threading.Thread(target=send, daemon=True).start()
    results = 0
    for reply in caller.call:
        if reply.WhichOneof("message") == "accepted":
            assert reply.accepted.classes[0].name == f"word {reply.sequence // 3}"
            continue
        results += 1
        assert reply.result.classes[0].name == f"word {reply.sequence // 3}", reply.sequence
    assert results == 300


def test_outputs_change_too_and_bad_changes_change_nothing(stream):
    caller = stream(overload_policy="OVERLOAD_POLICY_BLOCK")
    caller.next()
    caller.frame(5)
    caller.update(5, vocabulary=_words("dog"))
    caller.update(7, vocabulary=_words(" "))
    caller.update(7, outputs=[pb.PerceiveOutput(panoptic={}), pb.PerceiveOutput(heatmap={"text": "x"})])
    caller.frame(6)
    caller.frame(7)
    caller.end()
    replies = list(caller.call)
    kinds = [(5, "result"), (5, "error"), (7, "error"), (7, "accepted"), (6, "result"), (7, "result")]
    assert [_kind(reply) for reply in replies] == kinds
    assert [a.WhichOneof("answer") for a in replies[-1].result.answers] == ["panoptic", "heatmap"]
    assert replies[-1].result.classes[0].name == "cat"


def test_the_newest_frame_is_answered_when_frames_come_too_fast(stream, model):
    caller = stream(max_in_flight=1)
    caller.next()
    model.hold()
    caller.frame(1)
    assert model.busy.wait(10)
    for sequence in range(2, 5):
        caller.frame(sequence)
    time.sleep(0.3)
    model.release()
    caller.end()
    kinds = [_kind(reply) for reply in caller.call]
    assert kinds == [(1, "result"), (2, "dropped"), (3, "dropped"), (4, "result")]


def test_the_oldest_frames_are_answered_with_drop_newest(stream, model):
    caller = stream(max_in_flight=1, overload_policy="OVERLOAD_POLICY_DROP_NEWEST")
    caller.next()
    model.hold()
    caller.frame(1)
    assert model.busy.wait(10)
    caller.frame(2)
    caller.frame(3)
    time.sleep(0.3)
    model.release()
    caller.end()
    replies = list(caller.call)
    assert [_kind(reply) for reply in replies] == [(1, "result"), (2, "dropped"), (3, "dropped")]
    assert replies[1].dropped.reason == pb.DROP_REASON_NO_ROOM


def test_a_frame_that_waits_too_long_is_dropped(stream, model):
    caller = stream(max_in_flight=1, frame_timeout={"nanos": 200_000_000})
    caller.next()
    model.hold()
    caller.frame(1)
    reply = caller.next()
    assert _kind(reply) == (1, "dropped")
    assert reply.dropped.reason == pb.DROP_REASON_TOO_LATE
    model.release()


@pytest.mark.parametrize("policy", ["DROP_OLDEST", "BLOCK"])
def test_a_reader_who_does_not_read_costs_bounded_memory(serve, stream, model, policy):
    server = serve(model)
    outputs = [pb.PerceiveOutput(heatmap=pb.HeatmapOutput(text="cat"))]
    caller = stream(server, max_in_flight=2, overload_policy=f"OVERLOAD_POLICY_{policy}", outputs=outputs)
    caller.next()
    noise = np.random.default_rng(0).integers(20, 255, (300, 300, 3), np.uint8)  # replies of 100 kB or more
    picture, sent = encode_png(noise), 100
    frames = range(1, sent + 1)
    sender = threading.Thread(target=lambda: [caller.frame(i, picture) for i in frames], daemon=True)
    sender.start()
    taken = -1
    while taken < (taken := sum(map(len, model.batches))):  # until what nobody reads has filled the way
        time.sleep(0.7)
    assert taken < sent / 2
    sender.join(20)
    caller.end()
    assert [reply.sequence for reply in caller.call] == list(frames)


def test_leaving_frees_everything(serve, stream, model):
    server = serve(model, max_live_streams=1)
    caller = stream(server)
    caller.next()
    model.hold()
    for sequence in range(1, 5):
        caller.frame(sequence)
    assert model.busy.wait(10)
    caller.call.cancel()
    model.release()
    end = time.monotonic() + 10
    while server._engine.admission._used["requests"]:
        assert time.monotonic() < end
        time.sleep(0.01)
    while _refused(stream(server)):  # until its place is free again
        assert time.monotonic() < end


def _refused(caller):
    try:
        return caller.next().WhichOneof("message") != "accepted"
    except grpc.RpcError as error:
        return error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_only_so_many_streams(serve, stream):
    server = serve(FakeModel(), max_live_streams=1)
    first = stream(server)
    first.next()
    with pytest.raises(grpc.RpcError) as caught:
        stream(server).next()
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"outputs": []}, "INVALID_ARGUMENT"),
        ({"outputs": [pb.PerceiveOutput()]}, "INVALID_ARGUMENT"),
        ({"vocabulary": None}, "INVALID_ARGUMENT"),
        ({"model": "none"}, "NOT_FOUND"),
        ({"overload_policy": 77}, "INVALID_ARGUMENT"),
        ({"frame_timeout": {"seconds": -1}}, "INVALID_ARGUMENT"),
        ({"vocabulary": VocabularySpec(name="vocabularies/gone")}, "NOT_FOUND"),
    ],
)
def test_a_bad_configuration_is_refused(stream, config, code):
    with pytest.raises(grpc.RpcError) as caught:
        stream(**config).next()
    assert caught.value.code().name == code


def test_a_stream_that_does_not_keep_the_rules_ends(stream, serve, model):
    server = serve(model)
    caller = stream(server)
    caller.next()
    caller.frame(3)
    caller.frame(3)
    assert _kind(caller.next()) == (3, "result")
    with pytest.raises(grpc.RpcError) as caught:
        caller.next()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    requests = iter([pb.StreamPerceiveRequest(frame=pb.StreamFrame(sequence=1))])
    with pytest.raises(grpc.RpcError) as caught:
        list(PerceptionServiceStub(caller.channel).StreamPerceive(requests))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert list(PerceptionServiceStub(caller.channel).StreamPerceive(iter([]))) == []


def test_what_is_no_message_ends_the_stream_by_its_name(serve):
    config = pb.StreamPerceiveRequest(config=pb.StreamConfig(vocabulary=_words("cat"), outputs=DETECT))
    with grpc.insecure_channel(serve().address) as channel:
        method = channel.stream_stream("/ovperception.v1.PerceptionService/StreamPerceive")
        call = method(iter([config.SerializeToString(), b"\xff" * 9]), timeout=20)
        assert pb.StreamPerceiveResponse.FromString(next(call)).WhichOneof("message") == "accepted"
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
    assert isinstance(error_of(rpc_status.from_call(caught.value)), InvalidInput)


def test_a_frame_takes_room_as_it_came(serve, stream, model):
    server = serve(model)
    caller = stream(server)
    caller.next()
    model.hold()
    caller.frame(1)
    assert model.busy.wait(10)
    frame = pb.StreamFrame(sequence=1, image=im.Image(encoded=PNG))
    assert server.engine.admission.used["bytes"] == len(
        pb.StreamPerceiveRequest(frame=frame).SerializeToString()
    )
    model.release()
    assert caller.next().WhichOneof("message") == "result"
