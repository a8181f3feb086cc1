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

JPEG is read by simplejpeg where it is installed, else by OpenCV: both are libjpeg-turbo, and the pixels are
the same to the bit. simplejpeg is about a tenth faster, and writes nothing to stderr about damaged files.
"""

from __future__ import annotations

import errno
import secrets
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidImage, InvalidInput, MissingFile, OVPError, ResourceExhausted
from ovperception.image_headers import (
    MAX_BYTES,
    MAX_PIXELS,
    MAX_SIDE,
    ImageHeader,
    check_size,
    read_header,
)

try:
    import simplejpeg as _simplejpeg
except ImportError:  # the base install does not bring it
    _simplejpeg = None

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
        image = _decode_jpeg(data) if header.format == "jpeg" else None
        if image is None:
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


def _decode_jpeg(data: bytes | bytearray | memoryview) -> Any:
    """The pixels as stored; None without simplejpeg, or where it finds a fault that OpenCV shall name."""
    if _simplejpeg is None:
        return None
    try:
        # Not strict, as OpenCV: what can be recovered of a damaged file is given.
        return _simplejpeg.decode_jpeg(data, "RGB", strict=False)
    except ValueError:
        return None


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
    check_size((shape[0], shape[1]), max_pixels)
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

    check_size((image.height, image.width), max_pixels)
    try:
        array = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidImage("The Pillow image cannot be decoded", got=error) from error
    return np.ascontiguousarray(array)
