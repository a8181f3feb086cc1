"""Where settings come from: flags over the environment over a file over the defaults.

A file is TOML with the names of `serving.config.ServeConfig`; a variable is the same name in capitals behind
``OVP_``. A name that is not known is refused with the nearest that is.

    # ovp.toml                          OVP_PORT=50052 ovp serve --config ovp.toml --max-batch 16
    models = ["tiny"]
    port = 50051
    tokens_file = "tokens.txt"          # beside this file
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ovperception.errors import InvalidParameter, MissingFile
from serving.config import ServeConfig

__all__ = ["ENV_PREFIX", "Resolved", "names", "resolve"]

ENV_PREFIX = "OVP_"
_NOT_SETTINGS = frozenset({"OVP_CONFIG", "OVP_DEBUG"})  # variables of the command line itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Settings, and where each comes from: ``flag``, ``environment``, ``file`` or ``default``."""

    config: ServeConfig
    origins: Mapping[str, str]


def names() -> tuple[str, ...]:
    """Every setting there is."""
    return tuple(field.name for field in fields(ServeConfig))


def resolve(
    flags: Mapping[str, object],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    typed: Mapping[str, str] | None = None,
) -> Resolved:
    """The settings of one run.

    Args:
        flags: Settings by name; None stands for a flag that was not given.
        file: A TOML file.
        environment: Variables; None means those of the process.
        typed: How flags were written that are not ``--`` and their setting's name, by that name.

    Raises:
        MissingFile: There is no such file.
        InvalidParameter: A name is unknown, or a value cannot be.
    """
    sources = {
        "flag": {name: value for name, value in flags.items() if value is not None},
        "environment": _read_environment(os.environ if environment is None else environment),
        "file": _read_file(file) if file else {},
    }
    spellings = {name: f"--{name.replace('_', '-')}" for name in sources["flag"]} | dict(typed or {})
    for name in sources["flag"]:
        _refuse_unknown([name], spellings[name])
    merged: dict[str, Any] = {}
    origins = dict.fromkeys(names(), "default")
    for origin in ("file", "environment", "flag"):
        merged |= sources[origin]
        origins |= dict.fromkeys(sources[origin], origin)
    # Two limits follow those of one request, unless they were set themselves.
    for total, one in (("max_queued_pixels", "max_pixels"), ("max_queued_bytes", "max_message_bytes")):
        if origins[total] == "default" and origins[one] != "default":
            merged[total] = max(getattr(ServeConfig(), total), _number(merged[one]))
    return Resolved(config=_typed(merged, origins, spellings), origins=origins)


def _number(value: object) -> int:
    """A number as far as it is one; what is none is refused where all values are."""
    try:
        return int(str(value))
    except ValueError:
        return 0


def _typed(
    values: Mapping[str, Any], origins: Mapping[str, str], spellings: Mapping[str, str]
) -> ServeConfig:
    try:
        settings = _settings_class()(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise InvalidParameter(
            f"The setting {name} ({_spelled(name, origins[name], spellings)}) cannot be read",
            field=name,
            expected=first["msg"].removeprefix("Input should be "),
            got=first["input"],
        ) from None
    typed = {name: getattr(settings, name) for name in names()}
    try:
        return ServeConfig(**typed)
    except InvalidParameter as error:
        origin = origins.get(error.field, "default")
        if origin != "default":  # which may be but what another setting contradicts
            error.what += f" ({_spelled(error.field, origin, spellings)})"
            error.args = (error.message,)
        raise


def _spelled(name: str, origin: str, flags: Mapping[str, str]) -> str:
    """A setting as its source writes it."""
    if origin == "environment":
        return f"{ENV_PREFIX}{name.upper()} in the environment"
    return {"flag": flags.get(name, ""), "file": "in the file"}.get(origin, "by default")


@cache
def _settings_class() -> type[BaseSettings]:
    """The same fields for pydantic, which reads numbers, paths and choices from text."""
    hints = get_type_hints(ServeConfig)

    class Base(BaseSettings):
        model_config = SettingsConfigDict(
            env_prefix=ENV_PREFIX, enable_decoding=False, extra="forbid", allow_inf_nan=False
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings,)  # the others were read one by one, to tell what came from where

    # `Any`: create_model's overloads know no mapping of fields.
    parts: dict[str, Any] = {field.name: (hints[field.name], field.default) for field in fields(ServeConfig)}
    made: type[BaseSettings] = create_model("Settings", __base__=Base, **parts)
    return made


def _read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    variables = {
        name.upper(): value for name, value in environment.items() if name.upper().startswith(ENV_PREFIX)
    }
    known = {f"{ENV_PREFIX}{name.upper()}" for name in names()}
    for variable in sorted(variables.keys() - known - _NOT_SETTINGS):
        # Others may have variables of this prefix, such as Kubernetes for a service of that name.
        if close := difflib.get_close_matches(variable, known, n=1, cutoff=0.85):
            raise InvalidParameter(
                "No setting has this variable", field=variable, expected=f"{close[0]}, probably", got=variable
            )
    source = EnvSettingsSource(_settings_class(), env_prefix=ENV_PREFIX)
    source.env_vars = {name.lower(): value for name, value in variables.items()}
    return {name: _split(name, value) for name, value in source().items()}


def _split(name: str, value: object) -> object:
    """A list in one variable is written with commas."""
    if name == "models" and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _read_file(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text())
    except OSError as error:
        raise MissingFile(
            "The settings cannot be read", field="config", got=f"{file}: {error.strerror}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidParameter("The settings are no TOML", field="config", got=f"{file}: {error}") from None
    _refuse_unknown(values, str(file))
    hints = get_type_hints(ServeConfig)
    for name, value in values.items():
        if isinstance(value, str) and hints[name] == Path | None:
            values[name] = file.parent / value  # an absolute path stays what it is
    return values


def _refuse_unknown(found: Iterable[str], where: str) -> None:
    for name in found:
        if name not in names():
            close = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
            raise InvalidParameter(
                f"No setting has this name ({where})",
                field=name,
                expected=f"{close[0]}, probably" if close else f"one of {', '.join(names())}",
                got=name,
            )
