"""NV12 and YUYV of real pixels: against the equations of BT.601, against OpenCV, in rows of any stride."""

import cv2
import numpy as np
import pytest

from ovperception.errors import InvalidImage
from ovperception.images import load_image
from ovperception.v1 import image_pb2 as im
from serving.pictures import open_picture
from tests.conftest import ROOT

SIZES = [(2, 2), (34, 50), (250, 398)]


@pytest.fixture(scope="module")
def scene():
    return load_image(ROOT / "docs/images/scene.png")


def _yuv(rgb):
    """Studio swing, ITU-R BT.601: Y from 16 to 235, U and V around 128."""
    red, green, blue = np.moveaxis(rgb.astype(np.float64), -1, 0)
    luma = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    u = 128 + (-37.797 * red - 74.203 * green + 112.0 * blue) / 255
    v = 128 + (112.0 * red - 93.786 * green - 18.214 * blue) / 255
    return luma, u, v


def _rounded(plane):
    return np.clip(np.rint(plane), 0, 255).astype(np.uint8)


def _nv12(rgb):
    """(H * 3 / 2, W): luma, then U and V in turn, each the mean of 2 x 2 pixels."""
    luma, *chroma = _yuv(rgb)
    height, width = luma.shape
    means = [plane.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)) for plane in chroma]
    return np.concatenate([_rounded(luma), _rounded(np.stack(means, -1)).reshape(height // 2, width)])


def _yuyv(rgb):
    """(H, W * 2): Y0 U Y1 V, where U and V are the means of two neighbours."""
    luma, *chroma = _yuv(rgb)
    height, width = luma.shape
    u, v = (plane.reshape(height, width // 2, 2).mean(axis=2) for plane in chroma)
    pairs = np.stack([luma[:, ::2], u, luma[:, 1::2], v], -1)
    return _rounded(pairs).reshape(height, width * 2)


FORMATS = {"NV12": (_nv12, cv2.COLOR_YUV2RGB_NV12, 1), "YUYV": (_yuyv, cv2.COLOR_YUV2RGB_YUY2, 2)}


def _message(rows, size, name, pad, *, whole=True):
    padded = np.pad(rows, ((0, 0), (0, pad)), constant_values=77)
    data = padded.tobytes()[: None if whole or not pad else -pad]
    raw = {"data": data, "width": size[1], "height": size[0], "format": f"PIXEL_FORMAT_{name}"}
    return im.Image(raw=raw | ({"row_stride": padded.shape[1]} if pad else {}))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("pad", "whole"), [(0, True), (14, True), (13, True), (64, False)])
def test_pixels_are_those_of_the_references(scene, name, size, pad, whole):
    encode, code, channels = FORMATS[name]
    picture = np.ascontiguousarray(scene[: size[0], : size[1]])
    rows = encode(picture)
    found = open_picture(_message(rows, size, name, pad, whole=whole), 10**6).decode(size)
    expected = cv2.cvtColor(rows.reshape(len(rows), -1, channels), code)
    np.testing.assert_array_equal(found, expected)
    assert found.flags.writeable
    # What the picture was: each pixel to within rounding, where its neighbours have its colour.
    blocks = picture[: size[0], : size[1]].reshape(size[0] // 2, 2, size[1] // 2, 2, 3)
    spread = np.ptp(blocks.astype(int), axis=(1, 3)).max(-1)
    flat = np.kron(spread <= 2, np.ones((2, 2), bool))
    assert flat.any() or size == (2, 2)
    assert np.abs(found.astype(int) - picture)[flat].max(initial=0) <= 5
    assert np.abs(found.astype(int) - picture).mean() < 8


@pytest.mark.parametrize(
    ("name", "size", "field"),
    [
        ("NV12", (4, 5), "width"),
        ("NV12", (5, 4), "height"),
        ("YUYV", (4, 5), "width"),
    ],
)
def test_sizes_that_share_no_colours_are_refused(name, size, field):
    raw = {"data": bytes(200), "width": size[1], "height": size[0], "format": f"PIXEL_FORMAT_{name}"}
    with pytest.raises(InvalidImage, match="even") as caught:
        open_picture(im.Image(raw=raw), 10**6)
    assert caught.value.field == f"image.raw.{field}"


def test_rows_of_yuyv_may_be_odd_in_number(scene):
    rows = _yuyv(scene[:5, :6])
    found = open_picture(_message(rows, (5, 6), "YUYV", 0), 10**6).decode((5, 6))
    np.testing.assert_array_equal(found, cv2.cvtColor(rows.reshape(5, -1, 2), cv2.COLOR_YUV2RGB_YUY2))


@pytest.mark.parametrize("name", FORMATS)
def test_planes_that_are_cut_off_are_refused(scene, name):
    rows = FORMATS[name][0](scene[:8, :8])[:-1]
    with pytest.raises(InvalidImage, match="contradict"):
        open_picture(_message(rows, (8, 8), name, 0), 10**6)
