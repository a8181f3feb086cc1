"""Heat maps drawn over the picture they are about."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.drawing.canvas import Picture, copy_of
from ovperception.drawing.sheets import grid
from ovperception.errors import InvalidParameter

__all__ = ["draw_heatmap", "draw_heatmaps"]


def draw_heatmap(
    image: Picture,
    heat: NDArray[np.floating],
    *,
    limits: tuple[float, float] | None = None,
    opacity: float = 0.65,
) -> Picture:
    """Similarity over the picture, from blue (low, faint) to red (high, strong).

    Args:
        image: (H, W, 3) uint8 RGB, the presented image.
        heat: (H, W); what is not finite counts as low.
        limits: what counts as lowest and highest; the map's own extremes by default, so that pictures drawn
            without limits cannot be compared with each other.
        opacity: how strongly the highest value tints, 0-1.

    Raises:
        InvalidParameter: the map is of another size, or the limits are not ascending.
    """
    canvas = copy_of(image)
    if heat.shape != canvas.shape[:2]:
        raise InvalidParameter(
            "The heat map is not of the image's size", expected=str(canvas.shape[:2]), got=heat.shape
        )
    finite = np.isfinite(heat)
    if limits is None:
        limits = (float(heat[finite].min()), float(heat[finite].max())) if finite.any() else (0.0, 0.0)
    elif not limits[0] < limits[1]:
        raise InvalidParameter("The limits must ascend", field="limits", got=limits)
    low, high = limits
    values = np.where(finite, heat, low).astype(np.float32)
    values = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)
    levels = (values * 255).astype(np.uint8)
    painted = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[..., ::-1]
    # Low values stay faint, so that the picture can still be recognised where nothing is.
    strength = (opacity * (0.35 + 0.65 * values))[..., None]
    return (canvas * (1 - strength) + painted * strength + 0.5).astype(np.uint8)


def draw_heatmaps(
    image: Picture,
    heats: Mapping[str, NDArray[np.floating]],
    *,
    limits: tuple[float, float] | None = None,
    opacity: float = 0.65,
    columns: int | None = None,
) -> Picture:
    """The picture once a word, side by side, each painted with the word's map and titled by it.

    The picture beneath is grey, so that every colour is heat.

    Args:
        image: (H, W, 3) uint8 RGB, the presented image.
        heats: (H, W) by word.
        limits: what counts as lowest and highest in every map; by default the extremes of all maps together,
            so that a word that is nowhere stays faint beside one that is there.
        opacity: how strongly the highest value tints, 0-1.
        columns: as of `grid`.

    Raises:
        InvalidParameter: no maps, or as of `draw_heatmap`.
    """
    if limits is None:
        finite = [found for heat in heats.values() if (found := heat[np.isfinite(heat)]).size]
        low = min((float(values.min()) for values in finite), default=0.0)
        high = max((float(values.max()) for values in finite), default=0.0)
        limits = (low, high) if low < high else (low, low + 1)
    grey = cv2.cvtColor(cv2.cvtColor(copy_of(image), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    beneath = grey.astype(np.uint8, copy=False)
    pictures = [draw_heatmap(beneath, heat, limits=limits, opacity=opacity) for heat in heats.values()]
    return grid(pictures, tuple(heats), columns=columns)
