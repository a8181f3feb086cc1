"""A model called with detectron2's inputs answers as it does itself, in detectron2's shapes."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import ovperception as ovp
from ovperception.datasets.scenes import scene
from ovperception.errors import InvalidImage, InvalidParameter, MissingDependency, Unsupported
from ovperception.interop.detectron2_model import Detectron2Model, to_panoptic_seg, to_sem_seg
from ovperception.structures import PanopticMap, Segment, SemanticMap

WORDS = ["grass", "sky", "dog", "car"]


@pytest.fixture(scope="module")
def model() -> Any:
    return ovp.load("tiny")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return scene("val", 0, (96, 96)).image


def tensor(pixels: np.ndarray, order: str = "BGR") -> torch.Tensor:
    array = pixels[..., ::-1] if order == "BGR" else pixels
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


class FakeInstances:
    """detectron2's ``Instances`` as its documentation describes it: fields of one length, and a size."""

    def __init__(self, image_size: tuple[int, int]) -> None:
        self.image_size = image_size


@pytest.fixture
def _detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one where it is installed."""
    try:
        importlib.import_module("detectron2.structures")
    except ImportError:
        structures = ModuleType("detectron2.structures")
        structures.__dict__.update(Instances=FakeInstances, Boxes=lambda t: SimpleNamespace(tensor=t))
        monkeypatch.setitem(sys.modules, "detectron2", ModuleType("detectron2"))
        monkeypatch.setitem(sys.modules, "detectron2.structures", structures)


@pytest.mark.usefixtures("_detectron2")
def test_answers_are_the_models_own(model: Any, pixels: np.ndarray) -> None:
    own = model.encode(pixels)
    for order in ("BGR", "RGB"):
        predict = Detectron2Model(model, WORDS, input_format=order)
        (answer,) = predict([{"image": tensor(pixels, order), "height": 96, "width": 96}])
        found = own.detect(WORDS, score_threshold=0.0, max_detections=100)
        assert len(found)
        instances = answer["instances"]
        assert instances.image_size == (96, 96)
        np.testing.assert_array_equal(instances.pred_boxes.tensor.numpy(), found.boxes)
        np.testing.assert_array_equal(instances.scores.numpy(), found.scores)
        np.testing.assert_array_equal(instances.pred_classes.numpy(), found.class_ids)
        assert found.masks is not None
        np.testing.assert_array_equal(instances.pred_masks[0].numpy(), found.masks[0].decode().astype(bool))
        labels = own.semantic(WORDS, score_threshold=0.0).labels
        np.testing.assert_array_equal(answer["sem_seg"].argmax(0).numpy(), labels)
        ids, segments = answer["panoptic_seg"]
        expected = own.panoptic(WORDS)
        np.testing.assert_array_equal(ids.numpy(), expected.ids)
        assert [s["category_id"] for s in segments] == [s.class_id for s in expected.segments]


@pytest.mark.usefixtures("_detectron2")
def test_answers_are_of_the_size_before_resizing(model: Any, pixels: np.ndarray) -> None:
    (answer,) = Detectron2Model(model, WORDS)([{"image": tensor(pixels), "height": 48, "width": 192}])
    assert answer["instances"].image_size == (48, 192)
    assert answer["sem_seg"].shape == (4, 48, 192)
    assert answer["panoptic_seg"][0].shape == (48, 192)
    boxes = answer["instances"].pred_boxes.tensor
    assert boxes[:, 2].max() > 96
    assert boxes[:, 3].max() <= 48
    assert answer["instances"].pred_masks.shape[1:] == (48, 192)


def test_only_what_is_asked(model: Any, pixels: np.ndarray) -> None:
    predict = Detectron2Model(model, WORDS, tasks=["semantic"])
    assert set(predict([{"image": tensor(pixels)}])[0]) == {"sem_seg"}


def test_floats_are_colours_too(model: Any, pixels: np.ndarray) -> None:
    predict = Detectron2Model(model, WORDS, tasks=["semantic"])
    one, other = predict([{"image": tensor(pixels)}, {"image": tensor(pixels).float()}])
    assert torch.equal(one["sem_seg"], other["sem_seg"])


@pytest.mark.parametrize(
    ("one", "error"),
    [
        ({"height": 3}, InvalidParameter),
        ({"image": torch.zeros(1, 8, 8)}, InvalidImage),
        ({"image": torch.zeros(3, 8, 8) - 1.5}, InvalidImage),
        ({"image": torch.zeros(3, 8, 8) + 0.5}, InvalidImage),
    ],
)
def test_what_is_no_picture(model: Any, one: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Detectron2Model(model, WORDS, tasks=["semantic"])([one])


def test_what_the_model_cannot(model: Any) -> None:
    with pytest.raises(InvalidParameter, match="BGR or RGB"):
        Detectron2Model(model, WORDS, input_format="HSV")
    with pytest.raises(Unsupported, match="cannot answer"):
        Detectron2Model(ovp.load("tiny-regionclip"), WORDS, tasks=["panoptic"])


def test_without_detectron2_it_says_so(
    model: Any, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    monkeypatch.setitem(sys.modules, "detectron2.structures", None)
    with pytest.raises(MissingDependency, match="detectron2 is not installed"):
        Detectron2Model(model, WORDS, tasks=["detect"])([{"image": tensor(pixels)}])


def test_maps_by_hand() -> None:
    labels = np.array([[0, 1], [-1, 2]], np.int32)
    scores = np.array([[0.5, 0.0], [0.9, 0.25]], np.float32)
    planes = to_sem_seg(SemanticMap(classes=("a", "b", "c"), labels=labels, scores=scores))
    assert planes.argmax(0).tolist() == [[0, 1], [0, 2]]
    assert planes[:, 1, 0].tolist() == [0, 0, 0]
    assert planes[2, 1, 1] == 0.25
    segment = Segment(id=4, class_id=1, score=0.5, area=1, is_thing=True)
    ids, rows = to_panoptic_seg(
        PanopticMap(classes=("a", "b"), ids=np.array([[0, 4]], np.int32), segments=(segment,))
    )
    assert ids.tolist() == [[0, 4]]
    assert rows == [{"id": 4, "category_id": 1, "isthing": True, "score": 0.5, "area": 1}]
