"""Captions: noun phrases with the right article, in the templates people write under photographs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovperception.datasets.scenes.categories import STUFF_NAMES, SceneCategory, StuffName, stuff_category
from ovperception.datasets.scenes.colours import Colour

# "{}" stands for the noun phrase with its article, "{place}" for where it is
CAPTION_TEMPLATES: tuple[str, ...] = (
    "a photo of {}.",
    "a picture of {}.",
    "an image of {}.",
    "{}",
    "there is {} in the scene.",
    "a close-up photo of {}.",
    "a cropped photo of {}.",
    "a photo of one {bare}.",
    "{bare}",
    "{} {place}",
    "a photo of {} {place}.",
    "a small {bare}",
    "a photo of the {bare}.",
)
# fmt: off
_SINGULAR_IN_S = frozenset((
    "abacus", "bus", "cactus", "compass", "hibiscus", "hippopotamus", "lotus", "minibus", "octopus",
    "rhinoceros", "trolleybus", "tyrannosaurus",
))
_MASS = frozenset((
    "asphalt", "bacon", "badminton", "beach sand", "bread", "brick", "broccoli", "butter", "candy",
    "cattle", "champagne", "cheese", "coral", "corn", "curry", "cutlery", "dna", "firewood", "garlic",
    "ginger", "grass", "ice hockey", "lacrosse", "lettuce", "maize", "milk", "paella", "pasta",
    "popcorn", "porridge", "ramen", "salad", "salt", "sand", "sheet music", "sky", "snow", "soap",
    "spaghetti", "sushi", "table tennis", "tarmac", "tempura", "toilet paper", "water", "wood",
))
# fmt: on
_AN_AS_SPOKEN = ("hourglass", "x-ray", "suv")
_A_AS_SPOKEN = ("unicorn", "ufo", "ewe", "one", "utensil")


def takes_article(name: str) -> bool:
    """Says whether a name wants "a" or "an": not the plurals, not the mass nouns."""
    head = name.split(" of ")[0].split(" with ")[0].split(" and ")[-1].split()[-1]
    plural = head.endswith("s") and not head.endswith("ss") and head not in _SINGULAR_IN_S
    return not plural and name not in _MASS


def with_article(phrase: str, *, name: str | None = None) -> str:
    """Puts "a" or "an" before a phrase, or nothing where its noun takes none.

    Args:
        phrase: such as "red taxi".
        name: the noun inside it; the phrase itself by default.
    """
    if not takes_article(name or phrase):
        return phrase
    vowel = phrase[0] in "aeiou" and not phrase.startswith(_A_AS_SPOKEN)
    return f"{'an' if vowel or phrase.startswith(_AN_AS_SPOKEN) else 'a'} {phrase}"


def place(stuff: StuffName, stuff_name: str | None = None) -> str:
    """Says where: "on grass", "in the sky", "in front of a brick wall"."""
    word = stuff_name or stuff
    if stuff == "sky":
        return f"in the {word}"
    if stuff == "brick" and word.endswith("wall"):
        return f"in front of a {word}"
    if stuff in ("road", "water") and word in ("road", "sea"):
        return f"on the {word}"
    return f"on {with_article(word)}"


def pick_name(rng: np.random.Generator, category: SceneCategory, synonym_probability: float = 0.35) -> str:
    """Picks the name of a class, or now and then a synonym."""
    if category.synonyms and rng.random() < synonym_probability:
        return category.synonyms[int(rng.integers(len(category.synonyms)))]
    return category.name


def crop_caption(
    rng: np.random.Generator,
    category: SceneCategory,
    colour: Colour | None = None,
    stuff: StuffName | None = None,
    template: str | None = None,
) -> str:
    """Captions one object, or one stretch of stuff.

    Args:
        rng: picks name or synonym and, where none is given, the template.
        category: what is seen.
        colour: its colour attribute, said before the name.
        stuff: what it stands on; without it no template that tells a place is drawn.
        template: one of `CAPTION_TEMPLATES`, or any string with "{}", "{bare}" and "{place}".

    Returns:
        Such as "a photo of a purple taxi on grass."
    """
    name = pick_name(rng, category)
    bare = f"{colour} {name}" if colour else name
    if template is None:
        article = takes_article(name) and category.is_thing
        usable = [
            known
            for known in CAPTION_TEMPLATES
            if (stuff is not None or "{place}" not in known)
            and (article or not known.startswith(("a small", "a photo of one")))
        ]
        template = usable[int(rng.integers(len(usable)))]
    where = ""
    if stuff is not None and "{place}" in template:
        where = place(stuff, pick_name(rng, stuff_category(stuff), 0.2))
    phrase = bare if category.name in STUFF_NAMES and not category.is_thing else with_article(bare, name=name)
    return template.format(phrase, bare=bare, place=where).replace("  ", " ").strip()


def join_phrases(phrases: Sequence[str]) -> str:
    """Lists phrases as English does: "a taxi, a cat and a tree"."""
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"
