"""Looking more than once: a picture at several scales, mirrored, and window by window.

Every step of the usual evaluators of pixel heads (LSeg's follows the PyTorch-Encoding package) is linear:
windows are averaged, cut, mirrored back, resized bilinearly and added up. So it can be done to the
embeddings, once, before any words are known; the scores that come out are those of doing it to the scores.

Nothing of the size of a scaled picture is made: each window's embeddings go straight into the grid that is
kept, by one small matrix for the rows and one for the columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ovperception.errors import InvalidParameter

__all__ = ["Axis", "Band", "Place", "Views", "look_around", "places", "windows"]

_LARGEST = 2**26
"""Pixels that a scaled picture may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """How a picture is looked at.

    Attributes:
        base: the longer side becomes this long times each scale, pixels.
        crop: side of a window, pixels; what is smaller is padded at the right and bottom.
        scales: of the base.
        flip: look at the mirrored picture as well.
        overlap: windows lie ``(1 - overlap) * crop`` apart; LSeg's overlap by a third.
        pad_value: what is padded with, in normalised units; LSeg pads with black, which is -1 there.
        max_cells: most cells of the grid that is kept; None: one a pixel of the network input, as the
            evaluators do. A smaller grid is the same sum, read at fewer places.
    """

    base: int
    crop: int
    scales: tuple[float, ...] = (1.0,)
    flip: bool = True
    overlap: float = 1 / 3
    pad_value: float = 0.0
    max_cells: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be looked at."""
        for name in ("base", "crop", *(("max_cells",) if self.max_cells is not None else ())):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidParameter(
                    f"{name} must be positive", field=name, expected="1 or more", got=value
                )
        if not self.scales or any(not _finite(s) or s <= 0 for s in self.scales):
            raise InvalidParameter(
                "The scales must be positive", field="scales", expected="at least one", got=self.scales
            )
        if not _finite(self.overlap) or not 0 <= self.overlap < 1 or self.step < 1:
            raise InvalidParameter(
                "Windows must lie apart", field="overlap", expected="0 or more, below 1", got=self.overlap
            )
        if not isinstance(self.flip, bool):
            raise InvalidParameter(
                "The mirrored picture is looked at or not",
                field="flip",
                expected="true or false",
                got=self.flip,
            )
        if not _finite(self.pad_value):
            raise InvalidParameter("The padding must be a number", field="pad_value", got=self.pad_value)

    def __str__(self) -> str:
        """All of it in words, for a report."""
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        told = [f"windows of {self.crop} at scales {scales} of {self.base}"]
        told += ["mirrored as well"] if self.flip else []
        told += [f"overlapping by {self.overlap:g}"] if self.overlap != 1 / 3 else []
        told += [f"padded with {self.pad_value:g}"] if self.pad_value else []
        told += [f"on {self.max_cells} cells"] if self.max_cells is not None else []
        return ", ".join(told)

    @property
    def step(self) -> int:
        """Pixels from one window to the next."""
        # The references write two thirds, not one minus a third, whose product may fall short of a whole.
        return int(self.crop * (1 - self.overlap) + 1e-6)

    @property
    def looks(self) -> int:
        """How often each place of a picture counts: once at each scale and on each side."""
        return len(self.scales) * (2 if self.flip else 1)

    def scaled(self, size: tuple[int, int], scale: float) -> tuple[int, int]:
        """What a picture of this (height, width) becomes at a scale."""
        height, width = size
        long = math.ceil(self.base * scale)
        if height > width:
            return long, max(int(1.0 * width * long / height + 0.5), 1)
        return max(int(1.0 * height * long / width + 0.5), 1), long

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in cells of what is kept of a picture of this size."""
        height, width = size
        if self.max_cells is None or height * width <= self.max_cells:
            return size
        ratio = math.sqrt(self.max_cells / (height * width))
        rows = max(int(height * ratio), 1)
        return rows, max(min(int(width * ratio), self.max_cells // rows), 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for a bundle's model card."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            InvalidParameter: a field is missing, unknown or out of its range.
        """
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(values) - set(known))
        missing = sorted({"base", "crop"} - set(values))
        if unknown or missing:
            raise InvalidParameter(
                "The views are not described",
                field="views",
                expected=", ".join(known),
                got=f"unknown {unknown}, missing {missing}",
            )
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**arguments)


@torch.no_grad()
def look_around(embed: Callable[[Tensor], Tensor], images: Tensor, views: Views) -> Tensor:
    """The mean over all scales and both sides of what the windows of a picture embed to.

    Args:
        embed: (B, 3, crop, crop) normalised images -> (B, D, h, w) on a grid whose corners are the image's.
        images: (B, 3, H, W) normalised network input; all of it counts, so a preprocessing that pads nothing
            is the right one.
        views: Which scales, which windows.

    Returns:
        (B, D, gh, gw) float32 on `Views.grid`, whose corners are the picture's.

    Raises:
        InvalidParameter: A scale makes a picture of this shape immense.
    """
    total: Tensor | None = None
    for window, place in windows(images, views):
        sides = (window, window.flip(-1)) if views.flip else (window,)
        found = embed(sides[0]).float()
        if len(sides) == 2:
            found = found + embed(sides[1]).float().flip(-1)
        if total is None:
            size = (int(images.shape[2]), int(images.shape[3]))
            total = found.new_zeros(len(images), found.shape[1], *views.grid(size))
        rows, columns = place.down.over(found.shape[2], found), place.across.over(found.shape[3], found)
        if rows.stop > rows.start and columns.stop > columns.start:
            part = rows.weights @ (found @ columns.weights.T)
            total[..., rows.start : rows.stop, columns.start : columns.stop] += part
    assert total is not None
    return total / views.looks


@dataclass(frozen=True)
class Band:
    """The cells of one axis that read a window, and how much of each of its cells."""

    start: int
    stop: int
    weights: Tensor  # (stop - start, cells of the window)


@dataclass(frozen=True)
class Axis:
    """One axis of a window: from its pixels to the cells of the grid."""

    weights: Tensor  # (cells of the grid, pixels of the window), with the average over windows in them
    crop: int

    def over(self, cells: int, like: Tensor) -> Band:
        """From the cells that a window was embedded to."""
        spread = _aligned(cells, self.crop)[: self.weights.shape[1]]  # (pixels, cells)
        whole = self.weights @ spread
        used = (self.weights != 0).any(1).nonzero()
        start, stop = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        return Band(start, stop, whole[start:stop].to(like))


@dataclass(frozen=True)
class Place:
    """Where a window lies.

    Attributes:
        scaled: (height, width) that the picture has.
        top, left: of the window in it.
        down, across: what becomes of its rows and columns.
    """

    scaled: tuple[int, int]
    top: int
    left: int
    down: Axis
    across: Axis


def places(size: tuple[int, int], views: Views) -> Iterator[Place]:
    """Where the windows of a picture of this (height, width) lie, scale by scale.

    Raises:
        InvalidParameter: A scale makes a picture of this shape immense.
    """
    grid = views.grid(size)
    for scale in views.scales:
        scaled = views.scaled(size, scale)
        if max(scaled[0], views.crop) * max(scaled[1], views.crop) > _LARGEST:
            raise InvalidParameter(
                "A view is too large", field="views.scales", expected=f"up to {_LARGEST} pixels", got=scaled
            )
        for top, down in _axis(scaled[0], grid[0], views):
            for left, across in _axis(scaled[1], grid[1], views):
                yield Place(scaled, top, left, down, across)


def windows(images: Tensor, views: Views) -> Iterator[tuple[Tensor, Place]]:
    """(B, 3, H, W) -> every window (B, 3, crop, crop), padded to its full size.

    Raises:
        InvalidParameter: A scale makes a picture of this shape immense.
    """
    picture = images[..., :0, :0]
    for place in places((int(images.shape[2]), int(images.shape[3])), views):
        if picture.shape[2:] != place.scaled:
            picture = F.interpolate(images.float(), place.scaled, mode="bilinear", align_corners=True)
        window = picture[..., place.top : place.top + views.crop, place.left : place.left + views.crop]
        bottom, right = views.crop - window.shape[2], views.crop - window.shape[3]
        yield F.pad(window, (0, right, 0, bottom), value=views.pad_value), place


def _axis(length: int, cells: int, views: Views) -> list[tuple[int, Axis]]:
    """Where the windows of one axis begin, and what becomes of their pixels.

    The last window is cut at the end and padded, not shifted back, as in the references.
    """
    count = max(math.ceil((length - views.crop) / views.step), 0) + 1
    spans = [(n * views.step, min(n * views.step + views.crop, length)) for n in range(count)]
    covered = torch.zeros(length)
    for start, stop in spans:
        covered[start:stop] += 1
    resize = _aligned(length, cells) / covered  # (cells, length)
    return [(start, Axis(resize[:, start:stop], views.crop)) for start, stop in spans]


def _aligned(cells: int, pixels: int) -> Tensor:
    """(pixels, cells): bilinear interpolation with aligned corners, by torch's own weights."""
    unit = torch.eye(cells)[None, :, None]  # (1, cells, 1, cells): a one-row image a cell
    return F.interpolate(unit, size=(1, pixels), mode="bilinear", align_corners=True)[0, :, 0].T


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
