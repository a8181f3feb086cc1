"""JPEG files at a half, a quarter or an eighth: when, which pixels, and whose size answers have."""

import dataclasses
import io
import struct

import numpy as np
import pytest

from ovperception import images
from ovperception.errors import InvalidImage
from ovperception.images import load_image, load_reduced
from ovperception.preprocess import Preprocessing

Image = pytest.importorskip("PIL.Image")

STEPS = ((0, 0.7), (1, 0), (0.5, 0.3))  # of each channel, down and across
SMOOTH = np.stack(
    [np.add.outer(np.arange(240) * down, np.arange(320) * across) % 256 // 8 * 8 for down, across in STEPS], 2
).astype(np.uint8)


def encoded(array, format_="JPEG", orientation=1, **options):
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    file = io.BytesIO()
    Image.fromarray(array).save(file, format_, exif=b"Exif\0\0" + tiff, **options)
    return file.getvalue()


def whole(size):
    return size


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [
        ((240, 320), (240, 320), (240, 320)),
        ((240, 320), (121, 100), (240, 320)),
        ((240, 320), (120, 160), (120, 160)),
        ((240, 320), (61, 1), (120, 160)),
        ((240, 320), (60, 80), (60, 80)),
        ((240, 320), (1, 1), (30, 40)),
        ((242, 320), (1, 1), (121, 160)),
        ((241, 320), (1, 1), (241, 320)),
    ],
)
def test_as_small_as_will_do(size, least, expected):
    data = encoded(np.resize(SMOOTH, (*size, 3)))
    image, presented = load_reduced(data, lambda _: least)
    assert (image.shape, presented) == ((*expected, 3), size)
    assert image.flags.c_contiguous


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_least_size_is_that_of_the_upright_picture(orientation):
    data, asked = encoded(SMOOTH, orientation=orientation, quality=95), []

    def least(size):
        asked.append(size)
        return size[0] // 2, size[1] // 4

    image, presented = load_reduced(data, least)
    full = load_image(data)
    assert asked == [presented] == [full.shape[:2]]
    assert image.shape[:2] == tuple(side // 2 for side in presented)
    means = full.reshape(image.shape[0], 2, image.shape[1], 2, 3).mean((1, 3))
    assert np.abs(means - image).mean() < 3


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 30}])
@pytest.mark.parametrize("part", [2, 4, 8])
def test_both_decoders_give_the_same_pixels(options, part, monkeypatch):
    data = encoded(SMOOTH, **options)
    image, _ = load_reduced(data, lambda size: (size[0] // part, size[1] // part))
    monkeypatch.setattr(images.reading, "_simplejpeg", None)
    other, _ = load_reduced(data, lambda size: (size[0] // part, size[1] // part))
    assert image.shape[0] == SMOOTH.shape[0] // part
    np.testing.assert_array_equal(image, other)


@pytest.mark.parametrize("part", [1, 2, 4, 8])
def test_the_pixels_are_those_of_pillow_in_draft_mode(part):
    data = encoded(SMOOTH, quality=85)
    least = tuple(side // part for side in SMOOTH.shape[:2])
    draft = Image.open(io.BytesIO(data))
    draft.draft("RGB", least[::-1])
    image, _ = load_reduced(data, lambda _: least)
    np.testing.assert_array_equal(image, np.asarray(draft))


def test_what_is_no_jpeg_is_whole(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(SMOOTH, "PNG"))
    for source in (encoded(SMOOTH, "PNG"), encoded(SMOOTH, "WEBP"), SMOOTH, tmp_path / "a.png"):
        image, presented = load_reduced(source, lambda _: (1, 1))
        assert image.shape[:2] == presented == (240, 320)


def test_nothing_smaller_wanted_is_as_ever():
    data = encoded(SMOOTH)
    np.testing.assert_array_equal(load_reduced(data, whole)[0], load_image(data))


def test_limits_are_of_the_whole_picture():
    with pytest.raises(InvalidImage, match="too large"):
        load_reduced(encoded(SMOOTH), lambda _: (1, 1), max_pixels=240 * 320 - 1)


@pytest.mark.parametrize("interpolation", ["pillow_bilinear", "pillow_bicubic", "cv2_linear"])
def test_the_network_sees_nearly_the_same_at_the_same_place(interpolation):
    fits = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), shortest_edge=50, interpolation=interpolation)
    fits = dataclasses.replace(fits, longest_edge=200)
    data = encoded(SMOOTH, quality=95)
    reduced, presented = load_reduced(data, lambda size: fits.geometry(size).resized)
    assert reduced.shape[:2] == (60, 80)
    network, geometry = fits.apply(reduced, presented)
    expected, whole_geometry = fits.apply(load_image(data))
    assert geometry == whole_geometry
    if interpolation != "cv2_linear":  # which does not smooth, and so differs by what it leaves out
        assert (network - expected).abs().mean() < 3
    box = np.array([[0, 0, *geometry.resized[::-1]]])
    np.testing.assert_array_equal(geometry.boxes_to_original(box), [[0, 0, 320, 240]])
