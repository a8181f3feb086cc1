"""Which words name stuff, such as sky, where nobody says so."""

from __future__ import annotations

from functools import cache

from ovperception.datasets.vocabularies import load_vocabulary_file

__all__ = ["default_stuff"]

_SCENES_STUFF = ("grass", "sky", "water", "sand", "road", "brick", "wood", "snow")
_COUNTABLE = frozenset(
    (
        # things of our scenes
        *("bridge", "house", "rock", "shower", "tent", "tree", "wave"),
        # stuff to ADE20K's annotators, single objects to whoever asks for them
        *("bar", "buffet", "bulbs", "canopy", "conveyer belt", "cradle", "crt screen", "escalator"),
        *("grandstand", "hovel", "pedestal", "pier", "skyscraper", "tank", "tower", "traffic sign"),
    )
)


@cache
def default_stuff() -> frozenset[str]:
    """Lower-case names that are stuff where nobody says otherwise (see `Vocabulary.from_words`)."""
    stuff, things = set(_SCENES_STUFF), set[str]()
    for name in ("coco_panoptic_133", "ade20k_150", "cityscapes_19"):
        for entry in load_vocabulary_file(name).classes:
            if entry.is_thing:
                things.update(entry.synonyms)
            elif name == "ade20k_150":
                stuff.add(entry.synonyms[0])  # the rest are loose: bar, tank, bill
            else:
                stuff.update(entry.synonyms)
    for entry in load_vocabulary_file("lvis_v1_1203").classes:
        things.update(entry.synonyms)
    return frozenset(s.lower() for s in stuff) - frozenset(t.lower() for t in things) - _COUNTABLE
