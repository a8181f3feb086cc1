"""Pictures in: whatever they come as, read whole or refused with a reason."""

from __future__ import annotations

import errno
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidImage, InvalidInput, MissingFile, OVPError, ResourceExhausted
from ovperception.image_headers import MAX_BYTES, MAX_PIXELS, ImageHeader, check_size, read_header

try:
    import simplejpeg as _simplejpeg
except ImportError:  # the base install does not bring it
    _simplejpeg = None

if TYPE_CHECKING:
    from PIL import Image

    ImageSource = str | Path | bytes | bytearray | memoryview | NDArray[Any] | Image.Image

__all__ = ["Wanted", "load_image", "load_reduced", "read_file"]

# Of a presented (height, width): the least size that will do.
Wanted = Callable[[tuple[int, int]], tuple[int, int]]
# OpenCV's bit for each part of the sides; its names for them say grey, which IMREAD_COLOR_RGB overrules.
_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


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
    return _load(source, lambda size: size, max_pixels, max_bytes)[0]


def load_reduced(
    source: ImageSource,
    wanted: Wanted,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """As `load_image`; but a JPEG may come at a half, a quarter or an eighth, by libjpeg's own scaling.

    It is taken smaller where that divides both sides and leaves no less than is wanted. It is not the
    picture that decoding all pixels and then shrinking would give.

    Args:
        source: as for `load_image`.
        wanted: gives the least (height, width) that will do, for that of the upright picture.
        max_pixels: most pixels the whole picture may have.
        max_bytes: most bytes an encoded picture may have.

    Returns:
        The pixels, and the (height, width) of the whole picture.

    Raises:
        InvalidImage, MissingFile, InvalidInput, ResourceExhausted: as `load_image`.
    """
    return _load(source, wanted, max_pixels, max_bytes)


def _load(
    source: ImageSource, wanted: Wanted, max_pixels: int, max_bytes: int
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    if isinstance(source, memoryview) and not source.c_contiguous:
        source = source.tobytes()
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(source, wanted, max_pixels, max_bytes)
    if isinstance(source, (str, Path)):
        path = Path(source)
        try:
            return _decode(read_file(path, max_bytes), wanted, max_pixels, max_bytes)
        except InvalidImage as error:
            raise InvalidImage(
                f"{path}: {error.what}", expected=error.expected, got=error.got or None, mend=error.mend
            ) from error
    image = _from_object(source, max_pixels)
    return image, (image.shape[0], image.shape[1])


def _from_object(source: NDArray[Any] | Image.Image, max_pixels: int) -> NDArray[np.uint8]:
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    # Whoever holds a Pillow image has imported Pillow; the base install does not bring it.
    if (pillow := sys.modules.get("PIL.Image")) is not None and isinstance(source, pillow.Image):
        return _from_pillow(cast("Image.Image", source), max_pixels)
    raise InvalidImage(
        "This is not an image",
        expected="a path, encoded bytes, a numpy array or a Pillow image",
        got=f"{type(source).__module__}.{type(source).__qualname__}",
        mend="Turn tensors into arrays: tensor.permute(1, 2, 0).cpu().numpy()",
    )


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


def _decode(
    data: bytes | bytearray | memoryview, wanted: Wanted, max_pixels: int, max_bytes: int
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    header = read_header(data, max_pixels=max_pixels, max_bytes=max_bytes)
    part = _part(header, wanted)
    height, width = (side // part for side in header.stored)
    # OpenCV's own turning differs between formats and versions, so it is told to leave it to us.
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | _REDUCED[part]
    try:
        image = _decode_jpeg(data, height, width) if header.format == "jpeg" else None
        if image is None:
            image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise ResourceExhausted("No memory left to decode the image", got=header.stored) from error
        raise InvalidImage(f"The {header.format.upper()} image cannot be decoded", got=error.err) from error
    except MemoryError as error:
        raise ResourceExhausted("No memory left to decode the image", got=header.stored) from error
    if image is None or image.shape[:2] != (height, width):
        raise InvalidImage(
            f"The {header.format.upper()} image is corrupt",
            expected=f"{(height, width)} pixels (height, width)",
            got="none" if image is None else image.shape[:2],
            mend="Check that the file was transferred whole",
        )
    return np.ascontiguousarray(_upright(cast("NDArray[np.uint8]", image), header.orientation)), header.size


def _part(header: ImageHeader, wanted: Wanted) -> int:
    """Which part of its sides is enough of a picture: 1, or one in 2, 4 or 8."""
    if header.format != "jpeg":
        return 1
    least = wanted(header.size) if header.orientation < 5 else wanted(header.size)[::-1]
    for part in (8, 4, 2):
        # Where a side does not divide, the last pixel would be made in part of what lies beyond the picture.
        if all(
            side % part == 0 and side // part >= low for side, low in zip(header.stored, least, strict=True)
        ):
            return part
    return 1


def _decode_jpeg(data: bytes | bytearray | memoryview, height: int, width: int) -> Any:
    """The pixels as stored; None without simplejpeg, or where it finds a fault that OpenCV shall name."""
    if _simplejpeg is None:
        return None
    try:
        # Not strict, as OpenCV: what can be recovered of a damaged file is given.
        return _simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, strict=False)
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
