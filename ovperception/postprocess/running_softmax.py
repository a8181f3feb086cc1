"""The best of many classes and its share of the softmax, met some at a time.

What of them is in work at once stays in a core's own cache: with ten thousand classes on a picture the time
goes into reading and writing numbers, next to the products that make them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import torch
from torch import Tensor

from ovperception.postprocess.resize import Resizer, Window
from ovperception.postprocess.winners import highest

__all__ = ["best_of_many"]

_CACHE = 2**18
"""How many logits at full resolution are held on a CPU: a megabyte."""


def best_of_many(pieces: Iterable[Tensor], resizer: Resizer, window: Window) -> tuple[Tensor, Tensor]:
    """Which class is highest in every pixel of a window, and its softmax over all.

    Args:
        pieces: At least one (h', w', K'), logits of consecutive classes of the part of the grid that the
            window reads; none outlives the next.
        resizer: Of that grid.
        window: Of the presented image.

    Returns:
        Two (height, width): int64 classes, the first of equals, and their probabilities.
    """
    winner = best = total = torch.empty(0)
    top, left = (part.start for part in resizer.region(window))
    classes = 0
    for piece in pieces:
        if not classes:
            winner = torch.zeros(window.size, dtype=torch.long, device=piece.device)
            best = torch.full(window.size, -torch.inf, dtype=piece.dtype, device=piece.device)
            total = torch.zeros_like(best)
        for part in _parts(window, piece):
            rows, columns = resizer.region(part)
            read = piece[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
            logits = resizer.expand(read, part)
            area = (
                slice(part.top - window.top, part.bottom - window.top),
                slice(part.left - window.left, part.right - window.left),
            )
            _meet(logits, classes, winner[area], best[area], total[area])
        classes += piece.shape[2]
    return winner, total.reciprocal_()


def _meet(logits: Tensor, first: int, winner: Tensor, best: Tensor, total: Tensor) -> None:
    """Take (pixels, K') logits of the classes from `first` on into what is known of a part of a window.

    Args:
        logits: Used up.
        first: Index of their first class.
        winner: (height, width) of the part, the best class so far.
        best: Its logit.
        total: The sum of the exponentials of all logits so far, less the largest.
    """
    found = highest(logits)
    value = logits.gather(1, found)
    if not first:
        winner.copy_(found.view(winner.shape))
        best.copy_(value.view(best.shape))
        total.copy_(_exponentials(logits, value).view(total.shape))
        return
    larger = torch.maximum(best, value.view(best.shape))
    winner.copy_(torch.where(larger > best, found.view(winner.shape) + first, winner))  # the first of equals
    total.mul_(best.sub_(larger).exp_()).add_(_exponentials(logits, larger.view(-1, 1)).view(total.shape))
    best.copy_(larger)


def _exponentials(logits: Tensor, largest: Tensor) -> Tensor:
    """(N, K) and (N, 1) -> (N, 1), the sum of exp(logits - largest); the logits are used up."""
    logits -= largest
    if logits.device.type == "cpu" and logits.dtype == torch.float32 and logits.shape[1]:
        numbers = logits.numpy()
        cv2.exp(numbers, dst=numbers)  # a fifth of the time of torch's, and as exact
    else:
        logits.exp_()
    return logits.sum(dim=1, keepdim=True)


def _parts(window: Window, piece: Tensor) -> Iterator[Window]:
    """Cut a window so that the logits of a part fit the cache, halving its longer side."""
    classes = piece.shape[2]
    for tile in window.tiles(piece.device, maps=classes):
        height, width = tile.size
        while piece.device.type == "cpu" and height * width > 1 and height * width * classes > _CACHE:
            if height > width:
                height = -(-height // 2)
            else:
                width = -(-width // 2)
        for top in range(tile.top, tile.bottom, height):
            for left in range(tile.left, tile.right, width):
                yield Window(top, min(top + height, tile.bottom), left, min(left + width, tile.right))
