"""What is different since a run was last taken up: told, not refused, for a longer schedule is one too."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["changed_facts", "changed_settings"]

_ABSENT = "nothing"


def changed_settings(before: str, after: str) -> dict[str, str]:
    """Setting -> ``old -> new``, of two recipes as TOML; none where the old one cannot be read."""
    try:
        old = dict(_flat(tomllib.loads(before)))
    except tomllib.TOMLDecodeError:
        return {}
    new = dict(_flat(tomllib.loads(after)))
    return {
        name: f"{_word(old, name)} -> {_word(new, name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }


def changed_facts(before: str, after: Mapping[str, Any]) -> list[str]:
    """Names of what differs in ``data.json``; none where the old one cannot be read."""
    try:
        old = dict(_flat(json.loads(before)))
    except (ValueError, AttributeError):
        return []
    new = dict(_flat(after))
    return sorted(name for name in old.keys() & new.keys() if old[name] != new[name])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _word(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name], ensure_ascii=False, default=str) if name in settings else _ABSENT
