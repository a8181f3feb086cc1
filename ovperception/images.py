"""Pictures in and out: decoding what strangers send, and the frame their boxes live in.

A picture is an (H, W, 3) uint8 RGB array, upright: the EXIF orientation was applied. Encoded pictures are
JPEG, PNG or WebP, told by their first bytes; their size is read from the header before any pixel is decoded,
so that a small file cannot ask for a large memory.

How pixels are read:
    16-bit PNG      keeps the high byte (value >> 8), as OpenCV and libpng do
    grey            repeated over the three channels
    alpha           dropped, as Pillow's ``convert("RGB")`` does; colours hidden under it become visible
    CMYK JPEG       converted as libjpeg does, without the colour profile
    animation       first frame
"""

from __future__ import annotations

import errno
import secrets
import stat
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidImage, InvalidInput, MissingFile, OVPError, ResourceExhausted

if TYPE_CHECKING:
    from PIL import Image

    ImageSource = str | Path | bytes | bytearray | memoryview | NDArray[Any] | Image.Image

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "MAX_SIDE",
    "Geometry",
    "ImageHeader",
    "encode_png",
    "load_image",
    "read_file",
    "read_header",
    "save_image",
    "write_file",
]

MAX_PIXELS = 64_000_000
MAX_BYTES = 256 * 2**20
MAX_SIDE = 32_768
# A 64-megapixel PNG in the usual 8 KiB pieces has fewer; what has more is made to keep us busy.
_MAX_CHUNKS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a presented image lies in the network's input: resized, then padded at the right and bottom.

    Attributes:
        original: (height, width) of the presented image.
        resized: (height, width) of the picture inside the network input.
        padded: (height, width) of the network input.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    padded: tuple[int, int]

    def __post_init__(self) -> None:
        if min(self.original + self.resized) < 1 or any(
            p < r for p, r in zip(self.padded, self.resized, strict=True)
        ):
            raise InvalidInput(
                "A geometry must have sides of at least 1 and a padded size no smaller than the resized one",
                got=self,
            )

    def boxes_to_original(self, boxes: NDArray[Any], *, clip: bool = True) -> NDArray[np.float32]:
        """Boxes from pixels of the network input to pixels of the presented image.

        Args:
            boxes: (..., 4) xyxy.
            clip: cut what reaches beyond the presented image.

        Returns:
            (..., 4) float32 xyxy, a new array.
        """
        return _scale(boxes, self.resized, self.original, clip)

    def boxes_to_network(self, boxes: NDArray[Any], *, clip: bool = False) -> NDArray[np.float32]:
        """Boxes from pixels of the presented image to pixels of the network input.

        Args:
            boxes: (..., 4) xyxy.
            clip: cut what reaches beyond the picture, that is, into the padding.

        Returns:
            (..., 4) float32 xyxy, a new array.
        """
        return _scale(boxes, self.original, self.resized, clip)


def _scale(
    boxes: NDArray[Any], source: tuple[int, int], target: tuple[int, int], clip: bool
) -> NDArray[np.float32]:
    ratios = np.tile([target[1] / source[1], target[0] / source[0]], 2)
    # In float64, and rounded once: a box that touches the border still touches it.
    scaled = np.asarray(boxes, dtype=np.float64) * ratios
    if clip:
        np.clip(scaled, 0, np.tile([target[1], target[0]], 2), out=scaled)
    return np.asarray(scaled, dtype=np.float32)


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
        raise _truncated("header") from None
    _check_size(header.stored, max_pixels)
    return header


