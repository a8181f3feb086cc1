"""Recipe files: typed reading, errors that help, and TOML that reads back to the same recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from typer.testing import CliRunner

from ovperception.cli import app
from ovperception.errors import (
    InvalidParameter,
    MissingFile,
    NotFound,
    OVPError,
    UnknownHead,
    UnknownModel,
    UnknownVocabulary,
    Unsupported,
)
from ovperception.training.recipe_files import merge, read_file, to_toml, with_overrides
from ovperception.training.recipes import RECIPES


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    steps: int = 3
    at: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    sizes: tuple[float, float] = (1.0, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    place: Place | None = field(default_factory=Place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    name: str = "it"
    rate: float = 1.0
    size: tuple[int, int] = (2, 3)
    kind: Literal["red", "green"] = "red"
    fast: bool = False
    minutes: float | None = None
    words: tuple[str, ...] = ("a",)
    free: Mapping[str, Any] = field(default_factory=lambda: {"deep": {"x": 1, "none": None}})
    schedule: Inner = field(default_factory=Inner)
    other: Other | None = None
    outer: Outer = field(default_factory=Outer)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("rate", "2", 2.0),
        ("rate", "1e-4", 1e-4),
        ("size", "64x48", (64, 48)),
        ("size", "[64, 48]", (64, 48)),
        ("size", "64", (64, 64)),
        ("kind", "green", "green"),
        ("fast", "TRUE", True),
        ("minutes", "2", 2.0),
        ("minutes", "none", None),
        ("words", "b,c", ("b", "c")),
        ("words", "b", ("b",)),
        ("name", "2", "2"),
    ],
)
def test_words_are_read_in_the_type_of_their_field(key: str, text: str, value: object) -> None:
    found = getattr(with_overrides(Settings(minutes=1.0), {key: text}), key)
    assert found == value
    assert type(found) is type(value)


def test_words_reach_into_parts_and_tables() -> None:
    changed = with_overrides(
        Settings(),
        {
            "steps": "7",
            "schedule.at": "0.5,0.75",
            "free.deep.x": "2",
            "free.new": "[1, 2]",
            "other.path": "p/q",
        },
    )
    assert changed.schedule == Inner(steps=7, at=(0.5, 0.75))
    assert changed.free == {"deep": {"x": 2, "none": None}, "new": [1, 2]}
    assert changed.other == Other(path=Path("p/q"))


@pytest.mark.parametrize(
    ("changes", "named", "hint"),
    [
        ({"shedule": {}}, "shedule", "'schedule' was meant"),
        ({"schedule": {"stps": 1}}, "schedule.stps", "'schedule.steps' was meant"),
        ({"stps": 1}, "stps", "'schedule.steps' was meant"),
        ({"outer": {"siz": 1}}, "outer.siz", "'outer.place.sizes' was meant"),
        ({"kind": "gren"}, "kind", "green"),
        ({"rate": "fast"}, "rate", "float"),
        ({"rate": True}, "rate", "float"),
        ({"size": [1, 2, 3]}, "size", "a list of 2"),
        ({"size": [1, 2.5]}, r"size\[1\]", "int"),
        ({"fast": 1}, "fast", "bool"),
        ({"schedule": 5}, "schedule", "a table"),
        ({"free": 5}, "free", "a table"),
        ({"other": {}}, "other", "path"),
    ],
    ids=str,
)
def test_errors_name_the_setting_and_what_is_near(changes: dict[str, Any], named: str, hint: str) -> None:
    with pytest.raises(InvalidParameter, match=named) as caught:
        merge(Settings(), changes)
    assert hint in caught.value.message


def test_a_recipe_survives_toml() -> None:
    import tomllib

    changed = merge(
        Settings(),
        {
            "name": 'a "b" ü',
            "rate": 1e-5,
            "words": [],
            "other": {"path": "x"},
            "free": {"two words": {"y": [1]}},
        },
    )
    assert merge(Settings(), tomllib.loads(to_toml(changed))) == changed


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_printed_and_read_back(name: str, tmp_path: Path) -> None:
    settings = RECIPES[name].settings()
    assert settings.name == name
    printed = CliRunner().invoke(app, ["train", name, "--dry-run", "seed=5"])
    assert printed.exit_code == 0, printed.output
    path = tmp_path / "mine.toml"
    path.write_text(printed.stdout, encoding="utf-8")
    base, changes = read_file(path)
    assert base == name
    assert merge(settings, changes) == with_overrides(settings, {"seed": "5"})


@pytest.mark.parametrize(
    ("recipe", "word", "error", "known"),
    [
        ("fcclip", "head=fclip", UnknownHead, "regionclip"),
        ("fcclip", "head=", UnknownHead, "Which head"),
        ("fcclip", "model=open_clip:RN51", UnknownModel, "RN50"),
        ("fcclip", "model=open_clip:RN50/openay", UnknownModel, "openai"),
        ("my-data", "model=tinny", UnknownModel, "'tiny'"),
        ("my-data", "vocabulary=scene", UnknownVocabulary, "scenes_base"),
        ("my-data", "evaluation.by=cocoo", InvalidParameter, "coco"),
        ("my-data", "held_out.name=coco_panoptc", NotFound, "coco_panoptic"),
        ("lseg", "data.split=trainig", InvalidParameter, "training"),
        ("fcclip", "float16=true", InvalidParameter, "bfloat16"),
        ("regionclip", "loop.sharded=true", Unsupported, "tune="),
        ("tiny-fcclip", "borrow=tinny", UnknownModel, "'tiny'"),
        ("regionclip-pretrain", "proposer=tinny", UnknownModel, "'tiny'"),
        ("regionclip-pretrain", "concepts=lvis", UnknownVocabulary, "lvis_v1_1203"),
    ],
)
def test_a_dry_run_refuses_the_names_that_the_run_would(
    recipe: str, word: str, error: type[OVPError], known: str
) -> None:
    done = CliRunner().invoke(app, ["train", recipe, "--dry-run", word])
    assert isinstance(done.exception, error)
    assert known in str(done.exception)
    assert not done.stdout


def test_files_that_are_no_recipes_say_so(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="--list"):
        read_file(tmp_path / "none.toml")
    path = tmp_path / "bad.toml"
    path.write_text("a = = 1")
    with pytest.raises(InvalidParameter, match="no TOML"):
        read_file(path)
    path.write_text("out = 'x'")
    with pytest.raises(InvalidParameter, match="begins from"):
        read_file(path)


def test_the_list_and_near_names() -> None:
    runner = CliRunner()
    listed = runner.invoke(app, ["train", "--list"])
    assert listed.exit_code == 0
    assert all(name in listed.stdout for name in RECIPES)
    wrong = runner.invoke(app, ["train", "tiny-fclip"])
    assert "tiny-fcclip' was meant" in str(wrong.exception)
