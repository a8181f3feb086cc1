"""How the parts of a vocabulary are called on a page."""

from __future__ import annotations

__all__ = ["group_name"]

_LETTERS = {"r": "rare", "c": "common", "f": "frequent"}


def group_name(group: str) -> str:
    """Words for LVIS's letters; any other name is its own."""
    return _LETTERS.get(group, group)
