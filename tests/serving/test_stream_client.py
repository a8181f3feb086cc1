"""The stream client: credit, words that change, connections that are lost."""

import socket
import threading
import time

import numpy as np
import pytest

from ovperception.client import Client, Detect, Heatmap, Semantic
from ovperception.errors import InvalidImage, InvalidParameter, InvalidVocabulary, Unavailable, UnknownModel
from tests.serving.fake_model import FakeModel

PICTURES = [np.full((40, 50, 3), value, np.uint8) for value in range(60, 100)]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_files_get_all_their_answers(client, model):
    outputs = [Detect(masks=False), Semantic(stride=2), Heatmap(text="x")]
    with client.stream(["cat"], outputs=outputs, policy="block") as stream:
        replies = list(stream.run(PICTURES))
    assert [reply.sequence for reply in replies] == list(range(1, 41))
    for reply, picture in zip(replies, PICTURES, strict=True):
        local = model.encode(picture)
        assert reply.perception.detections.to_json() == local.detect(["cat"], masks=False).to_json()
        assert reply.perception.semantic.labels.shape == (20, 25)
        np.testing.assert_array_equal(reply.perception.heatmap, local.heatmap("x"))
    assert replies[0].perception.reply.timing["round_trip"] > 0


def test_words_change_from_the_next_frame_on(client):
    with client.stream(["word 0"], policy="block") as stream:

        def send():
            for frame in range(1, 41):
                if frame % 4 == 0:
                    assert stream.set_words([f"word {frame}"]) == frame
                stream.send(PICTURES[0])
            stream.end()

        threading.Thread(target=send, daemon=True).start()
        for reply in stream:
            assert reply.perception.detections.classes == (f"word {reply.sequence // 4 * 4}",)
    assert reply.sequence == 40


def test_a_bad_frame_is_told_and_the_stream_goes_on(client):
    with client.stream(["cat"], policy="block") as stream:
        replies = list(stream.run([PICTURES[0], b"GIF89a", PICTURES[1]]))
    assert isinstance(replies[1].error, InvalidImage)
    assert replies[2].perception


def test_a_camera_that_is_too_fast_loses_old_frames(client, model):
    with client.stream(["cat"], max_in_flight=1) as stream:
        model.hold()
        stream.send(PICTURES[0])
        assert model.busy.wait(10)
        for picture in PICTURES[1:4]:
            stream.send(picture)
        threading.Timer(0.5, model.release).start()
        stream.end()
        replies = list(stream)
    assert [bool(reply.perception) for reply in replies] == [True, False, False, True]
    assert replies[1].dropped == "newer_frame"


def test_credit_holds_the_sender_up(client, model):
    with client.stream(["cat"], policy="block", max_in_flight=2) as stream:
        model.hold()
        sent = []
        thread = threading.Thread(target=lambda: [sent.append(stream.send(p)) for p in PICTURES[:6]])
        thread.start()
        time.sleep(0.5)
        assert sent == [1, 2]
        model.release()
        assert [next(stream).sequence for _ in range(6)] == [1, 2, 3, 4, 5, 6]
        thread.join(10)


def test_a_lost_connection_comes_back_with_all_frames(serve):
    port = free_port()
    model = FakeModel()
    first = serve(model, port=port)
    with Client(first.address, timeout_s=20) as client, client.stream(["a"], policy="block") as stream:
        stream.send(PICTURES[0])
        assert next(stream).perception.detections.classes == ("a",)
        model.hold()
        stream.send(PICTURES[1])
        stream.set_words(["b"])
        stream.send(PICTURES[2])
        assert model.busy.wait(10)
        stopping = threading.Thread(target=first._server.stop, args=(0,))  # as if it had been killed
        stopping.start()
        stopping.join(10)
        model.release()
        first.stop(0)
        serve(FakeModel(), port=port)  # knows no handle
        replies = [next(stream), next(stream)]
        assert [reply.sequence for reply in replies] == [2, 3]
        assert [reply.perception.detections.classes for reply in replies] == [("a",), ("b",)]


def test_a_server_that_drains_answers_what_is_in_work_and_the_next_one_the_rest(serve):
    port = free_port()
    model = FakeModel()
    first = serve(model, port=port)
    with Client(first.address, timeout_s=20) as client, client.stream(["a"], max_in_flight=1) as stream:
        stream.send(PICTURES[0])
        assert next(stream).perception
        model.hold()
        stream.send(PICTURES[1])
        assert model.busy.wait(10)
        stream.send(PICTURES[2])  # waits behind it
        threading.Timer(0.3, model.release).start()
        first.stop(10)
        sequences = []
        started = threading.Timer(0.3, serve, kwargs={"port": port})
        started.start()
        for _ in range(2):
            reply = next(stream)
            assert reply.error is None
            assert reply.perception
            sequences.append(reply.sequence)
        started.join()
    assert sequences == [2, 3]
    assert model.seen == 1 + 2  # its warm-up, and the first two frames


def test_a_server_that_is_gone_for_good_ends_the_stream(serve):
    server = serve()
    with Client(server.address, timeout_s=20) as client:
        stream = client.stream(["a"], reconnect_s=0.5)
        stream.send(PICTURES[0])
        assert next(stream).perception
        server.stop(0)
        stream.send(PICTURES[1])
        with pytest.raises(Unavailable):
            next(stream)


def test_frames_larger_than_the_server_takes_are_sent_smaller(serve, connect):
    client = connect(serve(max_pixels=500))
    large = np.full((40, 50, 3), 100, np.uint8)
    with client.stream(["cat"], outputs=["detect", "semantic", "panoptic", Heatmap(text="x")]) as stream:
        stream.send(large)
        found = next(stream).perception
    assert found.reply.size == found.detections.size == found.semantic.size == (40, 50)
    assert found.panoptic.size == found.heatmap.shape == (40, 50)
    (again,) = client.perceive([large], ["cat"])
    assert again.reply.size == again.detections.size == (40, 50)
    assert again.detections.to_json() == found.detections.to_json()


def test_what_cannot_be(client):
    with pytest.raises(InvalidParameter, match="policy"):
        client.stream(["cat"], policy="pile_up")
    with pytest.raises(InvalidParameter, match="flight"):
        client.stream(["cat"], max_in_flight=0)
    with pytest.raises(InvalidParameter, match="output"):
        client.stream(["cat"], outputs=["depth"])
    with pytest.raises(InvalidVocabulary):
        client.stream([])
    with client.stream(["cat"], outputs=[Detect(model="none")]) as stream, pytest.raises(UnknownModel):
        next(stream)
    with client.stream(["cat"]) as stream:
        stream.end()
        with pytest.raises(Unavailable):
            stream.send(PICTURES[0])
        assert list(stream) == []
