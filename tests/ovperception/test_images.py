"""Decoding: what is accepted, what is refused before it costs anything, and the frame of the boxes."""

import errno
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovperception import images
from ovperception.errors import InvalidImage, InvalidInput, MissingFile, OVPError, ResourceExhausted
from ovperception.images import Geometry, encode_png, load_image, read_header, save_image, write_file

Image = pytest.importorskip("PIL.Image")


def picture(height=48, width=64):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], 2).astype(
        np.uint8
    )


def encoded(array, format_, mode=None, **options):
    file = io.BytesIO()
    Image.fromarray(array, mode).save(file, format_, **options)
    return file.getvalue()


def exif(orientation, order="<"):
    marks = {"<": b"II*\0", ">": b"MM\0*"}
    return b"Exif\0\0" + marks[order] + struct.pack(
        f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0
    )  # fmt: skip


def png(height, width, *, depth=8, colour=2, rest=b""):
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + rest + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_lossless_formats_come_back_equal(format_):
    image = load_image(encoded(picture(), format_, lossless=True))
    np.testing.assert_array_equal(image, picture())
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
def test_jpeg_equals_pillow(options):
    data = encoded(picture(), "JPEG", **options)
    np.testing.assert_array_equal(load_image(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind):
    np.testing.assert_array_equal(load_image(kind(encoded(picture(), "PNG"))), picture())


def test_a_buffer_with_gaps():
    data = encoded(picture(), "PNG")
    apart = bytes(b for byte in data for b in (byte, 0))
    np.testing.assert_array_equal(load_image(memoryview(apart)[::2]), picture())


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (8000, 50), (50, 8000)])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_header_tells_the_size(shape, format_):
    data = encoded(picture(*shape), format_)
    assert read_header(data).size == shape
    assert load_image(data).shape == (*shape, 3)


