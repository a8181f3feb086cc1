"""SVG as escaped text: elements, number formats and axis ticks that all charts share.

Colours are classes of the page's style sheet, so that a chart follows the light and the dark look.
"""

from __future__ import annotations

import math

from markupsafe import Markup, escape

__all__ = ["HALF_WIDTH", "WIDTH", "chart", "element", "short", "text", "ticks"]

WIDTH = 860.0
"""Of a chart that has the width of the page for itself."""
HALF_WIDTH = 480.0
"""Of one of two beside each other."""
_LEAST, _MOST = 0.75, 1.25


def element(name: str, *children: str | Markup, **attributes: str | float) -> Markup:
    """One element.

    Args:
        name: of the element.
        children: `Markup` is taken as it is, plain text is escaped.
        attributes: a trailing underscore is dropped (``class_``), other underscores become hyphens.
    """
    given = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _value(value))
        for key, value in attributes.items()
    )
    inner = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), given, inner)


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def text(words: str, x: float, y: float, *, anchor: str = "start", class_: str = "", most: int = 0) -> Markup:
    """A line of text; one longer than `most` letters is cut, and told in full when pointed at."""
    shown = short(words, most) if most else words
    children = (shown,) if shown == words else (shown, element("title", words))
    attributes = {"class_": class_} if class_ else {}
    return element("text", *children, x=x, y=y, text_anchor=anchor, **attributes)


def short(words: str, most: int) -> str:
    """At most so many letters."""
    return words if len(words) <= most else f"{words[: most - 1]}…"


def chart(title: str, description: str, width: float, height: float, *children: Markup) -> Markup:
    """The whole picture: as wide as its place allows while letters stay readable, and read aloud.

    A place that is narrower than three quarters of the width scrolls.
    """
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        style=f"min-width:{_LEAST * width:g}px;max-width:{_MOST * width:g}px",
        class_="chart",
    )


def ticks(high: float, most: int = 6) -> list[float]:
    """Round numbers from 0 to at least `high`, at most about so many."""
    if not high > 0 or not math.isfinite(high):
        return [0.0, 1.0]
    rough = high / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    count = math.ceil(high / step - 1e-9)
    return [round(step * i, 10) for i in range(count + 1)]
