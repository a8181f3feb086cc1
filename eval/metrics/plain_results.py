"""The quick way to read a result file of boxes: a million records without a million dicts.

Detectors write their results record by record with the same keys in the same order, so all but the numbers of
the file repeats. That is checked byte by byte; then the numbers are read at once. Any file that is laid out
in another way, or holds anything but numbers, is left to the JSON reader and its messages.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_plain_boxes"]

_WIDTHS = {"image_id": 1, "category_id": 1, "bbox": 4, "score": 1}
_NUMERIC = b"0123456789.-+eE"
_SPACED = bytes(c if c in _NUMERIC else 32 for c in range(256))
_LARGEST_EXACT = 2**53


def read_plain_boxes(path: Path) -> dict[str, NDArray[np.float64]] | None:
    """(N,) "image_id", "category_id" and "score" and (N, 4) "bbox" of a file; None if it is not plain.

    Args:
        path: an uncompressed file.
    """
    content = path.read_bytes().strip()
    first = re.match(rb"\[\s*(\{[^{}]*\})", content)
    if first is None:
        return None
    try:
        record = json.loads(first[1])
    except ValueError:
        return None
    if record.keys() != _WIDTHS.keys() or not isinstance(record["bbox"], list) or len(record["bbox"]) != 4:
        return None
    for key in record:  # keys have an "e" too; what is left of letters then belongs to numbers
        content = content.replace(b'"%s"' % key.encode(), b'""')
    count = content.count(b"}")
    if not _repeats(content, count):
        return None
    numbers = _numbers(content)
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


def _repeats(content: bytes, count: int) -> bool:
    """Whether all but the numbers is one record over and over."""
    skeleton = content.translate(None, _NUMERIC)
    end = skeleton.find(b"}")
    unit = skeleton[1 : end + 1]
    rest = skeleton[end + 1 :]
    following = re.match(rb"(\s*,\s*)\{", rest)
    between = following[1] if following else b""
    closing = rest[rest.rfind(b"}") + 1 :] if following else rest
    if closing.strip() != b"]" or not unit.strip().startswith(b"{"):
        return False
    opening = unit.strip()
    return skeleton == b"[" + unit + (between + opening) * (count - 1) + closing


def _numbers(content: bytes) -> NDArray[np.float64] | None:
    """All numbers in order; None if one of them cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return np.fromstring(content.translate(_SPACED), np.float64, sep=" ")
        except (DeprecationWarning, ValueError):
            return None