def test_lossy_and_extended_webp_headers():
    lossless, lossy = (encoded(picture(37, 51), "WEBP", lossless=x) for x in (True, False))
    extended = encoded(np.dstack([picture(37, 51), picture(37, 51)[..., 0]]), "WEBP")
    assert lossless[12:16] == b"VP8L"
    assert lossy[12:16] == b"VP8 "
    assert extended[12:16] == b"VP8X"
    assert {read_header(x).size for x in (lossless, lossy, extended)} == {(37, 51)}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_orientations(orientation, order):
    # The corners tell every flip and turn apart; blocks of 16 survive JPEG.
    corners = np.zeros((32, 64, 3), np.uint8)
    corners[:16, :16], corners[:16, -16:], corners[-16:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    data = encoded(corners, "JPEG", quality=95, subsampling=0, exif=exif(orientation, order))
    upright = load_image(data)
    by_hand = {
        1: corners,
        2: corners[:, ::-1],
        3: corners[::-1, ::-1],
        4: corners[::-1],
        5: corners.transpose(1, 0, 2),
        6: np.rot90(corners, -1),
        7: corners[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(corners),
    }[orientation]
    assert upright.shape == by_hand.shape
    assert np.abs(upright.astype(int) - by_hand).max() < 12
    assert upright.flags.c_contiguous
    assert read_header(data).size == by_hand.shape[:2]


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_of_the_other_formats(format_, orientation):
    data = encoded(picture(), format_, lossless=True, exif=exif(orientation)[6:])
    np.testing.assert_array_equal(load_image(data), np.rot90(picture(), 2 if orientation == 3 else -1))


@pytest.mark.parametrize(
    "block", [exif(0), exif(9), exif(65535), exif(6)[:20], b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_damaged_exif_is_ignored(block):
    assert load_image(encoded(picture(), "JPEG", exif=block)).shape == (48, 64, 3)


def test_16_bit_png_keeps_the_high_byte():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(load_image(encode_png(values))[..., 1], values >> 8)


def test_grey_and_alpha():
    plane = picture()[..., 0]
    grey = np.repeat(plane[..., None], 3, 2)
    np.testing.assert_array_equal(load_image(encoded(plane, "PNG")), grey)
    both = np.dstack([plane, plane])
    np.testing.assert_array_equal(load_image(encoded(both, "PNG")), grey)
    alpha = np.dstack([picture(), np.zeros((48, 64), np.uint8)])
    np.testing.assert_array_equal(load_image(encoded(alpha, "PNG")), picture())
    palette = Image.fromarray(picture()).quantize(16)
    file = io.BytesIO()
    palette.save(file, "PNG")
    np.testing.assert_array_equal(load_image(file.getvalue()), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{"quality": 30}, {"quality": 95, "progressive": True}])
def test_both_jpeg_decoders_give_the_same_pixels(mode, options, monkeypatch):
    file = io.BytesIO()
    Image.fromarray(picture(47, 65)).convert(mode).save(file, "JPEG", **options)
    first = load_image(file.getvalue())
    monkeypatch.setattr("ovperception.images.reading._simplejpeg", None)
    np.testing.assert_array_equal(first, load_image(file.getvalue()))


def test_a_damaged_jpeg_is_the_same_with_both_decoders(monkeypatch, capfd):
    data = encoded(picture(64, 64), "JPEG")
    damaged = data[: len(data) // 2] + bytes(16) + data[len(data) // 2 + 16 :]
    first = load_image(damaged)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr("ovperception.images.reading._simplejpeg", None)
    np.testing.assert_array_equal(first, load_image(damaged))


def test_cmyk_jpeg_is_near_pillow():
    file = io.BytesIO()
    Image.fromarray(picture()).convert("CMYK").save(file, "JPEG", quality=95)
    theirs = np.asarray(Image.open(file).convert("RGB")).astype(int)
    assert np.abs(load_image(file.getvalue()) - theirs).max() <= 2


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": exif(6)}])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_truncated_is_refused(format_, part, options):
    data = encoded(picture(200, 300), format_, **options)
    with pytest.raises(InvalidImage):
        load_image(data[: int(len(data) * part)])


def test_bytes_after_the_end_are_allowed():
    for format_ in ("JPEG", "PNG", "WEBP"):
        data = encoded(picture(), format_)
        np.testing.assert_array_equal(load_image(data + b"a video follows"), load_image(data))


@pytest.mark.parametrize(
    "size", [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (8001, 8000), (40_000, 1), (0, 5)]
)
def test_bombs_are_refused_from_their_header(size, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded a bomb"))
    with pytest.raises(InvalidImage, match=r"too large|no pixels"):
        load_image(png(*size))


def test_bombs_of_the_other_formats(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded a bomb"))
    jpeg = encoded(picture(), "JPEG")
    start = jpeg.index(b"\xff\xc0") + 5
    webp = encoded(np.dstack([picture(), picture()[..., 0]]), "WEBP")
    for bomb in (
        jpeg[:start] + struct.pack(">HH", 60_000, 60_000) + jpeg[start + 4 :],
        webp[:24] + b"\xff\xff\x00\xff\xff\x00" + webp[30:],
    ):
        with pytest.raises(InvalidImage, match="too large"):
            load_image(bomb)


def test_a_header_that_lies_about_its_pixels_is_refused():
    webp = encoded(np.dstack([picture(), picture()[..., 0]]), "WEBP")
    with pytest.raises(InvalidImage, match=r"corrupt|decoded"):
        load_image(webp[:24] + struct.pack("<I", 63)[:3] + struct.pack("<I", 9)[:3] + webp[30:])


def test_limits_can_be_set():
    data = encoded(picture(), "PNG")
    assert load_image(data, max_pixels=48 * 64).shape == (48, 64, 3)
    with pytest.raises(InvalidImage, match="too large"):
        load_image(data, max_pixels=48 * 64 - 1)
    with pytest.raises(InvalidImage, match="bytes"):
        load_image(data, max_bytes=len(data) - 1)
    with pytest.raises(InvalidImage, match="too large"):
        load_image(picture(), max_pixels=100)


def test_a_png_of_endless_empty_chunks_ends():
    with pytest.raises(InvalidImage, match="pieces"):
        load_image(png(4, 4, rest=(struct.pack(">I", 0) + b"tEXt" + b"\0" * 4) * 150_000))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8" + b"\xff" * 300_000,
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x04\0\0\0WEBP",
        b"RIFF\x10\0\0\0WEBPVP8 \x04\0\0\0abcd",
        b"GIF89a" + b"\0" * 40,
        b"BM" + b"\0" * 60,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        bytes(range(256)) * 4,
    ],
)
def test_not_an_image(data):
    with pytest.raises(InvalidImage):
        load_image(data)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_files_load_or_are_refused(data):
    whole = encoded(picture(20, 30), data.draw(st.sampled_from(["JPEG", "PNG", "WEBP"])), exif=exif(6))
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(12, min(len(whole) - 1, 120)))] = data.draw(st.integers(0, 255))
    try:
        image = load_image(bytes(damaged), max_pixels=10_000)
    except OVPError:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 3


def test_arrays():
    rgb = picture()
    assert load_image(rgb) is rgb or load_image(rgb).base is rgb
    assert np.shares_memory(load_image(rgb), rgb)
    grey = np.repeat(rgb[..., :1], 3, 2)
    np.testing.assert_array_equal(load_image(rgb[..., 0]), grey)
    np.testing.assert_array_equal(load_image(rgb[..., :1]), grey)
    np.testing.assert_array_equal(load_image(np.dstack([rgb, rgb[..., 0]])), rgb)
    flipped = load_image(rgb[:, ::-1])
    assert flipped.flags.c_contiguous
    np.testing.assert_array_equal(flipped, rgb[:, ::-1])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5, 3), np.float32), r"\* 255"),
        (np.zeros((4, 5, 3), np.uint16), ">> 8"),
        (np.zeros((4, 5, 3), bool), "image \\* 255"),
        (np.zeros((4, 5, 3), np.int64), "uint8"),
        (np.zeros((4, 5, 3), object), "uint8"),
        (np.zeros((3, 4, 5), np.uint8), "transpose"),
        (np.zeros((4, 5, 2), np.uint8), "RGB"),
        (np.zeros((1, 4, 5, 3), np.uint8), "RGB"),
        (np.zeros(4, np.uint8), "RGB"),
        (np.zeros((), np.uint8), "RGB"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((5, 0), np.uint8), "no pixels"),
    ],
)
def test_arrays_refused(array, message):
    with pytest.raises(InvalidImage, match=message):
        load_image(array)


