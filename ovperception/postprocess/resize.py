"""Logits on a network's grid to logits at any pixels of the presented image, without making the whole image.

The references interpolate twice, bilinearly, most with ``align_corners=False``: from the grid to the padded
network input, which is then cut to the picture, and from there to the presented image. Both steps are linear
and act on rows and columns alike, so the two together are one small matrix for the rows and one for the
columns. The matrices come out of torch's own interpolation, so they hold its weights, rounding included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ovperception.images import Geometry

__all__ = ["Resizer", "Window", "tiles"]

_TILE = (32, 64)
"""Hundreds of maps of it stay in a core's cache; smaller ones pay more for being many than they gain."""

_LARGE_TILE = (256, 512)
"""Large enough to keep a GPU busy."""

_MOST = 2**27
"""Numbers a large tile may hold."""

_ROWS = 64


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of the presented image; `bottom` and `right` are no part of it."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left

    def tiles(self, device: torch.device | str = "cpu", *, maps: int = 1) -> Iterator[Window]:
        """Cut it, as `tiles` does an image."""
        rows, columns = _TILE if torch.device(device).type == "cpu" else _LARGE_TILE
        while rows > _TILE[0] and rows * columns * maps > _MOST:
            rows, columns = rows // 2, columns // 2
        for top in range(self.top, self.bottom, rows):
            for left in range(self.left, self.right, columns):
                yield Window(top, min(top + rows, self.bottom), left, min(left + columns, self.right))


@dataclass(frozen=True)
class _Axis:
    """One axis: ``out = weights @ grid``, and the half-open range of cells each output reads."""

    weights: Tensor  # (pixels, cells)
    first: tuple[int, ...]
    last: tuple[int, ...]

    def cells(self, start: int, stop: int) -> slice:
        """The cells that pixels `start` to `stop` read."""
        return slice(self.first[start], self.last[stop - 1])

    def most(self, pixels: int) -> int:
        """The most cells that so many pixels in a row read, of ranges that lie side by side."""
        starts = range(0, len(self.first), pixels)
        return max(self.last[min(s + pixels, len(self.last)) - 1] - self.first[s] for s in starts)

    def pixels(self, touched: Tensor) -> tuple[int, int]:
        """The range of pixels that read any of the cells marked in (cells,) bool; empty if none does."""
        found = (self.weights @ touched.to(self.weights)).nonzero()  # no weight is negative
        return (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)


class Resizer:
    """Resizes maps of one grid into windows of the presented image.

    Many maps lie with what they say of one cell or pixel side by side, (h, w, N), so that comparing and
    adding them up runs along memory.

    Args:
        geometry: How the image lies in the network's input.
        grid: (height, width) of the maps, which cover the padded network input.
        device: Where the maps are.
        align_corners: As of `torch.nn.functional.interpolate`, in both steps.
    """

    def __init__(
        self,
        geometry: Geometry,
        grid: tuple[int, int],
        device: torch.device | str = "cpu",
        *,
        align_corners: bool = False,
    ) -> None:
        self.size = geometry.original
        self._rows, self._columns = (
            _axis(cells, padded, resized, original, torch.device(device), align_corners)
            for cells, padded, resized, original in zip(
                grid, geometry.padded, geometry.resized, geometry.original, strict=True
            )
        )

    def region(self, window: Window) -> tuple[slice, slice]:
        """The rows and columns of the grid that a window reads."""
        return (
            self._rows.cells(window.top, window.bottom),
            self._columns.cells(window.left, window.right),
        )

    def windows(self, most: int) -> Iterator[Window]:
        """The whole image in windows that read no more than so many cells, if they are larger than a pixel.

        They are as wide as the image for as long as they can: cells are made anew for each window, and those
        between two of them twice.
        """
        height, width = self.size
        while height * width > 1 and self._rows.most(height) * self._columns.most(width) > most:
            if width == 1 or (height > 1 and (height > _TILE[0] or height >= width)):
                height = -(-height // 2)
            else:
                width = -(-width // 2)
        for top in range(0, self.size[0], height):
            for left in range(0, self.size[1], width):
                yield Window(top, min(top + height, self.size[0]), left, min(left + width, self.size[1]))

    def cells(self, maps: Tensor, window: Window) -> Tensor:
        """A view (h', w', N) of what a window reads of (h, w, N) maps; its extremes bound the window's."""
        return maps[self.region(window)]

    def expand(self, cells: Tensor, window: Window) -> Tensor:
        """What `cells` gave -> (pixels of the window, N)."""
        rows = self._rows.cells(window.top, window.bottom)
        columns = self._columns.cells(window.left, window.right)
        across = self._columns.weights[window.left : window.right, columns]
        wide = torch.bmm(across.expand(len(cells), -1, -1), cells).flatten(1)
        down = self._rows.weights[window.top : window.bottom, rows]
        return (down @ wide).view(math.prod(window.size), cells.shape[2])

    def one(self, grid: Tensor, window: Window) -> Tensor:
        """One map (h, w) of the whole grid -> the window's (height, width)."""
        columns = self._columns.cells(window.left, window.right)
        narrow = self._columns.weights[window.left : window.right, columns]
        height, width = window.size
        out = grid.new_empty(height, width)
        # A few rows at a time: the matrix of all rows is nearly all zeros.
        for start in range(0, height, _ROWS):
            top, stop = window.top + start, min(start + _ROWS, height)
            rows = self._rows.cells(top, window.top + stop)
            wide = grid[rows, columns] @ narrow.T
            torch.mm(self._rows.weights[top : window.top + stop, rows], wide, out=out[start:stop])
        return out

    def extent(self, inside: Tensor) -> Window:
        """The smallest window outside of which no pixel reads a marked cell of (h, w) bool."""
        top, bottom = self._rows.pixels(inside.any(dim=1))
        left, right = self._columns.pixels(inside.any(dim=0))
        return Window(top, bottom, left, right)


@lru_cache(maxsize=16)
def _axis(
    cells: int, padded: int, resized: int, original: int, device: torch.device, align_corners: bool
) -> _Axis:
    # Cached tensors must be ordinary ones, wherever the first caller stands.
    with torch.inference_mode(False), torch.no_grad():
        unit = torch.eye(cells)[None, :, None]  # (1, cells, 1, cells): a one-row image a cell
        inner = F.interpolate(unit, size=(1, padded), mode="bilinear", align_corners=align_corners)
        cut = inner[..., :resized]
        outer = F.interpolate(cut, size=(1, original), mode="bilinear", align_corners=align_corners)
        weights = outer[0, :, 0].T.contiguous()
        used = weights != 0
        first = used.int().argmax(dim=1)
        last = cells - used.flip(1).int().argmax(dim=1)
        return _Axis(weights.to(device), tuple(first.tolist()), tuple(last.tolist()))


def tiles(size: tuple[int, int], device: torch.device | str = "cpu", *, maps: int = 1) -> Iterator[Window]:
    """Cut an image into windows, twice as wide as high, of a size that suits the device and many maps."""
    yield from Window(0, size[0], 0, size[1]).tiles(device, maps=maps)
