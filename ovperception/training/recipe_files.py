"""Recipes as short typed files: TOML or ``key=value`` words into frozen dataclasses, and back.

A file begins from a recipe that has a name and says what is different:

    recipe = "tiny-fcclip"
    out = "runs/mine"
    batch_size = 8
    [schedule]
    steps = 500

Every value is read in the type that its field declares; a key that is not known is an error that suggests
the path of the nearest one.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ovperception.errors import InvalidParameter, MissingFile

__all__ = ["merge", "read_file", "to_toml", "with_overrides"]

#: Parts of a recipe whose fields may be named without the part: ``steps`` for ``schedule.steps``.
UNNAMED = ("schedule", "sampler", "loop", "optimizer", "data")

_SHOW_ALL = "`ovp train RECIPE --dry-run` prints all settings"

#: Words of earlier versions, and what they mean now.
RENAMED = {
    "clip_norm": "loop.clip.limit",
    "weight_decay": "optimizer.weight_decay",
}


def read_file(path: Path) -> tuple[str, dict[str, Any]]:
    """The name of the recipe that a file begins from, and what it changes.

    Raises:
        MissingFile: there is none.
        InvalidParameter: it is no TOML, or names no recipe.
    """
    if not path.is_file():
        raise MissingFile(
            f"No recipe file at {path}", mend="`ovp train --list` shows the recipes with a name"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"{path} is no TOML", field="RECIPE", got=error) from error
    name = values.pop("recipe", None)
    if not isinstance(name, str):
        raise InvalidParameter(
            f"{path} does not say which recipe it begins from",
            field="recipe",
            expected='a line such as recipe = "tiny-fcclip"',
            got=name,
        )
    return name, values


def with_overrides(settings: Any, overrides: Mapping[str, str]) -> Any:
    """A copy of a recipe's settings with ``key=value`` words applied.

    A key is a field, or a field of a nested settings object behind a dot (``schedule.steps``); for the parts
    in `UNNAMED` the bare field name is enough. The value is read in the type of the field.

    Raises:
        InvalidParameter: no such field, or a value that is no such type.
    """
    for key, text in overrides.items():
        nested: Any = _Word(text)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        settings = merge(settings, nested)
    return settings


class _Word(str):
    """A value as it was typed, whatever type it will have."""


def merge(settings: Any, changes: Mapping[str, Any], prefix: str = "") -> Any:
    """A copy of a frozen dataclass with nested values changed.

    Args:
        settings: the dataclass.
        changes: field to value, or to changes of the dataclass or mapping that stands there.
        prefix: of the names in errors.

    Raises:
        InvalidParameter: no such field, a value of another type, or one that the dataclass refuses.
    """
    hints = get_type_hints(type(settings))
    made: dict[str, Any] = {}
    for key, value in changes.items():
        path, value = _placed(settings, key, value, prefix)
        name = path.removeprefix(prefix)
        made[name] = _read(value, hints[name], made.get(name, getattr(settings, name)), path)
    return dataclasses.replace(settings, **made)


def _placed(settings: Any, key: str, value: Any, prefix: str) -> tuple[str, Any]:
    """Where a key belongs: its own field, or one of the parts that need not be named."""
    own = {f.name for f in dataclasses.fields(settings)}
    if key in own:
        return prefix + key, value
    if not prefix and key in RENAMED:
        first, *rest = RENAMED[key].split(".")
        if first in own:
            for part in reversed(rest):
                value = {part: value}
            return first, value
    for part in UNNAMED if not prefix else ():
        inner = getattr(settings, part, None)
        if dataclasses.is_dataclass(inner) and key in {f.name for f in dataclasses.fields(inner)}:
            return part, {key: value}
    near = _nearest(settings, key)
    raise InvalidParameter(
        f"The recipe has no setting {prefix + key!r}",
        field=prefix + key,
        expected=", ".join(sorted(own)),
        got=value,
        mend=f"Perhaps {prefix + near!r} was meant" if near else _SHOW_ALL,
    )


def _nearest(settings: Any, key: str) -> str:
    """The path of the field whose name is most like the key's, at whatever depth; empty if none is."""
    paths = _paths(settings)
    names = [path.rpartition(".")[2] for path in paths]
    near = difflib.get_close_matches(key, names, n=1)
    if not near:
        return ""
    # Of several fields of one name the uppermost is the likeliest.
    return min((path for path, name in zip(paths, names, strict=True) if name == near[0]), key=_depth)


def _paths(settings: Any, prefix: str = "") -> list[str]:
    """Every field of a dataclass and of those in it, by its path."""
    found: list[str] = []
    for field in dataclasses.fields(settings):
        path, value = prefix + field.name, getattr(settings, field.name)
        found.append(path)
        if dataclasses.is_dataclass(value):
            found += _paths(value, f"{path}.")
    return found


def _depth(path: str) -> int:
    return path.count(".")


def _read(value: Any, hint: Any, current: Any, path: str) -> Any:
    """A value in the type of its field."""
    if get_origin(hint) in (Union, UnionType):
        return _read_union(value, get_args(hint), current, path)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping):
            base = current if isinstance(current, hint) else _fresh(hint, value, path)
            return merge(base, value, f"{path}.")
        raise _wrong(path, "a table of settings", value)
    if get_origin(hint) in (Mapping, dict):
        return _read_mapping(value, get_args(hint)[1], current, path)
    if get_origin(hint) is tuple:
        return _read_tuple(value, get_args(hint), path)
    if get_origin(hint) is Literal:
        return _read_choice(value, get_args(hint), path)
    if hint is Any:
        found = _literal(value) if isinstance(value, _Word) else value
        return tuple(found) if isinstance(found, list) and isinstance(current, tuple) else found
    return _read_plain(value, hint, path)


