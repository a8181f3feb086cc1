"""What an encoded picture says of itself before a pixel is decoded: format, size, orientation.

A small file can ask for a large memory; here it is refused first. The whole structure is walked once, so
that a file that breaks off is noticed too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ovperception.errors import InvalidImage

__all__ = ["MAX_BYTES", "MAX_PIXELS", "MAX_SIDE", "ImageHeader", "check_size", "read_header", "truncated"]

MAX_PIXELS = 64_000_000
MAX_BYTES = 256 * 2**20
MAX_SIDE = 32_768
# A 64-megapixel PNG in the usual 8 KiB pieces has fewer; what has more is made to keep us busy.
_MAX_CHUNKS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """What the first bytes of an encoded picture say.

    Attributes:
        format: the container.
        stored: (height, width) as stored.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
    """

    format: Literal["jpeg", "png", "webp"]
    stored: tuple[int, int]
    orientation: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture held upright."""
        return self.stored if self.orientation < 5 else (self.stored[1], self.stored[0])


def read_header(
    data: bytes | bytearray | memoryview, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> ImageHeader:
    """Size and orientation of an encoded picture, without decoding it.

    The whole structure is walked once, so a file that breaks off is noticed here.

    Raises:
        InvalidImage: not JPEG, PNG or WebP; truncated; larger than the limits.
    """
    view = memoryview(data).cast("B")
    if len(view) > max_bytes:
        raise InvalidImage(
            "The encoded image is too large",
            expected=f"at most {max_bytes} bytes",
            got=f"{len(view)} bytes",
        )
    magic = bytes(view[:12])
    try:
        if magic.startswith(b"\xff\xd8\xff"):
            header = _read_jpeg(view)
        elif magic.startswith(b"\x89PNG\r\n\x1a\n"):
            header = _read_png(view)
        elif magic[:4] == b"RIFF" and magic[8:] == b"WEBP":
            header = _read_webp(view)
        else:
            raise InvalidImage(
                "The bytes are not an image of a known format",
                expected="JPEG, PNG or WebP",
                got=f"{len(view)} bytes that begin {magic!r}" if magic else "no bytes at all",
            )
    except (IndexError, struct.error):  # a field lies beyond the end
        raise truncated("header") from None
    check_size(header.stored, max_pixels)
    return header


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raise `InvalidImage` for a (height, width) without pixels or beyond the limits."""
    height, width = size
    if height < 1 or width < 1:
        raise InvalidImage("The image has no pixels", expected="at least 1 x 1 (height, width)", got=size)
    if height * width > max_pixels or max(size) > MAX_SIDE:
        raise InvalidImage(
            "The image is too large",
            expected=f"at most {max_pixels} pixels and {MAX_SIDE} pixels a side (height, width)",
            got=f"{height} x {width} = {height * width} pixels",
            mend="Send it smaller or in tiles",
        )


def truncated(where: str) -> InvalidImage:
    """The error for a file that breaks off."""
    return InvalidImage(
        f"The image is truncated: it breaks off in its {where}", mend="Check that it was transferred whole"
    )


def _read_jpeg(data: memoryview) -> ImageHeader:
    """ITU-T T.81, annex B: segments up to the first scan; then the end marker somewhere behind it."""
    size, orientation = None, 1
    for marker, start, end in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = struct.unpack_from(">HH", data, start + 1)
        elif marker == 0xE1 and bytes(data[start : start + 6]) == b"Exif\0\0":
            orientation = _exif_orientation(data[start:end])
        elif marker == 0xDA:
            if size is None:
                raise InvalidImage("The JPEG image gives no size before its pixels")
            # Within a scan every 0xFF is stuffed, so the end marker cannot occur by chance.
            # Anything may follow it: phones append a second picture or a video.
            if bytes(data[-2:]) != b"\xff\xd9" and b"\xff\xd9" not in bytes(data[end:]):
                raise truncated("pixels")
            return ImageHeader(format="jpeg", stored=size, orientation=orientation)
    raise truncated("header")


def _jpeg_segments(data: memoryview) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment's content."""
    position = 2
    for _ in range(_MAX_CHUNKS):
        if data[position] != 0xFF:
            raise InvalidImage("The JPEG header is corrupt", got=f"byte {data[position]:#x} for a marker")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xD9:
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # no content
            position += 2
            continue
        end = position + 2 + max(2, struct.unpack_from(">H", data, position + 2)[0])
        yield marker, position + 4, end
        position = end
    raise InvalidImage("The JPEG image has no pixels")


def _read_png(data: memoryview) -> ImageHeader:
    """PNG, third edition, section 5: chunks from IHDR to IEND."""
    size, orientation, position = None, 1, 8
    for _ in range(_MAX_CHUNKS):
        if position + 12 > len(data):
            raise truncated("chunks")
        length, kind = struct.unpack_from(">I4s", data, position)
        start, position = position + 8, position + 12 + length
        if size is None:
            if kind != b"IHDR":
                raise InvalidImage("The PNG image does not begin with its size")
            width, height = struct.unpack_from(">II", data, start)
            size = (height, width)
        elif kind == b"eXIf":
            orientation = _exif_orientation(data[start : start + length])
        elif kind == b"IEND" and position <= len(data):
            return ImageHeader(format="png", stored=size, orientation=orientation)
    raise InvalidImage("The PNG image is cut into too many pieces", expected=f"at most {_MAX_CHUNKS} chunks")


def _read_webp(data: memoryview) -> ImageHeader:
    """RFC 9649: a RIFF file whose first chunk tells the size in one of three ways."""
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise truncated("chunks")
    size, orientation, position = None, 1, 12
    for _ in range(_MAX_CHUNKS):
        if position + 8 > end:
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        start, position = position + 8, position + 8 + length + length % 2
        if start + length > end:
            raise truncated("chunks")
        if size is None:
            size = _webp_size(kind, data[start : start + length])
        elif kind == b"EXIF":
            orientation = _exif_orientation(data[start : start + length])
    if size is None:
        raise InvalidImage("The WebP image has no pixels")
    return ImageHeader(format="webp", stored=size, orientation=orientation)


def _webp_size(kind: bytes, data: memoryview) -> tuple[int, int]:
    if kind == b"VP8X":  # canvas of the extended format, 24 bits each, less one
        return int.from_bytes(data[7:10], "little") + 1, int.from_bytes(data[4:7], "little") + 1
    if kind == b"VP8 " and bytes(data[3:6]) == b"\x9d\x01\x2a":  # lossy: 14 bits each
        width, height = struct.unpack_from("<HH", data, 6)
        return height & 0x3FFF, width & 0x3FFF
    if kind == b"VP8L" and data[0] == 0x2F:  # lossless: 14 bits each, less one
        bits = struct.unpack_from("<I", data, 1)[0]
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    raise InvalidImage("The WebP header is corrupt", got=kind)


def _exif_orientation(data: memoryview) -> int:
    """Tag 0x0112 of the first directory; 1 if there is none or the block is damaged."""
    tiff = data[6:] if bytes(data[:6]) == b"Exif\0\0" else data
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(tiff[:4]))
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == 0x0112 and kind == 3 and count == 1:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
