"""How the official code spells a class before it puts it into a sentence."""

from __future__ import annotations

__all__ = ["official_name"]


def official_name(name: str) -> str:
    """The spelling behind the published numbers, for who wants to repeat them.

    Commas go, plus signs become spaces, and of LVIS's spelling the underscores become spaces and the
    parentheses go: ``"hot-dog,_with_mustard"`` is asked as ``"hot-dog with mustard"``. Our questions are
    asked as they are written.

    Source: microsoft/RegionCLIP, `datasets/prompt_engineering.py` and the readers of COCO and LVIS names.
    """
    for mark, instead in ((",", ""), ("+", " "), ("_", " "), ("(", ""), (")", "")):
        name = name.replace(mark, instead)
    return name
