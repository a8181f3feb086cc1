"""Checks of many COCO run-length strings at once.

`ovperception.rle` reads one mask with good messages; the results of a data set hold a million of them, and
engines take what they get: a string that does not fill its image, or a mask of another image's size, yields a
wrong number and no word. Here all strings are decoded together, some thousands at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidDataset, InvalidRegions
from ovperception.rle import RLE

__all__ = ["check_masks"]

# Characters decoded together: a dozen arrays of 64 bits each have to stay in the second cache. Eight times as
# many take more than twice as long.
_CHUNK = 1 << 15
# Above any run of an image; a sum of this many for each character still fits 64 bits.
_ENDLESS = 1 << 40


def check_masks(
    masks: Sequence[Any], sizes: NDArray[np.int64], what: str
) -> tuple[list[Mapping[str, Any]], NDArray[np.int64]]:
    """Masks in compressed form, and their areas in pixels.

    Args:
        masks: (N,) COCO RLE, compressed or not.
        sizes: (N, 2) height and width of the image of each; negative where it is not known.
        what: the list is called in messages, such as "results".

    Raises:
        InvalidDataset: one is no RLE, is of another size than its image, or its runs do not fill it.
    """
    compressed: list[Mapping[str, Any]] = [
        mask if type(mask) is dict and type(mask.get("counts")) is str else _compressed(mask, i, what)
        for i, mask in enumerate(masks)
    ]
    pixels = _checked_sizes(compressed, sizes, what).prod(axis=1)
    areas = np.zeros(len(compressed), np.int64)
    begin = characters = 0
    for index, mask in enumerate(compressed):
        characters += len(mask["counts"])
        if characters >= _CHUNK:
            areas[begin : index + 1] = _areas(compressed[begin : index + 1], pixels, begin, what)
            begin, characters = index + 1, 0
    areas[begin:] = _areas(compressed[begin:], pixels, begin, what)
    return compressed, areas


def _compressed(mask: Any, index: int, what: str) -> Mapping[str, Any]:
    try:
        if mask is None:
            raise InvalidRegions("This has no mask", expected='a "segmentation" in COCO RLE')
        if not isinstance(mask, Mapping):
            raise InvalidRegions("Polygons are no masks", expected="COCO RLE", got=mask)
        return RLE.from_coco(mask).to_coco()
    except InvalidRegions as error:
        raise _invalid(error, index, what) from error


def _invalid(error: InvalidRegions, index: int, what: str) -> InvalidDataset:
    return InvalidDataset(
        error.what,
        field=f"{what}[{index}].segmentation",
        expected=error.expected,
        got=error.got or None,
        mend=error.mend,
    )


def _checked_sizes(
    masks: Sequence[Mapping[str, Any]], sizes: NDArray[np.int64], what: str
) -> NDArray[np.int64]:
    """(N, 2) height and width of each mask."""
    try:
        given = [mask["size"] for mask in masks]
        if set(map(len, given)) <= {2} and set(map(type, chain.from_iterable(given))) <= {int}:
            found = np.fromiter(chain.from_iterable(given), np.int64).reshape(-1, 2)
        else:  # a size may be of other numbers, such as NumPy's
            found = np.array(given, np.int64).reshape(-1, 2)
    except (KeyError, TypeError, ValueError, OverflowError):
        for index, mask in enumerate(masks):  # one of them has a message of its own
            _compressed(mask, index, what)
        raise
    differs = (found != sizes).any(axis=1) & (sizes >= 0).all(axis=1)
    if differs.any():
        index = int(np.argmax(differs))
        raise InvalidDataset(
            "A mask is not of the size of its image",
            field=f"{what}[{index}].segmentation.size",
            expected=f"[height, width] = {sizes[index].tolist()}",
            got=found[index].tolist(),
            mend="Masks have to be made at the size of the annotated image.",
        )
    return found


def _areas(
    masks: Sequence[Mapping[str, Any]], pixels: NDArray[np.int64], first: int, what: str
) -> NDArray[np.int64]:
    """Area of each; the first one that is wrong is read again by `RLE`, which says why."""
    if not masks:
        return np.zeros(0, np.int64)
    strings = [mask["counts"] for mask in masks]
    filled, areas = _filled(strings, pixels[first : first + len(masks)])
    if not filled.all():
        wrong = int(np.argmin(filled))
        _compressed(masks[wrong], first + wrong, what)
        raise InvalidDataset("This is not COCO RLE", field=f"{what}[{first + wrong}].segmentation")
    return areas


def _filled(strings: list[str], pixels: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether each string's runs lie in 0 to its pixels and add up to them; and the odd runs' sum."""
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    try:
        characters = np.frombuffer("".join(strings).encode("ascii"), np.uint8) - np.uint8(48)
    except UnicodeEncodeError:  # one by one, to find which
        return np.array([s.isascii() for s in strings]), np.zeros(len(strings), np.int64)
    stops = np.cumsum(lengths)
    if not len(characters) or lengths.min() == 0 or characters.max() > 63:
        broken = np.repeat(np.arange(len(strings)), lengths)[characters > 63]
        return (lengths > 0) & ~np.isin(np.arange(len(strings)), broken), np.zeros(len(strings), np.int64)
    last = (characters & 32) == 0
    if not last[stops - 1].all():
        return last[stops - 1], np.zeros(len(strings), np.int64)
    ends = np.flatnonzero(last)
    # Runs of mask m are numbers[begin[m] : stop[m]]; every one has at least one.
    stop = np.searchsorted(ends, stops - 1) + 1
    return _summed(_numbers(characters, ends), np.diff(stop, prepend=0), pixels)


