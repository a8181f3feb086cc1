"""Colours of a picture, changed as SSD changes them (Liu et al. 2016, section 2.2 and its code's ranges)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidParameter

__all__ = ["ColourJitter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourJitter:
    """Brightness, contrast, saturation and hue, each changed with a chance of `share`.

    Attributes:
        brightness: largest value added or taken away, of 255.
        contrast: smallest and largest factor.
        saturation: smallest and largest factor.
        hue: largest turn, of 180.
        share: chance of each, 0-1.
    """

    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 18.0
    share: float = 0.5

    def __post_init__(self) -> None:
        for name in ("contrast", "saturation"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise InvalidParameter(
                    f"The {name} needs two factors above 0, the smaller first", field=name, got=(low, high)
                )
        if not 0 <= self.share <= 1 or self.brightness < 0 or self.hue < 0:
            raise InvalidParameter("The colour jitter is out of its ranges", got=self)

    def apply(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB to the same with other colours; the draws do not depend on the picture."""
        does = rng.random(4) < self.share
        shift = rng.uniform(-self.brightness, self.brightness)
        contrast = rng.uniform(*self.contrast)
        saturation = rng.uniform(*self.saturation)
        turn = round(rng.uniform(-self.hue, self.hue))
        early = rng.random() < 0.5
        if does[0]:
            image = _line(image, 1.0, shift)
        if does[1] and early:
            image = _line(image, contrast, 0.0)
        if does[2] or does[3]:
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            hue, full, value = cv2.split(hsv)
            if does[2]:
                full = _line(np.asarray(full, np.uint8), saturation, 0.0)
            if does[3]:
                hue = ((hue.astype(np.int16) + turn) % 180).astype(np.uint8)
            image = cast("NDArray[np.uint8]", cv2.cvtColor(cv2.merge((hue, full, value)), cv2.COLOR_HSV2RGB))
        if does[1] and not early:
            image = _line(image, contrast, 0.0)
        return image


def _line(values: NDArray[np.uint8], factor: float, shift: float) -> NDArray[np.uint8]:
    table = np.clip(np.round(np.arange(256) * factor + shift), 0, 255).astype(np.uint8)
    return cast("NDArray[np.uint8]", cv2.LUT(values, table))
