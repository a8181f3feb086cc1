"""One line of text in a picture, in OpenCV's own letters."""

from __future__ import annotations

import cv2

from ovperception.drawing.canvas import Picture
from ovperception.drawing.palette import Colour

__all__ = ["fit_text", "put_text", "text_size"]

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def text_size(text: str, letters: int) -> tuple[int, int]:
    """(width, height) of one line; the height is that of the line, whatever the letters."""
    (width, _), _ = cv2.getTextSize(text, _FONT, _font_scale(letters), _thickness(letters))
    return int(width), letters


def fit_text(text: str, letters: int, width: int) -> str:
    """The text, cut with an ellipsis if it is wider than `width` pixels."""
    text = " ".join(text.split())
    if text_size(text, letters)[0] <= width:
        return text
    while text and text_size(f"{text}..", letters)[0] > width:
        text = text[:-1]
    return f"{text}.." if text else ""


def put_text(canvas: Picture, text: str, x: int, y: int, letters: int, colour: Colour) -> None:
    """One line with its top left corner at (x, y)."""
    baseline = y + round(letters * 0.8)
    scale, thickness = _font_scale(letters), _thickness(letters)
    cv2.putText(canvas, text, (x, baseline), _FONT, scale, colour, thickness, cv2.LINE_AA)


def _font_scale(letters: int) -> float:
    return cv2.getFontScaleFromHeight(_FONT, max(1, round(letters * 0.72)), 1)


def _thickness(letters: int) -> int:
    return max(1, round(letters / 18))