def _summed(
    numbers: NDArray[np.int64], runs: NDArray[np.int64], pixels: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Undoes the differences, each to the run two before, of masks of so many runs each."""
    # Every mask is moved to an even place, so that two strides tell its odd runs from its even ones.
    halves = (runs + 1) // 2
    stop = np.cumsum(halves)
    begin = stop - halves
    absent = stop[runs % 2 == 1] - 1  # of the odd runs
    present = np.ones((int(stop[-1]), 2), bool)
    present[absent, 1] = False
    moved = np.zeros(present.shape, np.int64)
    moved[present] = numbers
    even, odd = moved[:, 0], moved[:, 1]
    first = even[begin]
    even[begin] = 0  # the third run is itself, no difference to the first
    for column in (even, odd):
        column[begin[1:]] -= np.add.reduceat(column, begin)[:-1]  # each mask starts from nothing
        np.cumsum(column, out=column)
    even[begin] = first
    odd[absent] = 0
    flat = moved.reshape(-1)
    np.minimum(flat, _ENDLESS, out=flat)
    areas = np.add.reduceat(odd, begin)
    fits = np.add.reduceat(even, begin) + areas == pixels
    if flat.min() < 0:
        fits &= np.minimum.reduceat(flat, 2 * begin) >= 0
    return fits, areas


def _numbers(characters: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """The signed numbers whose last characters are at `ends`: five bits a character, low ones first.

    Three characters fill 15 bits: a number that ends here is worked out at every character, whether one does
    or not, which takes less than picking out those that do. Few are longer.
    """
    bits = (characters & 31).astype(np.int16)
    more = (characters >> 5).astype(np.int16)
    values = (bits ^ 16) - 16  # the fifth bit of the last character is the sign
    low = bits * more
    longer = more[:-1]  # of the one before
    values[1:] *= 1 + 31 * longer
    values[1:] += low[:-1]
    longest = longer[1:] * more[:-2]
    values[2:] *= 1 + 31 * longest
    values[2:] += low[:-2] * more[1:-1]
    numbers: NDArray[np.int64] = values[ends].astype(np.int64)
    lengths = np.diff(ends, prepend=-1)
    longer_ones = np.flatnonzero(lengths > 3)
    numbers[longer_ones] = _long_numbers(characters, ends[longer_ones], lengths[longer_ones])
    return numbers


def _long_numbers(
    characters: NDArray[np.uint8], ends: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    starts = ends - lengths + 1
    numbers: NDArray[np.int64] = (characters[starts] & 31).astype(np.int64)
    for k in range(1, min(int(lengths.max(initial=0)), 8)):
        longer = np.flatnonzero(lengths > k)
        numbers[longer] += (characters[starts[longer] + k] & 31).astype(np.int64) << (5 * k)
    numbers[lengths > 7] = -_ENDLESS  # longer than any run of an image: found negative later
    negative = (characters[ends] & 16) != 0
    numbers[negative] -= np.int64(1) << (5 * lengths[negative])
    return numbers