def load_image(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> NDArray[np.uint8]:
    """Whatever a picture came as, as an upright (H, W, 3) uint8 RGB array, C-contiguous.

    Args:
        source: a path; the bytes of a JPEG, PNG or WebP file; a Pillow image; or a uint8 array of shape
            (H, W, 3) RGB, (H, W, 4) RGBA, (H, W, 1) or (H, W) grey. An array that already is as wanted is
            returned as it is, not copied.
        max_pixels: most pixels a picture may have.
        max_bytes: most bytes an encoded picture may have.

    Raises:
        InvalidImage: not a picture, truncated, corrupt, too large, or an array of another shape or type.
        MissingFile: the path does not name a file.
        InvalidInput: the file cannot be read.
        ResourceExhausted: no memory left for the pixels.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, memoryview) and not source.c_contiguous:
        source = source.tobytes()
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(source, max_pixels, max_bytes)
    if isinstance(source, (str, Path)):
        path = Path(source)
        try:
            return _decode(read_file(path, max_bytes), max_pixels, max_bytes)
        except InvalidImage as error:
            raise InvalidImage(
                f"{path}: {error.what}", expected=error.expected, got=error.got or None, mend=error.mend
            ) from error
    # Whoever holds a Pillow image has imported Pillow; the base install does not bring it.
    if (pillow := sys.modules.get("PIL.Image")) is not None and isinstance(source, pillow.Image):
        return _from_pillow(cast("Image.Image", source), max_pixels)
    raise InvalidImage(
        "This is not an image",
        expected="a path, encoded bytes, a numpy array or a Pillow image",
        got=f"{type(source).__module__}.{type(source).__qualname__}",
        mend="Turn tensors into arrays: tensor.permute(1, 2, 0).cpu().numpy()",
    )


def encode_png(image: NDArray[Any]) -> bytes:
    """PNG bytes of an (H, W, 3) uint8 RGB picture, or of an (H, W) uint8 or uint16 map."""
    return _encode(image, ".png")


def save_image(path: str | Path, image: NDArray[Any]) -> None:
    """Write a picture whole or not at all; the suffix of the path chooses PNG, JPEG or WebP.

    Args:
        path: ends in .png, .jpg, .jpeg or .webp.
        image: (H, W, 3) uint8 RGB; PNG also takes (H, W) uint8 or uint16.

    Raises:
        InvalidInput: another suffix, or a place that may not be written.
        MissingFile: the folder does not exist.
        ResourceExhausted: the disk is full.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg", ".webp"):
        raise InvalidInput(
            "The name of a picture must tell its format", expected=".png, .jpg, .jpeg or .webp", got=path
        )
    write_file(path, _encode(image, suffix))


def write_file(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all: readers see the old content or the new, never a part.

    Raises:
        MissingFile: the folder does not exist.
        InvalidInput: the place may not be written.
        ResourceExhausted: the disk is full.
    """
    path = Path(path)
    part = path.with_name(f".{path.name[:64]}.{secrets.token_hex(4)}.part")
    try:
        try:
            with part.open("xb") as file:
                file.write(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise _write_error(path, error) from error


def _write_error(path: Path, error: OSError | ValueError) -> OVPError:
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted("The disk is full", got=path, mend="Make room and ask again")
    if number in (errno.ENOENT, errno.ENOTDIR):
        return MissingFile("The folder to write into does not exist", got=path.parent, mend="Create it first")
    return InvalidInput("The file cannot be written", got=f"{path}: {error}")


def _encode(image: NDArray[Any], suffix: str) -> bytes:
    image = np.asarray(image)
    picture = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
    plane = image.ndim == 2 and image.dtype in (np.uint8, np.uint16) and suffix == ".png"
    if not (picture or plane) or image.size == 0:
        raise InvalidImage(
            f"This array cannot be written as {suffix[1:].upper()}",
            expected="(H, W, 3) uint8 RGB, or for PNG (H, W) uint8 or uint16",
            got=f"{image.shape} {image.dtype}",
        )
    options = {".webp": [cv2.IMWRITE_WEBP_QUALITY, 90], ".png": []}.get(
        suffix, [cv2.IMWRITE_JPEG_QUALITY, 92]
    )
    try:
        done, data = cv2.imencode(suffix, image[..., ::-1] if picture else image, options)
    except cv2.error as error:
        raise InvalidImage(f"OpenCV cannot write this as {suffix[1:].upper()}", got=error.err) from error
    if not done:
        raise InvalidImage(f"OpenCV cannot write this as {suffix[1:].upper()}", got=image.shape)
    return data.tobytes()


def read_file(path: Path, max_bytes: int) -> bytes:
    """The bytes of an image file, before anything is made of them.

    Raises:
        MissingFile: nothing is there, or no ordinary file.
        InvalidImage: it is larger than `max_bytes`.
        InvalidInput: it may not be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no ordinary file"
            raise MissingFile("The path does not name an image file", got=f"{path}, which is {kind}")
        if status.st_size > max_bytes:
            raise InvalidImage(
                "The encoded image is too large",
                expected=f"at most {max_bytes} bytes",
                got=f"{status.st_size} bytes",
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, OVPError):
            raise
        number = getattr(error, "errno", None)
        if isinstance(error, OSError) and number not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise InvalidInput("The image file cannot be read", got=f"{path}: {error.strerror}") from error
        mend = "Images are read from files, not from addresses" if ":/" in str(path) else ""
        raise MissingFile("There is no such image file", got=path, mend=mend) from error


def _decode(data: bytes | bytearray | memoryview, max_pixels: int, max_bytes: int) -> NDArray[np.uint8]:
    header = read_header(data, max_pixels=max_pixels, max_bytes=max_bytes)
    # OpenCV's own turning differs between formats and versions, so it is told to leave it to us.
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise ResourceExhausted("No memory left to decode the image", got=header.stored) from error
        raise InvalidImage(f"The {header.format.upper()} image cannot be decoded", got=error.err) from error
    except MemoryError as error:
        raise ResourceExhausted("No memory left to decode the image", got=header.stored) from error
    if image is None or image.shape[:2] != header.stored:
        raise InvalidImage(
            f"The {header.format.upper()} image is corrupt",
            expected=f"{header.stored} pixels (height, width)",
            got="none" if image is None else image.shape[:2],
            mend="Check that the file was transferred whole",
        )
    return np.ascontiguousarray(_upright(cast("NDArray[np.uint8]", image), header.orientation))


def _upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo how the camera was held (EXIF 2.32, tag 0x0112)."""
    turned: Any = image
    match orientation:
        case 2:
            turned = cv2.flip(image, 1)
        case 3:
            turned = cv2.rotate(image, cv2.ROTATE_180)
        case 4:
            turned = cv2.flip(image, 0)
        case 5:
            turned = cv2.transpose(image)
        case 6:
            turned = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            turned = cv2.flip(cv2.transpose(image), -1)
        case 8:
            turned = cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE)
    return cast("NDArray[np.uint8]", turned)


def _from_array(array: NDArray[Any], max_pixels: int) -> NDArray[np.uint8]:
    shape = array.shape
    if not (array.ndim == 2 or (array.ndim == 3 and shape[2] in (1, 3, 4))):
        first = array.ndim == 3 and shape[0] in (1, 3, 4)
        raise InvalidImage(
            "The array has not the shape of an image",
            expected="(H, W, 3) RGB, (H, W, 4) RGBA, (H, W, 1) or (H, W)",
            got=shape,
            mend="Put the channels last: image.transpose(1, 2, 0)" if first else "",
        )
    _check_size((shape[0], shape[1]), max_pixels)
    if array.dtype != np.uint8:
        scale = "(image * 255).round()" if array.dtype.kind == "f" else "image * 255"
        if array.dtype == np.uint16:
            scale = "(image >> 8)"
        raise InvalidImage(
            "The array has not the type of an image",
            expected="uint8 from 0 to 255",
            got=array.dtype,
            mend=f'Convert it, for example by np.asarray({scale}, dtype="uint8"), if its values allow it',
        )
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array[:, :, :3])


def _from_pillow(image: Image.Image, max_pixels: int) -> NDArray[np.uint8]:
    from PIL import ImageOps

    _check_size((image.height, image.width), max_pixels)
    try:
        array = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidImage("The Pillow image cannot be decoded", got=error) from error
    return np.ascontiguousarray(array)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
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


def _truncated(where: str) -> InvalidImage:
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
                raise _truncated("pixels")
            return ImageHeader(format="jpeg", stored=size, orientation=orientation)
    raise _truncated("header")


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
            raise _truncated("chunks")
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
        raise _truncated("chunks")
    size, orientation, position = None, 1, 12
    for _ in range(_MAX_CHUNKS):
        if position + 8 > end:
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        start, position = position + 8, position + 8 + length + length % 2
        if start + length > end:
            raise _truncated("chunks")
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
