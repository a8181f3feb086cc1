"""What cannot be is refused here and by name, before anything is sent: nothing listens at this address."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ovperception import errors
from ovperception.client import Client, Detect, Heatmap, Panoptic, Semantic
from ovperception.client.numbers import real, whole

NOWHERE = "127.0.0.1:1"
NOT_A_NUMBER = float("nan")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"address": None}, "address"),
        ({"address": "robot"}, "address"),
        ({"timeout_s": "3"}, "timeout_s"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": NOT_A_NUMBER}, "timeout_s"),
        ({"max_pixels": 0}, "max_pixels"),
        ({"max_pixels": -1}, "max_pixels"),
        ({"max_message_bytes": 0}, "max_message_bytes"),
        ({"transport": "pigeon"}, "transport"),
        ({"mask_encoding": "drawn"}, "mask_encoding"),
    ],
)
def test_settings(settings: dict[str, object], field: str) -> None:
    given: dict[str, object] = {"address": NOWHERE} | settings
    make: Callable[..., Client] = Client
    with pytest.raises(errors.InvalidParameter) as caught:
        make(**given)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("ask", "error", "field"),
    [
        (lambda c: c.detect(b"", ["a"], score_threshold="high"), errors.InvalidParameter, "score_threshold"),
        (lambda c: c.detect(b"", ["a"], max_detections="all"), errors.InvalidParameter, "max_detections"),
        (lambda c: c.detect(b"", ["a"], max_detections=1.5), errors.InvalidParameter, "max_detections"),
        (lambda c: c.semantic(b"", ["a"], score_threshold=True), errors.InvalidParameter, "score_threshold"),
        (lambda c: c.panoptic(b"", ["a"], score_threshold=[]), errors.InvalidParameter, "score_threshold"),
        (lambda c: c.heatmap(b"", 3), errors.InvalidVocabulary, "text"),
        (lambda c: c.embed_text("a taxi"), errors.InvalidVocabulary, "texts"),
        (lambda c: c.embed_text([]), errors.InvalidVocabulary, "texts"),
        (lambda c: c.embed_text([3]), errors.InvalidVocabulary, "vocabulary.classes[0]"),
        (lambda c: c.perceive([b""], ["a"], outputs=[3]), errors.InvalidParameter, "outputs[0]"),
        (lambda c: c.stream(["a"], frame_timeout_s=NOT_A_NUMBER), errors.InvalidParameter, "frame_timeout_s"),
        (lambda c: c.stream(["a"], max_in_flight=0), errors.InvalidParameter, "max_in_flight"),
        (lambda c: c.vocabularies.create(["a"], ttl_s=-1), errors.InvalidParameter, "ttl_s"),
        (lambda c: c.vocabularies.create(["a"], name=3), errors.InvalidParameter, "name"),
        (lambda c: c.vocabularies.get(3), errors.InvalidParameter, "name"),
        (lambda c: c.vocabularies.update(None, ["a"]), errors.InvalidParameter, "name"),
        (lambda c: c.vocabularies.update("a", display_name=3), errors.InvalidParameter, "display_name"),
        (lambda c: c.vocabularies.delete(3), errors.InvalidParameter, "name"),
    ],
)
def test_questions(ask: Callable[[Client], object], error: type[errors.OVPError], field: str) -> None:
    with Client(NOWHERE, timeout_s=5) as client, pytest.raises(error) as caught:
        ask(client)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "output",
    [
        Detect(score_threshold="high"),  # type: ignore[arg-type]  # that is asked
        Semantic(stride=0),
        Panoptic(score_threshold="low"),  # type: ignore[arg-type]  # that is asked
        Heatmap(text=""),
    ],
)
def test_outputs(output: Detect | Semantic | Panoptic | Heatmap) -> None:
    with pytest.raises(errors.InvalidInput):
        output.message()


@pytest.mark.parametrize(
    ("given", "sent"), [(None, None), (7, 7), (-9, -1), (10**12, 2**31 - 1), (float("inf"), 2**31 - 1)]
)
def test_whole_numbers_fit_the_wire(given: int | None, sent: int | None) -> None:
    assert whole(given, "max_detections") == sent


def test_numbers_out_of_range_are_left_to_the_server() -> None:
    assert real(-3, "score_threshold") == -3.0
