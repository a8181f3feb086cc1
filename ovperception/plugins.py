"""Heads by name: the entry points of the installed packages are the one list."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, cast

from ovperception.errors import UnknownHead

if TYPE_CHECKING:
    from torch import nn

    from ovperception.backbones.base import BackboneSpec

__all__ = ["HeadFactory", "head_factory", "head_names"]

GROUP = "ovperception.heads"


class HeadFactory(Protocol):
    """What an entry point of the group `ovperception.heads` names: usually the head's class."""

    def from_settings(self, settings: Mapping[str, Any], backbone: BackboneSpec) -> nn.Module:
        """Build an untrained head for a backbone."""
        ...


def head_names() -> tuple[str, ...]:
    """The heads that installed packages provide."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def head_factory(name: str) -> HeadFactory:
    """The factory of a head.

    Raises:
        UnknownHead: no installed package provides it.
    """
    for point in entry_points(group=GROUP):
        if point.name == name:
            return cast("HeadFactory", point.load())
    raise UnknownHead(
        f"No head is called {name!r}",
        field="head",
        expected=f"one of {', '.join(head_names()) or '(none installed)'}",
        mend="Install the package that provides it, or see CONTRIBUTING on how to add a head",
    )