@pytest.mark.parametrize("source", [None, 3, [1, 2], object(), {"image": 1}])
def test_other_things_refused(source):
    with pytest.raises(InvalidImage, match="not an image"):
        load_image(source)


def test_pillow_images():
    np.testing.assert_array_equal(load_image(Image.fromarray(picture())), picture())
    turned = Image.open(io.BytesIO(encoded(picture(), "PNG", exif=exif(6)[6:])))
    np.testing.assert_array_equal(load_image(turned), np.rot90(picture(), -1))
    with pytest.raises(InvalidImage, match="decoded"):
        load_image(Image.open(io.BytesIO(encoded(picture(200, 300), "PNG")[:400])))


def test_paths(tmp_path):
    path = tmp_path / "ä picture.png"
    path.write_bytes(encoded(picture(), "PNG"))
    np.testing.assert_array_equal(load_image(path), picture())
    np.testing.assert_array_equal(load_image(str(path)), picture())
    (tmp_path / "empty.png").touch()
    with pytest.raises(InvalidImage, match=r"empty\.png.*no bytes"):
        load_image(tmp_path / "empty.png")
    with pytest.raises(InvalidImage, match="too large"):
        load_image(path, max_bytes=10)


@pytest.mark.parametrize(
    "name", ["missing.png", "", "x" * 5000, "nul\0l", "missing/folder.png", "a.png/b.png"]
)
def test_missing_files(tmp_path, name):
    (tmp_path / "a.png").touch()
    with pytest.raises(MissingFile):
        load_image(tmp_path / name if name else tmp_path)


