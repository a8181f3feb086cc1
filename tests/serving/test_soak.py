"""A few seconds of the soaks in benchmarks/, which run for minutes there."""

from types import SimpleNamespace

from benchmarks import soak, stream_soak
from ovperception.client import StreamReply
from serving.stub_model import expected_score


def test_hostile_traffic_leaves_nothing_behind():
    report = soak.soak(4.0, clients=4)
    assert report["problems"] == []
    assert {line.split()[0] for line in report["by_habit"]} >= {"good", "fuzzed"}
    assert report["by_habit"]["good OK"] > 5


def test_what_is_left_behind_is_told():
    clean = {"rss_mb": 100.0, "files": 9, "threads": 5, "slots": {"requests": 0}, "queues": {"images": 0}}
    assert soak.grown(clean, clean) == []
    dirty = {"rss_mb": 300.0, "files": 99, "threads": 50, "slots": {"requests": 1}, "queues": {"images": 2}}
    assert len(soak.grown(clean, dirty)) == 5


def test_every_frame_of_a_stream_has_one_reply_by_its_words():
    report = stream_soak.soak(2.0, fps=20.0, swaps=9)
    assert report["problems"] == []
    assert (report["frames"], report["replies"], report["swaps"]) == (40, 40, 9)


def _reply(sequence, *words, shown=None):
    found = SimpleNamespace(classes=words, scores=[expected_score(word) for word in shown or words])
    reply = SimpleNamespace(timing={"round_trip": 1.0})
    return StreamReply(sequence=sequence, perception=SimpleNamespace(detections=found, reply=reply))


def test_wrong_replies_are_told():
    camera = SimpleNamespace(words_from={1: ["cat"], 3: ["dog", "cow"]})
    good = [_reply(1, "cat"), _reply(2, "cat"), _reply(3, "dog", "cow"), _reply(4, "dog", "cow")]
    for wrong, place in (
        (None, None),
        (_reply(2, "dog", "cow"), 1),  # words of later frames
        (_reply(3, "cat"), 2),  # words of earlier ones
        (_reply(4, "dog", "cow", shown=["cat", "cow"]), 3),
        (_reply(1, "cat"), 1),  # a second reply
        (StreamReply(sequence=2, dropped="no_room"), 1),
    ):
        checks = stream_soak.Checks(camera)
        for reply in good if wrong is None else [*good[:place], wrong, *good[place + 1 :]]:
            checks.take(reply)
        assert len(checks.problems) == (wrong is not None), (wrong, checks.problems)


def test_memory_that_grows_is_told():
    flat = {"server": [90.0, 95.0] * 30}
    assert stream_soak.grown(flat) == stream_soak.grown({"server": []}) == []
    assert len(stream_soak.grown({**flat, "client": [50.0 + number for number in range(60)]})) == 1
