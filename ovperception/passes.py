"""Passes of a network over several pictures: those alike share one, as many as there is memory for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch

from ovperception.errors import ResourceExhausted
from ovperception.images import Geometry
from ovperception.looks import Look, Prepared

__all__ = ["in_passes"]

P = TypeVar("P", Prepared, Look)
R = TypeVar("R")


def in_passes(
    pictures: Sequence[P], run: Callable[[Sequence[P]], list[R]], *, alike: Callable[[P], Hashable]
) -> list[R]:
    """Run over pictures, those that are alike together.

    Args:
        pictures: what to run over.
        run: one pass; gives one answer for each of its pictures.
        alike: gives the same for pictures that may share a pass.

    Returns:
        One answer for each picture, in order.

    Raises:
        ResourceExhausted: the device has no memory for one of the pictures.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, picture in enumerate(pictures):
        groups.setdefault(alike(picture), []).append(index)
    answers: dict[int, R] = {}
    for members in groups.values():
        answers.update(zip(members, _within_memory([pictures[i] for i in members], run), strict=True))
    return [answers[i] for i in range(len(pictures))]


def _within_memory(pictures: Sequence[P], run: Callable[[Sequence[P]], list[R]]) -> list[R]:
    """One pass; two of half the size, if it finds no memory."""
    try:
        return run(pictures)
    except torch.OutOfMemoryError as error:
        if len(pictures) == 1:
            raise _too_large(pictures[0].geometry) from error
    # Outside the handler, so that what the failed pass held is free again.
    half = len(pictures) // 2
    return _within_memory(pictures[:half], run) + _within_memory(pictures[half:], run)


def _too_large(geometry: Geometry) -> ResourceExhausted:
    return ResourceExhausted(
        "No memory for an image of this size",
        got=f"network input {geometry.padded}",
        mend="Send a smaller image, or lower the model's longest_edge",
    )
