"""Masks to protobuf messages and back: run lengths, PNG, bits and outlines, each without loss.

All but COCO's run lengths of the whole image cover the smallest region around the mask alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidInput, InvalidParameter, InvalidRegions
from ovperception.images import encode_png
from ovperception.rle import RLE
from ovperception.v1 import results_pb2 as pb

__all__ = ["MASK_ENCODINGS", "mask_message", "outlines", "read_mask"]


def mask_message(mask: RLE, encoding: int = pb.MASK_ENCODING_COCO_RLE) -> pb.Mask:
    """A mask.

    Args:
        mask: Of the whole image.
        encoding: A `MaskEncoding`.

    Raises:
        InvalidParameter: `encoding` is none that this module writes.
    """
    if encoding == pb.MASK_ENCODING_COCO_RLE:
        height, width = mask.size
        return pb.Mask(rle=pb.CocoRle(height=height, width=width, counts=mask.counts))
    write = _WRITERS.get(encoding)
    if write is None:
        raise InvalidParameter("Unknown mask encoding", field="mask_encoding", got=encoding)
    crop, top, left = mask.decode_crop()
    if not crop.size:
        crop = np.zeros((1, 1), np.uint8)
    height, width = crop.shape
    region = pb.PixelRegion(x=left, y=top, width=width, height=height)
    message = write(crop, region)
    message.region.CopyFrom(region)
    return message


def read_mask(message: pb.Mask, size: tuple[int, int]) -> RLE:
    """The mask of a message, whichever way it is written, for an image of `size`, (height, width).

    Raises:
        InvalidInput: It contradicts itself, or reaches beyond the image.
    """
    kind = message.WhichOneof("data")
    if kind is None:
        raise _contradiction("is not there, or written in a way this client does not know", kind)
    if kind == "rle" and not message.HasField("region"):
        return RLE((message.rle.height, message.rle.width), message.rle.counts)
    region = message.region if message.HasField("region") else pb.PixelRegion(width=size[1], height=size[0])
    inside = region.x + region.width <= size[1] and region.y + region.height <= size[0]
    if not inside or not region.width or not region.height:
        raise _contradiction("lies outside of its image", f"{region} in {size}")
    try:
        crop = _READERS[kind](message, region)
    except InvalidRegions as error:
        raise _contradiction("does not fit its region", error.got) from None
    return RLE.from_crop(crop, region.y, region.x, size)


def _write_rle(crop: NDArray[np.uint8], region: pb.PixelRegion) -> pb.Mask:
    counts = RLE.encode(crop).counts
    return pb.Mask(rle=pb.CocoRle(height=region.height, width=region.width, counts=counts))


def _read_rle(message: pb.Mask, region: pb.PixelRegion) -> NDArray[np.uint8]:
    if (message.rle.height, message.rle.width) != (region.height, region.width):
        raise _contradiction("does not fit its region", f"{message.rle.height} x {message.rle.width}")
    return RLE((region.height, region.width), message.rle.counts).decode()


def _write_png(crop: NDArray[np.uint8], region: pb.PixelRegion) -> pb.Mask:
    return pb.Mask(png=encode_png(crop * np.uint8(255)))


def _read_png(message: pb.Mask, region: pb.PixelRegion) -> NDArray[np.uint8]:
    data = message.png
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if grey is None or grey.shape != (region.height, region.width) or grey.dtype != np.uint8:
        raise _contradiction("is not the PNG it should be", f"{len(data)} bytes")
    return np.asarray(grey, np.uint8)


def _write_bits(crop: NDArray[np.uint8], region: pb.PixelRegion) -> pb.Mask:
    return pb.Mask(packed_bits=np.packbits(crop, axis=1).tobytes())


def _read_bits(message: pb.Mask, region: pb.PixelRegion) -> NDArray[np.uint8]:
    row = -(-region.width // 8)
    if len(message.packed_bits) != row * region.height:
        raise _contradiction("has the wrong number of bytes", len(message.packed_bits))
    packed = np.frombuffer(message.packed_bits, np.uint8).reshape(region.height, row)
    return np.unpackbits(packed, axis=1, count=region.width)


def _write_polygons(crop: NDArray[np.uint8], region: pb.PixelRegion) -> pb.Mask:
    shifted = (ring + np.array([region.x, region.y]) for ring in outlines(crop))
    polygons = [pb.Polygon(points=ring.ravel().tolist()) for ring in shifted]
    return pb.Mask(polygons=pb.PolygonList(polygons=polygons))


def _read_polygons(message: pb.Mask, region: pb.PixelRegion) -> NDArray[np.uint8]:
    """Even-odd filling: each vertical side turns over everything on its right."""
    turns = np.zeros((region.height, region.width + 1), np.uint8)
    for polygon in message.polygons.polygons:
        points = np.array(polygon.points, np.int64)
        if len(points) < 8 or len(points) % 4:
            raise _contradiction("has an outline that does not follow pixels", f"{len(points)} numbers")
        ring = points.reshape(-1, 2) - np.array([region.x, region.y])
        ends = np.roll(ring, -1, axis=0)
        if ring.min() < 0 or (ring.max(axis=0) > [region.width, region.height]).any():
            raise _contradiction("has an outline outside of its region", ring.tolist())
        if ((ring != ends).sum(axis=1) != 1).any():
            raise _contradiction("has an outline that does not follow pixels", ring.tolist())
        for (x, y0), (x1, y1) in zip(ring.tolist(), ends.tolist(), strict=True):
            if x == x1:
                turns[min(y0, y1) : max(y0, y1), x] ^= 1
    return np.asarray(np.bitwise_xor.accumulate(turns[:, :-1], axis=1), np.uint8)


def outlines(mask: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """The closed outlines of a mask along the edges of its pixels.

    The corners of all outlines, sorted by row, pair up into the horizontal sides; sorted by column, into the
    vertical ones (O'Rourke, "Uniqueness of orthogonal connect-the-dots", 1988). Where two pixels touch at a
    corner alone, two outlines have it.

    Args:
        mask: (h, w), 0 or 1.

    Returns:
        One (N, 2) array of x, y for each outline, N even and at least 4, sides alternately horizontal and
        vertical; a pixel belongs to the mask if it lies within an odd number of them.
    """
    padded = np.pad(mask.astype(np.int8), 1)
    # At each corner of four pixels: how many of them are set, and whether they are two on a diagonal.
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    times = (a + b + c + d) % 2 + 2 * ((a == d) & (b == c) & (a != b)).astype(np.int8)
    y, x = (np.repeat(axis, times[times > 0]) for axis in np.nonzero(times))
    across = _partners(np.lexsort((x, y)))
    along = _partners(np.lexsort((y, x)))
    rings, seen = [], np.zeros(len(x), bool)
    for first in range(len(x)):
        if seen[first]:
            continue
        ring, corner = [], first
        while not seen[corner]:
            other = across[corner]
            seen[corner] = seen[other] = True
            ring += [corner, other]
            corner = along[other]
        rings.append(np.stack([x[ring], y[ring]], axis=1))
    return rings


def _partners(order: NDArray[np.int64]) -> list[int]:
    """Whom each corner is joined to, when neighbours in `order` pair up."""
    partners = np.empty(len(order), np.int64)
    partners[order[0::2]], partners[order[1::2]] = order[1::2], order[0::2]
    return [int(partner) for partner in partners]


_WRITERS: Mapping[int, Callable[[NDArray[np.uint8], pb.PixelRegion], pb.Mask]] = {
    pb.MASK_ENCODING_CROPPED_RLE: _write_rle,
    pb.MASK_ENCODING_PNG: _write_png,
    pb.MASK_ENCODING_PACKED_BITS: _write_bits,
    pb.MASK_ENCODING_POLYGONS: _write_polygons,
}
_READERS: Mapping[str, Callable[[pb.Mask, pb.PixelRegion], NDArray[np.uint8]]] = {
    "rle": _read_rle,
    "png": _read_png,
    "packed_bits": _read_bits,
    "polygons": _read_polygons,
}
MASK_ENCODINGS = (pb.MASK_ENCODING_COCO_RLE, *_WRITERS)


def _contradiction(what: str, got: object) -> InvalidInput:
    mend = "Use a client and a server of the same version"
    return InvalidInput(f"A mask of the reply {what}", got=got, mend=mend)
