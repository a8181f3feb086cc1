"""Preprocessing: bit-equal to the references' own formula, and never a side of zero."""

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovperception.errors import InvalidImage, InvalidParameter, MissingDependency
from ovperception.preprocess import Preprocessing

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")

# configs/coco/panoptic-segmentation/fcclip: PIXEL_MEAN, PIXEL_STD
MEAN = (122.7709383, 116.7460125, 104.09373615)
STD = (68.5005327, 66.6321579, 70.32316305)
FCCLIP = Preprocessing(mean=MEAN, std=STD, shortest_edge=800, longest_edge=1333)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def reference(image, preprocessing):
    """detectron2 written out: Pillow, torch float32, then padding."""
    geometry = preprocessing.geometry(image.shape[:2])
    height, width = geometry.resized
    if geometry.resized != image.shape[:2]:
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.BILINEAR))
    x = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1))).float()
    x = (x - torch.tensor(preprocessing.mean).view(-1, 1, 1)) / torch.tensor(preprocessing.std).view(-1, 1, 1)
    padding = (0, geometry.padded[1] - width, 0, geometry.padded[0] - height)
    return torch.nn.functional.pad(x, padding, value=0.0)


@pytest.mark.parametrize("size", [(64, 96), (33, 65), (1, 1), (200, 7), (120, 160)])
@pytest.mark.parametrize("edges", [(None, None), (80, 133), (None, 100)])
def test_bit_equal_to_the_reference(size, edges):
    preprocessing = dataclasses.replace(FCCLIP, shortest_edge=edges[0], longest_edge=edges[1])
    image = picture(*size)
    network, geometry = preprocessing.apply(image)
    assert torch.equal(network, reference(image, preprocessing))
    assert network.shape == (3, *geometry.padded)
    assert network.dtype == torch.float32
    assert network.is_contiguous()


def test_normalisation_by_hand():
    preprocessing = Preprocessing(mean=(10, 20, 30), std=(1, 2, 4), multiple=2)
    network, geometry = preprocessing.apply(np.array([[[10, 20, 30], [12, 26, 22]]], np.uint8))
    assert geometry.padded == (2, 2)
    expected = torch.tensor([[[0.0, 2.0], [0, 0]], [[0, 3], [0, 0]], [[0, -2], [0, 0]]])
    assert torch.equal(network, expected)


@pytest.mark.parametrize(
    ("size", "resized", "padded"),
    [  # (height, width); worked by ResizeShortestEdge(800, 1333) of detectron2 0.6
        ((480, 640), (800, 1067), (800, 1088)),
        ((640, 480), (1067, 800), (1088, 800)),
        ((720, 1280), (750, 1333), (768, 1344)),
        ((1080, 1920), (750, 1333), (768, 1344)),
        ((427, 640), (800, 1199), (800, 1216)),
        ((500, 500), (800, 800), (800, 800)),
        ((800, 1333), (800, 1333), (800, 1344)),
        ((1, 1), (800, 800), (800, 800)),
        ((8000, 50), (1333, 8), (1344, 32)),
        ((50, 8000), (8, 1333), (32, 1344)),
        ((1, 8000), (1, 1333), (32, 1344)),
    ],
)
def test_sizes(size, resized, padded):
    geometry = FCCLIP.geometry(size)
    assert geometry.original == size
    assert geometry.resized == resized
    assert geometry.padded == padded


@settings(max_examples=200, deadline=None)
@given(size=st.tuples(st.integers(1, 10_000), st.integers(1, 10_000)))
def test_any_size_stays_in_bounds(size):
    geometry = FCCLIP.geometry(size)
    assert min(geometry.resized) >= 1
    assert max(geometry.resized) <= 1333
    assert min(geometry.resized) <= 800
    for padded, resized in zip(geometry.padded, geometry.resized, strict=True):
        assert padded % 32 == 0
        assert 0 <= padded - resized < 32
    assert FCCLIP.geometry(size[::-1]).resized == geometry.resized[::-1]


def test_longest_edge_alone_only_shrinks():
    preprocessing = Preprocessing(mean=MEAN, std=STD, longest_edge=512)
    assert preprocessing.geometry((100, 200)).resized == (100, 200)
    assert preprocessing.geometry((1000, 2000)).resized == (256, 512)


def test_without_a_longest_edge_a_slender_picture_is_refused():
    preprocessing = Preprocessing(mean=MEAN, std=STD, shortest_edge=800)
    with pytest.raises(InvalidImage, match="slender"):
        preprocessing.geometry((1, 30_000))


def test_interpolations_differ_only_in_detail():
    rows, columns = np.mgrid[:100, :150]
    smooth = np.stack([rows, columns, rows + columns], 2).astype(np.uint8)
    outputs = [
        dataclasses.replace(FCCLIP, shortest_edge=50, interpolation=name).apply(smooth)[0]
        for name in ("pillow_bilinear", "pillow_bicubic", "cv2_linear")
    ]
    assert not torch.equal(outputs[0], outputs[1])
    for output in outputs[1:]:
        assert (output - outputs[0]).abs().max() < 0.1


def test_the_picture_is_not_written_to():
    image = picture(20, 30)
    before = image.copy()
    network, _ = FCCLIP.apply(image)
    network += 1
    again, _ = FCCLIP.apply(image)
    np.testing.assert_array_equal(image, before)
    assert not torch.equal(network, again)


def test_round_trip_through_a_dict():
    assert Preprocessing.from_dict(FCCLIP.to_dict()) == FCCLIP
    values = FCCLIP.to_dict()
    values["colour"] = 1
    with pytest.raises(InvalidParameter, match="colour"):
        Preprocessing.from_dict(values)
    with pytest.raises(InvalidParameter, match="mean"):
        Preprocessing.from_dict({"std": [1, 1, 1]})
    with pytest.raises(InvalidParameter):
        Preprocessing.from_dict({**FCCLIP.to_dict(), "mean": "abc"})


@pytest.mark.parametrize(
    "change",
    [
        {"mean": (1.0, 2.0)},
        {"mean": (1.0, 2.0, float("nan"))},
        {"std": (1.0, 0.0, 1.0)},
        {"std": (1.0, -1.0, 1.0)},
        {"shortest_edge": 0},
        {"longest_edge": -1},
        {"multiple": 0},
        {"interpolation": "nearest"},
    ],
)
def test_impossible_settings(change):
    with pytest.raises(InvalidParameter, match=next(iter(change))):
        dataclasses.replace(FCCLIP, **change)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3)), np.zeros((0, 5, 3), np.uint8)]
)
def test_apply_refuses(image):
    with pytest.raises(InvalidImage):
        FCCLIP.apply(image)


def test_without_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependency, match="Pillow"):
        FCCLIP.apply(picture(10, 10))
    assert dataclasses.replace(FCCLIP, interpolation="cv2_linear").apply(picture(10, 10))[0].shape == (
        3,
        800,
        800,
    )