def _fresh(hint: Any, value: Mapping[str, Any], path: str) -> Any:
    """A new settings object where none stood: what has no default must be given."""
    known = {f.name: f for f in dataclasses.fields(hint)}
    hints = get_type_hints(hint)
    needed = {
        n
        for n, f in known.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = needed - value.keys()
    if missing:
        raise InvalidParameter(f"{path} needs {', '.join(sorted(missing))}", field=path, got=dict(value))
    return hint(**{n: _read(value[n], hints[n], None, f"{path}.{n}") for n in needed})


def _read_union(value: Any, options: tuple[Any, ...], current: Any, path: str) -> Any:
    if NoneType in options and (value is None or value == "none"):
        return None
    choices = [option for option in options if option is not NoneType]
    stands = [c for c in choices if dataclasses.is_dataclass(c) and type(current) is c]
    errors = []
    for option in [*stands, *(c for c in choices if c not in stands)]:
        try:
            return _read(value, option, current if option in stands else None, path)
        except InvalidParameter as error:
            errors.append(error)
    raise errors[0]


def _read_mapping(value: Any, hint: Any, current: Any, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(path, "a table", value)
    merged = dict(current or {})
    for key, entry in value.items():
        if isinstance(entry, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _read_mapping(entry, hint, merged[key], f"{path}.{key}")
        else:
            merged[key] = _read(entry, hint, merged.get(key), f"{path}.{key}")
    return merged


def _read_tuple(value: Any, hints: tuple[Any, ...], path: str) -> tuple[Any, ...]:
    many = len(hints) == 2 and hints[1] is Ellipsis
    if isinstance(value, _Word):
        found = _literal(value)
        numbers = not many and value[:1].isdigit()
        if isinstance(found, list):
            value = found
        elif numbers or "," in value:
            value = [_Word(part) for part in value.replace("x" if numbers else ",", ",").split(",")]
        else:
            value = [value]
        if len(value) == 1 and not many:
            value = value * len(hints)
    if not isinstance(value, list | tuple) or not (many or len(value) == len(hints)):
        raise _wrong(path, "a list" if many else f"a list of {len(hints)}", value)
    kinds = [hints[0]] * len(value) if many else hints
    return tuple(
        _read(v, kind, None, f"{path}[{i}]") for i, (v, kind) in enumerate(zip(value, kinds, strict=True))
    )


def _read_choice(value: Any, choices: tuple[Any, ...], path: str) -> Any:
    for choice in choices:
        if value == choice or (isinstance(value, _Word) and str(choice) == value):
            return choice
    near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1)
    raise InvalidParameter(
        f"{path} has no such choice",
        field=path,
        expected=" or ".join(str(c) for c in choices),
        got=value,
        mend=f"Perhaps {near[0]!r} was meant" if near else "",
    )


def _read_plain(value: Any, hint: Any, path: str) -> Any:
    word = isinstance(value, _Word)
    if hint is str and isinstance(value, str):
        return str(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is bool:
        found = {"true": True, "1": True, "false": False, "0": False}.get(value.lower()) if word else value
        if isinstance(found, bool):
            return found
    elif hint in (int, float):
        found = _literal(value) if word else value
        if isinstance(found, hint) and not isinstance(found, bool):
            return found
        if isinstance(found, int | float) and not isinstance(found, bool) and hint(found) == found:
            return hint(found)
    raise _wrong(path, getattr(hint, "__name__", str(hint)), value)


def _literal(text: str) -> Any:
    """A word as TOML would read it; else the word itself."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return str(text)


def _wrong(path: str, expected: str, value: Any) -> InvalidParameter:
    return InvalidParameter(f"{path} cannot be read", field=path, expected=expected, got=value)


def to_toml(settings: Any, *, recipe: str = "") -> str:
    """A dataclass as TOML that `read_file` and `merge` read back to an equal one.

    What is None has no line: it is what the recipe that the file begins from has there.

    Args:
        settings: the dataclass.
        recipe: name of the recipe to begin from, which says its own ``name``; empty: the dataclass alone.
    """
    lines = [f"recipe = {json.dumps(recipe)}"] if recipe else []
    values = _plain(settings)
    if recipe:
        values.pop("name", None)
    return "\n".join(lines + _table(values, "")) + "\n"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: _plain(entry) for name, entry in pairs if entry is not None}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _table(values: Mapping[str, Any], prefix: str) -> list[str]:
    """Plain entries first, then the tables, as TOML wants it."""
    lines = [f"{_key(k)} = {_value(v)}" for k, v in values.items() if not isinstance(v, dict)]
    for key, value in values.items():
        if isinstance(value, dict):
            path = f"{prefix}{_key(key)}"
            lines += ["", f"[{path}]", *_table(value, f"{path}.")]
    return lines


def _key(key: str) -> str:
    bare = key and all(c.isascii() and (c.isalnum() or c in "_-") for c in key)
    return key if bare else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(_value(v) for v in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(k)} = {_value(v)}' for k, v in value.items())}}}"
    return repr(value)
