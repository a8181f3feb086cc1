"""Views under blocks that refine logits (arch_option 1 and 2), as the official evaluator adds them up.

The evaluator runs the whole network on every window: the blocks see the logits of one window, and only what
they give is averaged, mirrored back, resized and added up. They are not linear, so windows cannot be averaged
before the words are known. Every window's embeddings are kept instead, and the rest is the words' half:
much memory (512 numbers for every fourth pixel of every window) and a slow second question. None of the
published checkpoints has such blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ovperception.errors import InvalidParameter
from ovperception.head import PixelEncoding, TextPixelScores
from ovperception.sliding import Band, Views, places, windows

__all__ = ["LookedEncoding", "LookedScores", "keep_looks"]

_MOST = 2**32
"""Bytes that the windows of a picture may take: the six published scales of a 4 x 3 one, not of a square."""


@dataclass(frozen=True)
class LookedEncoding(PixelEncoding):
    """Embeddings of every window: (B, W, D, h, w), each window followed by its mirror image, mirrored back.

    Attributes:
        size: (B, 2), (height, width) of the network input.
    """

    size: Tensor


def keep_looks(embed: Callable[[Tensor], Tensor], images: Tensor, views: Views) -> LookedEncoding:
    """Look as `ovperception.sliding.look_around` does, and average nothing.

    Raises:
        InvalidParameter: A scale makes a picture of this shape immense, or there is too much to keep.
    """
    size = (int(images.shape[2]), int(images.shape[3]))
    sides = 2 if views.flip else 1
    count = sides * sum(1 for _ in places(size, views))
    kept: Tensor | None = None
    for index, (window, _) in enumerate(windows(images, views)):
        for side in range(sides):
            found = embed(window.flip(-1)).flip(-1) if side else embed(window)
            if kept is None:
                needed = 4 * count * found[0].numel()
                if needed > _MOST:
                    raise InvalidParameter(
                        "Blocks that refine logits need every window kept, and these are too many",
                        field="views",
                        expected=f"up to {_MOST} bytes",
                        got=f"{count} windows of {needed // count} bytes",
                        mend="Take fewer or smaller scales",
                    )
                kept = torch.empty(len(images), count, *found.shape[1:], device=found.device)
            kept[:, sides * index + side] = found
    assert kept is not None
    return LookedEncoding(embeddings=kept, size=torch.tensor([size] * len(images)))


@dataclass(frozen=True, kw_only=True)
class LookedScores(TextPixelScores):
    """The mean over all windows of their refined logits, on the grid of the views.

    Attributes:
        embeddings: (W, D, h, w), of every window.
        views: How the picture was looked at.
        size: (height, width) of the network input.
    """

    views: Views
    size: tuple[int, int]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the views."""
        return self.views.grid(self.size)

    @property
    def similarities(self) -> Tensor:
        """(h, w), the largest mean inner product of each place with any row of the text."""
        plain = replace(self, refine=None, reach=0, scale=1.0)
        height, width = self.grid
        return plain.cells(slice(0, height), slice(0, width)).amax(2)

    @cached_property
    def _bands(self) -> tuple[tuple[Band, Band], ...]:
        height, width = self.embeddings.shape[2:]
        like = self.embeddings
        return tuple(
            (place.down.over(height, like), place.across.over(width, like))
            for place in places(self.size, self.views)
        )

    def cells(self, rows: slice, columns: slice) -> Tensor:
        """(h', w', K) logits of a part of the grid."""
        shape = (rows.stop - rows.start, columns.stop - columns.start, self.classes)
        total = self.embeddings.new_zeros(shape)
        for index, (down, across) in enumerate(self._bands):
            top, left = max(rows.start, down.start), max(columns.start, across.start)
            bottom, right = min(rows.stop, down.stop), min(columns.stop, across.stop)
            if top >= bottom or left >= right:
                continue
            tall = down.weights[top - down.start : bottom - down.start]
            wide = across.weights[left - across.start : right - across.start]
            seen = self._window(index, _used(tall), _used(wide))
            part = torch.einsum("xw,hwk->hxk", wide[:, _used(wide)], seen)
            part = torch.einsum("yh,hxk->yxk", tall[:, _used(tall)], part)
            total[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] += (
                part
            )
        return total / self.views.looks

    def _window(self, index: int, rows: slice, columns: slice) -> Tensor:
        """(h', w', K), a part of a window's refined logits, with those of its mirror image added."""
        sides = 2 if self.views.flip else 1
        looks = []
        for side in range(sides):
            one = TextPixelScores(
                embeddings=self.embeddings[sides * index + side],
                text=self.text,
                scale=self.scale,
                refine=_mirrored(self.refine) if side else self.refine,
                reach=self.reach,
            )
            looks.append(one.cells(rows, columns))
        return looks[0] if sides == 1 else looks[0] + looks[1]


def _mirrored(refine: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor] | None:
    return None if refine is None else lambda logits: refine(logits.flip(-1)).flip(-1)


def _used(weights: Tensor) -> slice:
    """The columns that any row has a share of."""
    found = (weights != 0).any(0).nonzero()
    return slice(int(found[0]), int(found[-1]) + 1)
