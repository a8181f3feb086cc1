"""Boxes from a file, for ``ovp predict --boxes``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovperception.errors import InvalidParameter, InvalidRegions, MissingFile

__all__ = ["Boxes", "GivenBoxes"]

Boxes = list[list[float]]


class GivenBoxes:
    """The boxes of each picture.

    Args:
        path: JSON: ``[[x0, y0, x1, y1], ...]`` in pixels, the same for every picture; or an object from a
            picture, by the path it is asked with or by its file name, to such a list.

    Raises:
        MissingFile: There is no such file.
        InvalidParameter: It is not JSON, or neither a list nor an object.
    """

    def __init__(self, path: Path) -> None:
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise MissingFile("The file of boxes cannot be read", field="boxes", got=path) from error
        except ValueError as error:
            raise InvalidParameter(f"{path} is not JSON", field="boxes", got=error) from error
        if not isinstance(given, list | Mapping):
            raise InvalidParameter(
                f"{path} holds no boxes",
                field="boxes",
                expected="[[x0, y0, x1, y1], ...], or an object from pictures to such lists",
                got=type(given).__name__,
            )
        self._given: Any = given

    def of(self, picture: Path) -> Boxes:
        """The boxes of a picture, as they are written.

        Raises:
            InvalidRegions: The file tells of other pictures only, or has no list for this one.
        """
        found = self._given
        if isinstance(found, Mapping):
            found = found.get(str(picture), found.get(picture.name))
        if not isinstance(found, list):
            raise InvalidRegions(
                f"The file of boxes has no list for {picture}",
                field="boxes",
                mend="Name the picture by its path or its file name; an empty list is a list",
            )
        return found