def test_addresses_are_not_fetched():
    with pytest.raises(MissingFile, match="not from addresses"):
        load_image("https://example.com/cat.jpg")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MissingFile, match="ordinary"):
        load_image(tmp_path / "pipe")


def test_an_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture(), "PNG"))

    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InvalidInput, match=r"cannot be read.*Permission"):
        load_image(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
def test_save_and_load(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    save_image(path, picture())
    difference = np.abs(load_image(path).astype(int) - picture())
    assert difference.mean() < (1e-9 if suffix == ".png" else 8)
    assert os.listdir(tmp_path) == [path.name]


def test_png_bytes_are_rgb():
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png(picture())))), picture())


def test_save_refuses(tmp_path):
    with pytest.raises(InvalidInput, match=r"\.png"):
        save_image(tmp_path / "out.gif", picture())
    with pytest.raises(InvalidImage, match="written"):
        save_image(tmp_path / "out.png", picture().astype(float))
    with pytest.raises(InvalidImage, match="written"):
        save_image(tmp_path / "out.jpg", picture()[..., 0])
    with pytest.raises(InvalidImage, match="WEBP"):
        save_image(tmp_path / "out.webp", np.zeros((20_000, 1, 3), np.uint8))
    with pytest.raises(MissingFile, match="folder"):
        save_image(tmp_path / "none" / "out.png", picture())
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(InvalidInput, match="cannot be written"):
        save_image(tmp_path / "taken.png", picture())
    assert os.listdir(tmp_path) == ["taken.png"]


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, ResourceExhausted), (errno.EDQUOT, ResourceExhausted), (errno.EACCES, InvalidInput)],
)
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, number, error):
    path = tmp_path / "map.png"
    write_file(path, b"old")

    def fail(self, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(error):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["map.png"]


def test_geometry_by_hand():
    geometry = Geometry(original=(100, 200), resized=(50, 400), padded=(64, 416))
    network = geometry.boxes_to_network(np.float32([[10, 20, 30, 40]]))
    np.testing.assert_array_equal(network, np.float32([[20, 10, 60, 20]]))
    np.testing.assert_array_equal(geometry.boxes_to_original(network), np.float32([[10, 20, 30, 40]]))
    padding = np.float32([-5, 10, 416, 64])
    np.testing.assert_array_equal(geometry.boxes_to_original(padding), np.float32([0, 20, 200, 100]))
    np.testing.assert_array_equal(
        geometry.boxes_to_original(padding, clip=False), np.float32([-2.5, 20, 208, 128])
    )
    assert geometry.boxes_to_original(np.zeros((0, 4), np.float32)).shape == (0, 4)


@settings(max_examples=200, deadline=None)
@given(
    original=st.tuples(st.integers(1, 9000), st.integers(1, 9000)),
    resized=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    unit=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_boxes_round_trip(original, resized, unit):
    geometry = Geometry(original=original, resized=resized, padded=resized)
    boxes = np.array(unit)
    boxes = (boxes * np.tile([original[1], original[0]], 2)).astype(np.float32)
    back = geometry.boxes_to_original(geometry.boxes_to_network(boxes))
    np.testing.assert_allclose(back, boxes, rtol=1e-5, atol=1e-3)
    whole = np.float32([0, 0, original[1], original[0]])
    np.testing.assert_array_equal(
        geometry.boxes_to_network(whole), np.float32([0, 0, resized[1], resized[0]])
    )


@pytest.mark.parametrize(
    "sizes", [((0, 1), (1, 1), (1, 1)), ((1, 1), (1, 0), (1, 1)), ((9, 9), (9, 9), (8, 9))]
)
def test_impossible_geometry(sizes):
    with pytest.raises(InvalidInput):
        Geometry(original=sizes[0], resized=sizes[1], padded=sizes[2])


def test_importing_loads_neither_torch_nor_pillow():
    code = f"import sys, {images.__name__}, ovperception.preprocess, ovperception.structures\n"
    code += "print([m for m in ('torch', 'PIL', 'matplotlib', 'supervision') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(images.__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"
