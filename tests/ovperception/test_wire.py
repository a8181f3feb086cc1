"""Answers, vocabularies and errors survive the wire."""

import pickle

import numpy as np
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from ovperception import errors
from ovperception.errors import InvalidInput, InvalidParameter, OVPError
from ovperception.rle import RLE
from ovperception.structures import Detections, PanopticMap, Segment, SemanticMap
from ovperception.v1 import results_pb2 as pb
from ovperception.v1.vocabulary_pb2 import Vocabulary as VocabularyMessage
from ovperception.vocabulary import Vocabulary, VocabularyClass
from ovperception.wire import (
    detections_message,
    embeddings_message,
    float_map_message,
    panoptic_message,
    read_detections,
    read_embeddings,
    read_float_map,
    read_panoptic,
    read_semantic,
    read_vocabulary,
    semantic_message,
    vocabulary_message,
)
from ovperception.wire_errors import error_of, status_of

KINDS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, OVPError)]


def _sent(message):
    return type(message).FromString(message.SerializeToString())


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_detections(count, masks):
    rng = np.random.default_rng(count)
    found = Detections(
        size=(20, 30),
        classes=("a", "b"),
        boxes=rng.random((count, 4)).astype(np.float32) * 20,
        scores=rng.random(count).astype(np.float32),
        class_ids=rng.integers(0, 2, count),
        masks=tuple(RLE.encode(rng.random((20, 30)) > 0.5) for _ in range(count)) if masks else None,
    )
    read = read_detections(_sent(detections_message(found)), found.classes, found.size)
    for name in ("boxes", "scores", "class_ids"):
        np.testing.assert_array_equal(getattr(read, name), getattr(found, name))
        assert getattr(read, name).dtype == getattr(found, name).dtype
    assert read.masks == found.masks


@pytest.mark.parametrize(("classes", "encoding"), [(255, "PNG8"), (256, "PNG16"), (65535, "PNG16")])
def test_semantic(classes, encoding):
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, classes, (17, 23)).astype(np.int32)
    labels[0, :2] = (-1, classes - 1)
    scores = rng.random((17, 23)).astype(np.float32)
    answer = SemanticMap(classes=tuple(map(str, range(classes))), labels=labels, scores=scores)
    message = _sent(semantic_message(answer, scores=True))
    assert pb.LabelEncoding.Name(message.encoding) == f"LABEL_ENCODING_{encoding}"
    read = read_semantic(message, answer.classes)
    np.testing.assert_array_equal(read.labels, labels)
    np.testing.assert_array_equal(read.scores, scores)
    assert tuple(message.present_class_indices) == answer.present
    assert read_semantic(_sent(semantic_message(answer)), answer.classes).scores is None


def test_too_many_classes_for_an_encoding():
    answer = SemanticMap(classes=("x",) * 256, labels=np.zeros((2, 2), np.int32))
    with pytest.raises(InvalidParameter, match="at most 255"):
        semantic_message(answer, pb.LABEL_ENCODING_RAW8)


def test_panoptic():
    ids = np.array([[0, 1, 255], [256, 65536, 2**24 - 1]], np.int32)
    segments = tuple(
        Segment(id=int(i), class_id=0, score=1 / 3, area=1, is_thing=bool(i % 2)) for i in ids.ravel() if i
    )
    answer = PanopticMap(classes=("a",), ids=ids, segments=segments)
    read = read_panoptic(_sent(panoptic_message(answer)), ("a",))
    np.testing.assert_array_equal(read.ids, ids)
    assert read.segments == segments


def test_numbers():
    values = np.array([[0, -1.5, np.inf], [np.nan, 1e-30, 3]], np.float32)
    np.testing.assert_array_equal(read_float_map(_sent(float_map_message(values))), values)
    np.testing.assert_array_equal(read_embeddings(_sent(embeddings_message(values))), values)
    empty = np.zeros((0, 5), np.float32)
    assert read_embeddings(_sent(embeddings_message(empty))).shape == (0, 5)


def test_a_reply_that_contradicts_itself():
    message = embeddings_message(np.zeros((2, 3), np.float32))
    message.count = 3
    with pytest.raises(InvalidInput, match="wrong number of bytes"):
        read_embeddings(message)
    labels = semantic_message(SemanticMap(classes=("a",), labels=np.zeros((2, 2), np.int32)))
    labels.width = 3
    with pytest.raises(InvalidInput, match="PNG"):
        read_semantic(labels, ("a",))
    labels.encoding = 99
    with pytest.raises(InvalidInput, match="does not know"):
        read_semantic(labels, ("a",))
    heat = float_map_message(np.zeros((200, 200), np.float32))
    heat.deflated = heat.deflated[:5]
    with pytest.raises(InvalidInput, match="wrong number of bytes"):
        read_float_map(heat)


@pytest.mark.parametrize("background", [None, (), ("dirt|soil", "rust")])
@pytest.mark.parametrize("templates", [None, ("a {}",), "simple_7"])
def test_vocabulary(templates, background):
    words = Vocabulary.from_words(["traffic light|stoplight", "sky", "taxi"], templates=templates)
    entry = VocabularyClass(name="x|y", score_threshold=0.1, negatives=("z",), is_thing=False)
    words = Vocabulary(
        classes=(*words.classes, entry), templates=words.templates, background=background, name="n"
    )
    read = read_vocabulary(_sent(vocabulary_message(words)))
    assert read == words
    assert read.content_hash == words.content_hash


def test_bare_names_are_what_plain_words_are():
    message = VocabularyMessage(classes=[{"name": "sky"}, {"name": " cat "}])
    assert read_vocabulary(message) == Vocabulary.from_words(["sky", "cat"])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_it_was(kind):
    error = kind("It is wrong", field="a.b[3]", expected="this", got="that", mend="Do so")
    read = error_of(_sent(status_of(error, "id")))
    assert type(read) is kind
    assert (read.field, read.expected, read.got, read.mend) == ("a.b[3]", "this", "that", "Do so")
    assert str(read) == str(error)


def test_details_for_other_languages():
    status = status_of(InvalidParameter("No", field="x"))
    assert any(detail.Is(BadRequest.DESCRIPTOR) for detail in status.details)
    assert not any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details)
    status = status_of(errors.ResourceExhausted("Full"))
    assert any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details)


def test_when_a_second_try_is_worth_it():
    error = errors.ResourceExhausted("Full")
    error.retry_after_ms = 1234
    assert error_of(_sent(status_of(error))).retry_after_ms == 1234
    assert pickle.loads(pickle.dumps(error)).retry_after_ms == 1234
    assert error_of(_sent(status_of(errors.Unavailable("Down")))).retry_after_ms > 0
    assert error_of(_sent(status_of(InvalidParameter("No")))).retry_after_ms == 0


def test_somebody_elses_status():
    assert error_of(Status(code=3, message="no")) is None


@pytest.mark.parametrize("letter", ["a", "模", "💥", "\udcff"])
def test_no_error_is_too_long_for_trailers(letter):
    error = InvalidParameter(letter * 5000, field="f" * 100, expected=letter * 5000, got=letter * 5000)
    status = status_of(error)
    # gRPC percent-encodes the message, three bytes for one.
    assert 3 * len(status.message.encode()) + 4 / 3 * status.ByteSize() < 8000
    assert type(error_of(status)) is InvalidParameter
