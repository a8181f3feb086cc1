"""How long each stage takes: a histogram a stage, with its median and its slow end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from eval.reporting.svg import WIDTH, chart, element, text

__all__ = ["Quantiles", "latency_chart", "quantiles"]

_LABELS, _RIGHT = 110.0, 190.0
_ROW, _TOP, _AXIS = 46.0, 8.0, 26.0
_BINS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Milliseconds an image of one stage."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    worst: float


def quantiles(times_ms: Sequence[float]) -> Quantiles | None:
    """Of at least one time; None of none."""
    times = np.asarray([t for t in times_ms if math.isfinite(t)], np.float64)
    if not times.size:
        return None
    p50, p90, p99 = np.percentile(times, (50, 90, 99)).tolist()
    return Quantiles(
        count=len(times), mean=float(times.mean()), p50=p50, p90=p90, p99=p99, worst=float(times.max())
    )


def latency_chart(stages: Mapping[str, Sequence[float]]) -> Markup:
    """One row a stage, over one logarithmic axis of milliseconds.

    Args:
        stages: name -> milliseconds of each image; a stage without times is left out.
    """
    known = {n: np.asarray([t for t in ts if t > 0 and math.isfinite(t)]) for n, ts in stages.items()}
    known = {name: times for name, times in known.items() if times.size}
    if not known:
        return Markup("")
    low = math.floor(math.log10(max(min(t.min() for t in known.values()), 1e-3)))
    high = max(math.ceil(math.log10(max(t.max() for t in known.values()))), low + 1)
    bottom = _TOP + _ROW * len(known)
    span = WIDTH - _LABELS - _RIGHT

    def at(time: float) -> float:
        return _LABELS + span * (math.log10(max(time, 10.0**low)) - low) / (high - low)

    parts = []
    for power in range(low, high + 1):
        x = at(10.0**power)
        parts.append(element("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="grid"))
        parts.append(text(_mark(power), x, bottom + 16, anchor="middle", class_="axis"))
    edges = np.logspace(low, high, _BINS + 1)
    told = []
    for i, (name, times) in enumerate(known.items()):
        found = quantiles(times.tolist())
        assert found is not None
        told.append(f"{name}: median {found.p50:.1f} ms, 99 % below {found.p99:.1f} ms")
        parts.append(_row(name, times, edges, _TOP + _ROW * i, at, found))
    return chart("Time of each stage", "; ".join(told), WIDTH, bottom + _AXIS, *parts)


def _row(
    name: str,
    times: NDArray[np.float64],
    edges: NDArray[np.float64],
    top: float,
    at: Callable[[float], float],
    found: Quantiles,
) -> Markup:
    floor, height = top + _ROW - 8, _ROW - 14
    counts, _ = np.histogram(times, edges)
    bars = [
        element(
            "rect",
            x=at(edges[b]),
            width=max(at(edges[b + 1]) - at(edges[b]) - 0.6, 0.8),
            y=floor - height * int(counts[b]) / int(counts.max()),
            height=height * int(counts[b]) / int(counts.max()),
            class_="bar plain",
        )
        for b in np.flatnonzero(counts)
    ]
    lines = [
        element("line", x1=at(value), x2=at(value), y1=top + 2, y2=floor + 3, class_=look)
        for value, look in ((found.p50, "median"), (found.p99, "slow"))
    ]
    return element(
        "g",
        element(
            "title", f"{name}: {found.count} images, mean {found.mean:.2f} ms, longest {found.worst:.2f} ms"
        ),
        text(name, _LABELS - 12, floor - 6, anchor="end", class_="label", most=16),
        element("line", x1=_LABELS, x2=WIDTH - _RIGHT, y1=floor, y2=floor, class_="grid"),
        *bars,
        *lines,
        text(f"{_short(found.p50)} ms", WIDTH - _RIGHT + 12, floor - 8, class_="value ours"),
        text(f"p99 {_short(found.p99)} ms", WIDTH - _RIGHT + 92, floor - 8, class_="axis"),
    )


def _mark(power: int) -> str:
    """A power of ten of milliseconds, in the unit that reads best."""
    return f"{10.0**power:g} ms" if power < 3 else f"{10.0 ** (power - 3):g} s"


def _short(time_ms: float) -> str:
    """Three digits or more, never with an exponent."""
    return f"{time_ms:,.0f}" if time_ms >= 100 else f"{time_ms:.3g}" if time_ms >= 0.1 else f"{time_ms:.3f}"
