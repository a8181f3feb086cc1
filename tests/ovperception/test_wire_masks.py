"""Masks in every encoding: the same mask comes back, and it is small."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovperception.errors import InvalidInput, InvalidParameter
from ovperception.rle import RLE
from ovperception.v1 import results_pb2 as pb
from ovperception.wire_masks import MASK_ENCODINGS, mask_message, outlines, read_mask

NAMES = [pb.MaskEncoding.Name(encoding) for encoding in MASK_ENCODINGS]


def _ring():
    mask = np.zeros((30, 40), np.uint8)
    mask[5:20, 8:30] = 1
    mask[9:14, 12:20] = 0
    mask[11, 15] = 1  # an island in the hole
    mask[20, 30] = 1  # touches the rest at a corner alone
    return mask


MASKS = {
    "ring": _ring(),
    "empty": np.zeros((5, 7), np.uint8),
    "full": np.ones((5, 7), np.uint8),
    "last pixel": np.pad(np.ones((1, 1), np.uint8), ((8, 0), (9, 0))),
    "checkers": np.indices((9, 11)).sum(0).astype(np.uint8) % 2,
}


@pytest.mark.parametrize("encoding", MASK_ENCODINGS, ids=NAMES)
@pytest.mark.parametrize("name", MASKS)
def test_the_same_mask_comes_back(encoding, name):
    mask = RLE.encode(MASKS[name])
    message = pb.Mask.FromString(mask_message(mask, encoding).SerializeToString())
    assert read_mask(message, mask.size) == mask
    assert message.HasField("region") == (encoding != pb.MASK_ENCODING_COCO_RLE)


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)))
def test_any_mask_comes_back(array):
    mask = RLE.encode(array)
    for encoding in MASK_ENCODINGS:
        assert read_mask(mask_message(mask, encoding), mask.size) == mask


def test_outlines_by_hand():
    (square,) = outlines(np.ones((1, 2), np.uint8))
    assert sorted(map(tuple, square.tolist())) == [(0, 0), (0, 1), (2, 0), (2, 1)]
    sides = np.abs(np.diff(np.vstack([square, square[:1]]), axis=0))
    np.testing.assert_array_equal((sides > 0).sum(axis=1), 1)
    assert len(outlines(_ring())) == 4  # the ring, its hole, the island, and the pixel at the corner


def test_others_can_fill_the_outlines():
    """OpenCV fills by the same rule, once corners of pixels are brought to its centres of pixels."""
    mask = _ring()
    message = mask_message(RLE.encode(mask), pb.MASK_ENCODING_POLYGONS)
    scale = 8
    rings = [np.array(p.points, np.int32).reshape(-1, 2) * scale for p in message.polygons.polygons]
    canvas = np.zeros((30 * scale, 40 * scale), np.uint8)
    cv2.fillPoly(canvas, rings, 1)
    np.testing.assert_array_equal(canvas[scale // 2 :: scale, scale // 2 :: scale], mask)


def _blob(rng):
    """An object of 1080p: 100 to 500 pixels large, with an edge as uneven as a network draws it."""
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    waves = sum(rng.normal(0, 0.5 / k) * np.cos(k * angles + rng.uniform(0, 6)) for k in range(2, 40))
    radius = rng.uniform(50, 250) * (1 + 0.2 * waves)
    x, y = rng.uniform(300, 1620), rng.uniform(300, 780)
    points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
    return cv2.fillPoly(np.zeros((1080, 1920), np.uint8), [points.astype(np.int32)], 1)


def test_28_masks_of_1080p_take_64_kilobytes_at_most():
    rng = np.random.default_rng(0)
    masks = [RLE.encode(_blob(rng)) for _ in range(28)]
    cropped = sum(mask_message(mask, pb.MASK_ENCODING_CROPPED_RLE).ByteSize() for mask in masks)
    assert 15_000 < cropped <= 64_000
    assert cropped < sum(mask_message(mask).ByteSize() for mask in masks)


BROKEN = {
    "nothing": pb.Mask(),
    "beyond": pb.Mask(png=b"x", region={"x": 3, "width": 8, "height": 1}),
    "no area": pb.Mask(packed_bits=b"", region={"x": 3}),
    "no PNG": pb.Mask(png=b"x", region={"width": 2, "height": 1}),
    "too few bits": pb.Mask(packed_bits=b"x", region={"width": 9, "height": 1}),
    "another size": pb.Mask(rle={"width": 3, "height": 1, "counts": b"3"}, region={"width": 2, "height": 1}),
    "no run": pb.Mask(rle={"width": 2, "height": 1, "counts": b"9"}, region={"width": 2, "height": 1}),
    "half a point": pb.Mask(polygons={"polygons": [{"points": [1, 2, 3]}]}),
    "slanted": pb.Mask(polygons={"polygons": [{"points": [0, 0, 2, 1, 2, 2, 0, 2]}]}),
    "point beyond": pb.Mask(polygons={"polygons": [{"points": [0, 0, 99, 0, 99, 1, 0, 1]}]}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_masks_are_refused(name):
    with pytest.raises(InvalidInput, match="of the reply"):
        read_mask(BROKEN[name], (4, 10))


def test_an_unknown_encoding():
    with pytest.raises(InvalidParameter, match="encoding"):
        mask_message(RLE.encode(_ring()), 99)
