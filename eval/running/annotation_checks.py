"""What an annotation file must be for the protocol it is scored by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ovperception.datasets.categories import Classes
from ovperception.errors import InvalidDataset

__all__ = ["FOREIGN", "check_federated", "foreign_categories"]

FOREIGN = "foreign_category"
"""Name of the warning."""
_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


def foreign_categories(categories: Sequence[Mapping[str, Any]], classes: Classes) -> int:
    """How many categories of a file are not among the protocol's, by id and name."""
    names = dict(zip(classes.category_ids, map(_plain, classes.vocabulary.names), strict=True))
    return sum(names.get(row["id"]) != _plain(str(row["name"])) for row in categories)


def check_federated(truth: Mapping[str, Any]) -> None:
    """Refuses a file that does not say what each image was searched for.

    LVIS drops a detection of a class that an image was not searched for. Without the lists every false
    positive of a class that the image lacks would be dropped, and AP far too high.

    Raises:
        InvalidDataset: an image lacks one of the two lists.
    """
    for name in _LISTS:
        without = [image["id"] for image in truth["images"] if not isinstance(image.get(name), list)]
        if without:
            raise InvalidDataset(
                f'{len(without)} of {len(truth["images"])} images have no "{name}"',
                field="images",
                expected="lists of category ids, as LVIS has them",
                got=without[:5],
                mend="Files without them are judged by COCO's rules",
            )


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ").strip()
