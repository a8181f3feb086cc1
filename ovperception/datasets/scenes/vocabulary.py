"""The names of the world as vocabularies: all of it, or what the heads may see."""

from __future__ import annotations

import functools
from typing import Literal

from ovperception.datasets.scenes.categories import SceneCategory, load_categories
from ovperception.vocabulary import Vocabulary, VocabularyClass

__all__ = ["Part", "chosen_categories", "scenes_vocabulary"]

Part = Literal["all", "base", "novel"]


def chosen_categories(part: Part = "all", *, stuff: bool = True) -> tuple[SceneCategory, ...]:
    """The categories of a part of the world, in the order of their ids; stuff counts as base."""
    return tuple(
        c
        for c in load_categories()
        if (stuff or c.is_thing) and (part == "all" or c.is_novel == (part == "novel"))
    )


@functools.cache
def scenes_vocabulary(part: Part = "all", *, stuff: bool = True) -> Vocabulary:
    """A vocabulary of the world; class i is ``chosen_categories(part, stuff=stuff)[i]``."""
    classes = tuple(
        VocabularyClass(name=c.name, synonyms=c.names, is_thing=c.is_thing)
        for c in chosen_categories(part, stuff=stuff)
    )
    return Vocabulary(classes=classes, name="scenes" if part == "all" else f"scenes_{part}")
