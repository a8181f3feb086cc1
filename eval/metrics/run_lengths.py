"""Checks of many COCO run-length strings at once.

`ovperception.rle` reads one mask with good messages; the results of a data set hold a million of them, and
engines take what they get: a string that does not fill its image, or a mask of another image's size, yields a
wrong number and no word. Here all strings are decoded together, some thousands at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidDataset, InvalidRegions
from ovperception.rle import RLE

__all__ = ["check_masks"]

# Characters decoded together: enough that a call of NumPy's costs little, and few enough for the caches. A
# quarter as many take half as long again.
_CHUNK = 1 << 17
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
    strings = [mask["counts"] for mask in compressed]
    areas = np.zeros(len(strings), np.int64)
    for begin, end in _chunks(strings):
        filled, areas[begin:end] = _filled(strings[begin:end], pixels[begin:end])
        if not filled.all():  # the first one that is wrong is read again by `RLE`, which says why
            wrong = begin + int(np.argmin(filled))
            _compressed(compressed[wrong], wrong, what)
            raise InvalidDataset("This is not COCO RLE", field=f"{what}[{wrong}].segmentation")
    return compressed, areas


def _chunks(strings: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Begin and end of strings that are decoded together."""
    begin = characters = 0
    for end, string in enumerate(strings, 1):
        characters += len(string)
        if characters >= _CHUNK:
            yield begin, end
            begin, characters = end, 0
    if begin < len(strings):
        yield begin, len(strings)


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
    last = characters < 32
    if not last[stops - 1].all():
        return last[stops - 1], np.zeros(len(strings), np.int64)
    ends = np.flatnonzero(last)
    # Every string has at least one run.
    runs = np.diff(np.searchsorted(ends, stops - 1) + 1, prepend=0)
    return _summed(_numbers(characters, ends), runs, pixels)


def _summed(
    numbers: NDArray[np.int64], runs: NDArray[np.int64], pixels: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Undoes the differences, each to the run two before, of masks of so many runs each."""
    stop = np.cumsum(runs)
    begin = stop - runs
    first = numbers[begin]
    numbers[begin] = 0  # the third run is itself, no difference to the first
    # Each mask starts from nothing, at even and at odd places.
    fresh = np.sort(np.concatenate([begin, begin[runs > 1] + 1]))
    for odd in (0, 1):
        column, at = numbers[odd::2], fresh[fresh % 2 == odd] // 2
        if len(at):
            column[at[1:]] -= np.add.reduceat(column, at)[:-1]
            np.cumsum(column, out=column)
    numbers[begin] = first
    np.minimum(numbers, _ENDLESS, out=numbers)
    total = np.add.reduceat(numbers, begin)
    fits = (np.minimum.reduceat(numbers, begin) >= 0) & (total == pixels)
    odd_places = numbers[1::2]
    np.negative(odd_places, out=odd_places)
    balance = np.add.reduceat(numbers, begin)  # of even places over odd ones
    return fits, (total - np.where(begin % 2, -balance, balance)) // 2


def _numbers(characters: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """The signed numbers whose last characters are at `ends`: five bits a character, low ones first.

    Three characters fill 15 bits: a number that ends here is worked out at every character, whether one does
    or not, which takes less than picking out those that do. Few are longer.
    """
    bits = (characters & 31).view(np.int8)
    more = (characters >> 5).view(np.int8)
    low = (bits * more).astype(np.int16)
    values = ((bits ^ 16) - np.int8(16)).astype(np.int16)  # the fifth bit of the last character is the sign
    values[1:] *= 1 + 31 * more[:-1]
    values[1:] += low[:-1]
    longer = more[1:-1] * more[:-2]
    values[2:] *= 1 + 31 * longer
    values[2:] += low[:-2] * more[1:-1]
    numbers: NDArray[np.int64] = values.take(ends).astype(np.int64)
    fourth = np.flatnonzero((longer[:-1] * more[2:-1]).view(np.bool_)) + 3
    long_ends = fourth[characters[fourth] < 32]
    at = np.searchsorted(ends, long_ends)
    lengths = long_ends - np.where(at > 0, ends[at - 1], -1)
    numbers[at] = _long_numbers(characters, long_ends, lengths)
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
