"""The quick way to read a result file: a million records without a million dicts.

Detectors write their results record by record with the same keys in the same order, so all but the numbers and
the strings of masks repeats. The strings are cut out, the rest is checked byte by byte, and the numbers are
read at once. Any file that is laid out in another way, or holds anything else, is left to the JSON reader and
its messages.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from ovperception.rle import CocoRLE

__all__ = ["PlainResults", "read_plain_results"]

# Numbers of each key; a mask's are height, width and the digit that stands for its string.
_WIDTHS = {"image_id": 1, "category_id": 1, "score": 1, "bbox": 4, "segmentation": 3}
# "^" stands for the "e" of an exponent such as that of 1e-05, as keys have an "e" too.
_NUMERIC = b"0123456789.-+^"
_NUMBERS = bytes(c if c in _NUMERIC + b"," else 32 for c in range(256)).replace(b"^", b"e")
_LONGEST_RECORD = 4096
# Bytes whose numbers are Python objects at one time: they stay in the cache.
_CHUNK = 1 << 19
_LARGEST_EXACT = 2**53


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlainResults:
    """A result file by column; no number is checked yet.

    Attributes:
        image_ids: (N,).
        category_ids: (N,).
        scores: (N,).
        boxes: (N, 4) as the file says; None if it has none.
        masks: (N,) compressed; None if it has none.
    """

    image_ids: NDArray[np.float64]
    category_ids: NDArray[np.float64]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64] | None
    masks: list[CocoRLE] | None


def read_plain_results(path: Path) -> PlainResults | None:
    """Columns of a file; None if it is not plain.

    Args:
        path: a file that exists.
    """
    content = path.read_bytes().strip()
    cut = _without_strings(content) if content.startswith(b"[") else None
    if cut is None:
        return None
    content, strings = cut
    first = _first_record(content)
    widths = None if first is None else _widths(first)
    if first is None or widths is None or b"^" in content:
        return None
    content = content.replace(b"e-", b"^-")
    count = _repetitions(content, first.replace(b"e-", b"^-"))
    numbers = _numbers(content) if count else None
    if numbers is None or numbers.size != sum(widths.values()) * count:
        return None
    stops = np.cumsum(list(widths.values()))[:-1]
    columns = dict(zip(widths, np.split(numbers.reshape(count, -1), stops, axis=1), strict=True))
    whole = [columns[key] for key in ("image_id", "category_id", "segmentation") if key in columns]
    if not all((np.abs(column) < _LARGEST_EXACT).all() for column in whole):
        return None
    try:
        masks = _masks(columns["segmentation"][:, :2], strings) if "segmentation" in columns else None
    except ValueError:
        return None
    return PlainResults(
        image_ids=columns["image_id"][:, 0],
        category_ids=columns["category_id"][:, 0],
        scores=columns["score"][:, 0],
        boxes=columns.get("bbox"),
        masks=masks,
    )


def _without_strings(content: bytes) -> tuple[bytes, list[bytes]] | None:
    """The file with a digit in the place of each mask's string, and these strings."""
    key = re.search(rb'"counts"\s*:\s*"', content)
    if key is None:
        return content, []
    if b"\\" in content:  # RLE uses it and JSON writes it twice; no other escape belongs into RLE, and no "~"
        if b"~" in content:
            return None
        content = content.replace(rb"\\", b"~")
        if b"\\" in content:
            return None
        content = content.replace(b"~", b"\\")
    head, *pieces = content.split(key[0])
    split = [piece.partition(b'"') for piece in pieces]
    return (key[0] + b'0"').join([head, *(rest for _, _, rest in split)]), [string for string, _, _ in split]


def _first_record(content: bytes) -> bytes | None:
    opening = re.match(rb"\[\s*", content)
    text = content[opening.end() : opening.end() + _LONGEST_RECORD] if opening else b""
    try:
        _, length = json.JSONDecoder().raw_decode(text.decode("ascii"))
    except ValueError:
        return None
    return text[:length]


def _widths(record: bytes) -> dict[str, int] | None:
    """How many numbers each key has, in the order of the file; None if a value is anything else."""
    values = json.loads(record)
    if not isinstance(values, dict) or not {"image_id", "category_id", "score"} <= values.keys():
        return None
    widths: dict[str, int] = {}
    for key, value in values.items():
        if key == "segmentation":
            if not isinstance(value, dict) or list(value) != ["size", "counts"] or value["counts"] != "0":
                return None
            value = [*value["size"], 0] if isinstance(value["size"], list) else None
        numbers = value if isinstance(value, list) else [value]
        if not set(map(type, numbers)) <= {int, float} or _WIDTHS.get(key, len(numbers)) != len(numbers):
            return None
        widths[key] = len(numbers)
    return widths


def _repetitions(content: bytes, record: bytes) -> int:
    """How many records a list has, if all but the numbers is that record over and over; otherwise 0."""
    skeleton, unit = (text.translate(None, _NUMERIC) for text in (content, record))
    begin = skeleton.find(unit)
    between = re.compile(rb"\s*,\s*").match(skeleton, begin + len(unit))
    closing = skeleton[skeleton.rfind(b"}") + 1 :]
    count = skeleton.count(unit)
    following = (between[0] if between else b"") + unit
    if closing.strip() != b"]" or skeleton != skeleton[:begin] + unit + following * (count - 1) + closing:
        return 0
    return count


def _numbers(content: bytes) -> NDArray[np.float64] | None:
    """All numbers in order; None if one of them cannot be read, or is not where a comma says."""
    chunks = []
    begin = 0
    while begin >= 0:
        end = content.find(b",", begin + _CHUNK)
        text = content[begin : end if end >= 0 else len(content)].translate(_NUMBERS)
        try:
            chunks.append(np.array(from_json(b"[" + text + b"]"), np.float64))
        except (ValueError, OverflowError):
            return None
        begin = end + 1 if end >= 0 else -1
    return np.concatenate(chunks)


def _masks(sizes: NDArray[np.float64], strings: list[bytes]) -> list[CocoRLE]:
    """Compressed masks of (N, 2) sizes.

    Raises:
        ValueError: a size is not whole, or a string is not ASCII.
    """
    if not (sizes == np.floor(sizes)).all():
        raise ValueError
    pairs = zip(sizes.astype(np.int64).tolist(), strings, strict=True)
    return [{"size": size, "counts": string.decode("ascii")} for size, string in pairs]
