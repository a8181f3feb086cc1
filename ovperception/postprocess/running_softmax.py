"""The best of many classes and its share of the softmax, met some at a time.

What of them is in work at once stays in a core's own cache: with ten thousand classes on a picture the time
goes into reading and writing numbers, next to the products that make them.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import torch
from torch import Tensor

from ovperception.postprocess.resize import Resizer, Window
from ovperception.postprocess.winners import highest

__all__ = ["best_of_many"]

_CLASSES = 1024
"""Classes whose logits are held at full resolution at once."""

_CACHE = 2**17
"""Of these logits, how many are held on a CPU: half a megabyte."""


def best_of_many(cells: Tensor, resizer: Resizer, window: Window) -> tuple[Tensor, Tensor]:
    """Which class is highest in every pixel of a window, and its softmax over all.

    Args:
        cells: (h', w', K) logits of the part of the grid that the window reads.
        resizer: Of that grid.
        window: Of the presented image.

    Returns:
        Two (height, width): int64 classes, the first of equals, and their probabilities.
    """
    labels = torch.empty(window.size, dtype=torch.long, device=cells.device)
    shares = torch.empty(window.size, dtype=cells.dtype, device=cells.device)
    top, left = (part.start for part in resizer.region(window))
    for part in _parts(window, min(_CLASSES, cells.shape[2]), cells.device.type == "cpu"):
        rows, columns = resizer.region(part)
        read = cells[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        found, share = _best(read, resizer, part)
        area = (
            slice(part.top - window.top, part.bottom - window.top),
            slice(part.left - window.left, part.right - window.left),
        )
        labels[area], shares[area] = found.view(part.size), share.view(part.size)
    return labels, shares


def _best(cells: Tensor, resizer: Resizer, window: Window) -> tuple[Tensor, Tensor]:
    """(pixels, 1) classes and probabilities; the largest logit so far is taken off before any exponential."""
    classes = cells.shape[2]
    winner = best = total = torch.empty(0)
    for start in range(0, classes, _CLASSES):
        logits = resizer.expand(cells[..., start : start + _CLASSES], window)
        found = highest(logits)
        value = logits.gather(1, found)
        if not start:
            winner, best, total = found, value, _exponentials(logits, value)
            continue
        winner = torch.where(value > best, found + start, winner)  # the first of equals stays
        larger = torch.maximum(best, value)
        total = total * (best - larger).exp() + _exponentials(logits, larger)
        best = larger
    return winner, total.reciprocal()


def _exponentials(logits: Tensor, largest: Tensor) -> Tensor:
    """(N, K) and (N, 1) -> (N, 1), the sum of exp(logits - largest); the logits are used up."""
    logits -= largest
    if logits.device.type == "cpu" and logits.dtype == torch.float32 and logits.shape[1]:
        numbers = logits.numpy()
        cv2.exp(numbers, dst=numbers)  # a fifth of the time of torch's, and as exact
    else:
        logits.exp_()
    return logits.sum(dim=1, keepdim=True)


def _parts(window: Window, classes: int, small: bool) -> Iterator[Window]:
    """Cut a window so that the logits of a part fit the cache, halving its longer side."""
    height, width = window.size
    while small and height * width > 1 and height * width * classes > _CACHE:
        if height > width:
            height = -(-height // 2)
        else:
            width = -(-width // 2)
    for top in range(window.top, window.bottom, height):
        for left in range(window.left, window.right, width):
            yield Window(top, min(top + height, window.bottom), left, min(left + width, window.right))
