"""The quick way to read a result file of boxes: a million records without a million dicts.

Detectors write their results record by record with the same keys in the same order, so all but the numbers of
the file repeats. That is checked byte by byte; then the numbers are read at once. Any file that is laid out
in another way, or holds anything but numbers, is left to the JSON reader and its messages. So are masks: most
of such a file is strings, which that reader is as quick with.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

__all__ = ["read_plain_boxes"]

_WIDTHS = {"image_id": 1, "category_id": 1, "bbox": 4, "score": 1}
# "^" stands for the "e" of an exponent such as that of 1e-05, as keys have an "e" too.
_NUMERIC = b"0123456789.-+^"
_NUMBERS = bytes(c if c in _NUMERIC + b',"' else 32 for c in range(256)).replace(b"^", b"e")
_LETTERS = b"abcdefghijklmnopqrstuvwxyz_"
# Bytes whose numbers are Python objects at one time: they stay in the cache.
_CHUNK = 1 << 19
_BLANK = b" \t\r\n"  # to JSON; Python takes more for it
_LARGEST_EXACT = 2**53


def read_plain_boxes(path: Path) -> dict[str, NDArray[np.float64]] | None:
    """(N,) "image_id", "category_id" and "score" and (N, 4) "bbox" of a file; None if it is not plain.

    Args:
        path: an uncompressed file.
    """
    content = path.read_bytes().strip(_BLANK)
    first = re.match(rb"\[[ \t\r\n]*(\{[^{}]*\})", content)
    if first is None or b"^" in content:
        return None
    try:
        record = json.loads(first[1])
    except ValueError:
        return None
    if record.keys() != _WIDTHS.keys() or not isinstance(record["bbox"], list) or len(record["bbox"]) != 4:
        return None
    content = content.replace(b"e-", b"^-")
    count = _repetitions(content)
    numbers = _numbers(content) if count else None
    if numbers is None or numbers.size != 7 * count:
        return None
    table = numbers.reshape(-1, 7)
    columns: dict[str, NDArray[np.float64]] = {}
    at = 0
    for key in record:
        width = _WIDTHS[key]
        columns[key] = table[:, at] if width == 1 else table[:, at : at + width]
        at += width
    ids = np.abs(np.stack([columns["image_id"], columns["category_id"]]))
    return columns if (ids < _LARGEST_EXACT).all() else None


def _repetitions(content: bytes) -> int:
    """How many records there are, if all but the numbers is one record over and over; otherwise 0."""
    skeleton = content.translate(None, _NUMERIC)
    end = skeleton.find(b"}")
    unit = skeleton[1 : end + 1]
    rest = skeleton[end + 1 :]
    following = re.match(rb"([ \t\r\n]*,[ \t\r\n]*)\{", rest)
    between = following[1] if following else b""
    closing = rest[rest.rfind(b"}") + 1 :] if following else rest
    opening = unit.strip(_BLANK)
    if closing.strip(_BLANK) != b"]" or not opening.startswith(b"{"):
        return 0
    count = skeleton.count(b"}")
    return count if skeleton == b"[" + unit + (between + opening) * (count - 1) + closing else 0


def _numbers(content: bytes) -> NDArray[np.float64] | None:
    """All numbers in order; None if one is not JSON's, is part of a key, or is not at its comma."""
    chunks = []
    begin = 0
    while begin < len(content):
        end = content.find(b",", begin + _CHUNK)
        end = end if end >= 0 else len(content)
        text = content[begin:end].translate(_NUMBERS, _LETTERS).replace(b'""', b"")
        if b'"' in text:
            return None
        try:
            chunks.append(np.array(from_json(b"[%s]" % text), np.float64))
        except (ValueError, OverflowError):
            return None
        begin = end + 1
    return np.concatenate(chunks)
