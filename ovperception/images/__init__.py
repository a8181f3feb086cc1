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
the same to the bit, reduced ones too. simplejpeg is about a tenth faster, and writes nothing to stderr about
damaged files.
"""

from typing import TYPE_CHECKING

from ovperception.image_headers import MAX_BYTES, MAX_PIXELS, MAX_SIDE, ImageHeader, read_header
from ovperception.images.geometry import Geometry
from ovperception.images.reading import load_image, load_reduced, read_file
from ovperception.images.writing import encode_png, save_image, write_file

if TYPE_CHECKING:
    from ovperception.images.reading import ImageSource as ImageSource

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "MAX_SIDE",
    "Geometry",
    "ImageHeader",
    "encode_png",
    "load_image",
    "load_reduced",
    "read_file",
    "read_header",
    "save_image",
    "write_file",
]
