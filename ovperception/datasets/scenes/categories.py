"""The names of the world: things drawn from the atlas, then the stuff they stand on."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ovperception.errors import InvalidParameter

Frequency = Literal["r", "c", "f"]
StuffName = Literal["grass", "sky", "water", "sand", "road", "brick", "wood", "snow"]
STUFF_NAMES: tuple[StuffName, ...] = get_args(StuffName)

_STUFF_SYNONYMS: dict[StuffName, tuple[str, ...]] = {
    "grass": ("lawn", "meadow"),
    "sky": ("blue sky",),
    "water": ("sea",),
    "sand": ("beach sand",),
    "road": ("asphalt", "tarmac"),
    "brick": ("brick wall",),
    "wood": ("wooden floor", "wooden planks"),
    "snow": ("snowy ground",),
}
_CATEGORIES_FILE = Path(__file__).parent / "data" / "categories.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneCategory:
    """One class of the world.

    Attributes:
        id: 1-based; things first, sorted by name, then stuff.
        name: how a person says it, lower-case, unique.
        synonyms: other names; none is the name or synonym of another category.
        supercategory: animal, food, vehicle, ... or "stuff".
        is_thing: countable (boxes, instances) or stuff (regions).
        is_novel: kept from the heads in training and judged afterwards; stuff is never novel.
        frequency: LVIS letter, rare, common or frequent; governs how often the train split shows it.
        codepoints: Unicode of the glyph, empty for stuff.
    """

    id: int
    name: str
    synonyms: tuple[str, ...]
    supercategory: str
    is_thing: bool
    is_novel: bool
    frequency: Frequency
    codepoints: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The name, then the synonyms."""
        return (self.name, *self.synonyms)


@functools.cache
def load_categories() -> tuple[SceneCategory, ...]:
    """Gives all classes, things then stuff; element ``i`` has id ``i + 1``."""
    things = tuple(
        SceneCategory(
            id=row["id"],
            name=row["name"],
            synonyms=tuple(row["synonyms"]),
            supercategory=row["supercategory"],
            is_thing=True,
            is_novel=row["split"] == "novel",
            frequency=row["frequency"],
            codepoints=tuple(row["codepoints"]),
        )
        for row in json.loads(_CATEGORIES_FILE.read_text(encoding="utf-8"))
    )
    stuff = tuple(
        SceneCategory(
            id=len(things) + 1 + index,
            name=name,
            synonyms=_STUFF_SYNONYMS[name],
            supercategory="stuff",
            is_thing=False,
            is_novel=False,
            frequency="f",
            codepoints=(),
        )
        for index, name in enumerate(STUFF_NAMES)
    )
    return things + stuff


def thing(category_id: int) -> SceneCategory:
    """Gives a thing by id.

    Raises:
        InvalidParameter: the id is no thing's.
    """
    categories = load_categories()
    if not 1 <= category_id <= len(categories) or not categories[category_id - 1].is_thing:
        count = len(categories) - len(STUFF_NAMES)
        raise InvalidParameter(
            "This category id is no thing of scenes",
            field="category_id",
            expected=f"an id from 1 to {count}",
            got=category_id,
        )
    return categories[category_id - 1]


def stuff_category(stuff: StuffName) -> SceneCategory:
    """Gives a stuff class by name.

    Raises:
        InvalidParameter: no stuff has this name.
    """
    if stuff not in STUFF_NAMES:
        raise InvalidParameter(
            "This stuff is not known", field="stuff", expected=f"one of {', '.join(STUFF_NAMES)}", got=stuff
        )
    return load_categories()[STUFF_NAMES.index(stuff) - len(STUFF_NAMES)]
