"""Run lengths: hand-worked strings, equality with pycocotools, and hostile input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ovperception.errors import InvalidInput, InvalidRegions
from ovperception.rle import RLE

coco = pytest.importorskip("pycocotools.mask")

masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 23), st.integers(1, 23)))


def reference(mask):
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))


def blob(height, width, seed=0):
    rows, columns = np.mgrid[:height, :width]
    return np.sin(rows / 7 + seed) * np.cos(columns / 5) > 0.2


def test_encode_by_hand():
    # Down the columns: 1 zero, 2 ones, 1 zero | 4 zeros  ->  1, 2, 5: each one character, value + 48.
    mask = np.zeros((4, 2), bool)
    mask[1:3, 0] = True
    rle = RLE.encode(mask)
    assert rle == RLE((4, 2), b"125")
    assert rle.area == 2
    np.testing.assert_array_equal(rle.box, np.float32([0, 1, 1, 3]))
    np.testing.assert_array_equal(rle.decode(), mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 7), (8000, 50), (50, 8000), (480, 640)])
@pytest.mark.parametrize("fill", ["empty", "full", "first", "last", "checker", "blob", "noise"])
def test_identical_to_pycocotools(shape, fill):
    mask = np.zeros(shape, bool)
    match fill:
        case "full":
            mask[:] = True
        case "first":
            mask[0, 0] = True
        case "last":
            mask[-1, -1] = True
        case "checker":
            mask[::2, ::2] = True
        case "blob":
            mask = blob(*shape)
        case "noise":
            mask = np.random.default_rng(0).random(shape) < 0.03
    theirs = reference(mask)
    ours = RLE.encode(mask)
    assert ours.counts == theirs["counts"]
    assert ours.area == coco.area(theirs) == mask.sum()
    decoded = ours.decode()
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, mask)
    x, y, w, h = coco.toBbox(theirs)
    np.testing.assert_array_equal(ours.box, np.float32([x, y, x + w, y + h]))
    assert RLE.from_coco(ours.to_coco()) == ours


@settings(max_examples=150, deadline=None)
@given(mask=masks)
def test_any_mask(mask):
    rle = RLE.encode(mask)
    theirs = reference(mask)
    assert rle.counts == theirs["counts"]
    np.testing.assert_array_equal(rle.decode(), mask)
    x, y, w, h = coco.toBbox(theirs)
    np.testing.assert_array_equal(rle.box, np.float32([x, y, x + w, y + h]))
    runs = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False, append=not mask[-1, -1]))
    uncompressed = np.diff(runs, prepend=0).tolist()
    assert RLE.from_coco({"size": list(mask.shape), "counts": uncompressed}) == rle


@settings(max_examples=150, deadline=None)
@given(crop=masks, margins=st.tuples(*[st.integers(0, 3)] * 4))
def test_crop_equals_whole(crop, margins):
    whole = np.pad(crop, (margins[:2], margins[2:]))
    ours = RLE.from_crop(crop, margins[0], margins[2], whole.shape)
    assert ours == RLE.encode(whole)
    part, top, left = ours.decode_crop()
    h, w = part.shape
    assert part.sum() == whole.sum()
    np.testing.assert_array_equal(part, whole[top : top + h, left : left + w])


def test_an_empty_crop_is_an_empty_mask():
    assert RLE.from_crop(np.zeros((0, 3), bool), 5, 2, (10, 10)) == RLE.encode(np.zeros((10, 10), bool))


def test_any_nonzero_byte_is_mask():
    mask = np.array([[0, 1, 2, 255]], np.uint8)
    assert RLE.encode(mask) == RLE.encode(mask > 0)


def test_crop_does_not_pay_for_the_image():
    # 10^9 pixels: would not fit the time or memory of this test if the image were ever laid out.
    rle = RLE.from_crop(np.ones((3, 4), bool), 20_000, 10_000, (40_000, 40_000))
    assert rle.area == 12
    np.testing.assert_array_equal(rle.box, np.float32([10_000, 20_000, 10_004, 20_003]))
    assert rle.decode_crop()[0].shape == (3, 4)


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 2, 1), bool), np.zeros((2, 2)), np.zeros((2, 2), np.int64), np.zeros(4, bool)]
)
def test_encode_refuses(mask):
    with pytest.raises(InvalidRegions):
        RLE.encode(mask)


def test_a_mask_without_pixels_is_refused():
    with pytest.raises(InvalidRegions, match="impossible size"):
        RLE.encode(np.zeros((0, 4), bool))


@pytest.mark.parametrize(("top", "left"), [(-1, 0), (0, -1), (3, 0), (0, 3)])
def test_crop_beyond_the_image(top, left):
    with pytest.raises(InvalidRegions, match="beyond"):
        RLE.from_crop(np.ones((2, 2), bool), top, left, (4, 4))


@pytest.mark.parametrize(
    "counts",
    [
        "",
        "1",  # too few pixels
        "`",  # the last number does not end
        "o" * 7 + "0",  # 8 groups: 40 bits
        "o" * 100_000,
        "\x00\x01",
        "éé",
        "9" * 50,
        "O125",  # a negative run
        "nnnnnnO",
        b"125125",
        [],
        [8, 1],
        [9, -1],
        [2**40, 2**40],
        [2**62] * 4 + [8],  # adds up to 8 in 64 bits
        [2**80],
        ["a"],
        [[8]],
        None,
        {"a": 1},
    ],
)
def test_malformed_counts(counts):
    with pytest.raises(InvalidInput):
        RLE.from_coco({"size": [4, 2], "counts": counts})


@pytest.mark.parametrize(
    "size", [[0, 8], [-4, -2], [8], [2, 2, 2], ["4", "2"], [1.5, 2], None, 8, [2**20, 2**20]]
)
def test_malformed_size(size):
    with pytest.raises(InvalidInput):
        RLE.from_coco({"size": size, "counts": "125"})


def test_missing_field():
    with pytest.raises(InvalidRegions, match="size"):
        RLE.from_coco({"counts": "125"})


@settings(max_examples=300, deadline=None)
@given(text=st.binary(max_size=40), size=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_any_bytes_decode_or_are_refused(text, size):
    try:
        mask = RLE(size, text).decode()
    except InvalidInput:
        return
    assert mask.shape == size


def test_a_hostile_run_is_refused_before_it_is_laid_out():
    hostile = RLE((4, 4), RLE.encode(np.ones((30_000, 1000), np.uint8)).counts)
    for read in (hostile.decode, lambda: hostile.area, lambda: hostile.box, hostile.decode_crop):
        with pytest.raises(InvalidRegions):
            read()
