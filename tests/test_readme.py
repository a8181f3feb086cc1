"""Every command and every line of Python in the README runs as it stands.

What would take an hour is cut short by words appended to the command; nothing else is changed but the port.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ovperception.cli import main
from tests.served_command import served_by

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PORT = "50051"

# Appended, so that a run of hours is one of seconds.
SHORTER = {
    "ovp eval --model tiny --data": ["--images", "1", "--crops", "1", "--size", "128"],
    "ovp eval --model": ["--images", "1", "--size", "128"],
    "ovp bench": ["--duration", "0.3", "--warm-up", "0.1"],
    "ovp train tiny-clip-scenes": ["steps=1", "megapixels=0.2", "workers=0"],
    "ovp train tiny-clip": ["steps=1", "cells=8", "workers=0"],
    "ovp train tiny-regionclip": ["steps=1", "batch_size=1", "size=64", "workers=0"],
    "ovp train tiny-lseg": ["steps=1", "batch_size=1", "size=64", "workers=0"],
    "ovp train tiny-fcclip": ["steps=1", "batch_size=1", "size=64", "workers=0"],
    "ovp data scenes": ["--images", "2", "--size", "96"],
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that looks like a checkout to the commands."""
    place = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "docs", place / "docs")
    shapes = json.loads((ROOT / "tests" / "data" / "fcclip" / "manifest_r50.json").read_text())
    zero = torch.zeros(1)
    state = {key: zero.expand(shape) if shape else zero[0] for key, (shape, _) in shapes.items()}
    torch.save({"model": state}, place / "fcclip_cocopan.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[str]:
    """The port of a server started by the README's own command."""
    served = next(c for c in commands() if c[:2] == ["ovp", "serve"])
    with served_by(served, PORT) as free:
        yield free


def test_the_readme_has_commands_and_code() -> None:
    assert len(commands()) >= 12
    assert len(blocks("python")) == 2


@pytest.mark.parametrize("command", [c for c in commands() if c[0] == "make"], ids=" ".join)
def test_make_targets_exist(command: list[str]) -> None:
    assert re.search(rf"^{command[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_command_runs_in_order(folder: Path, port: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands():
        if command[0] != "ovp" or (command[1] == "serve" and "--check-config" not in command):
            continue
        extra = next((words for start, words in SHORTER.items() if " ".join(command).startswith(start)), [])
        argv = [word.replace(PORT, port) for word in command[1:]] + extra
        code = main(argv)
        printed = capsys.readouterr()
        assert code == 0, f"{' '.join(command)}: {printed.err}"
        if "--json" in command:
            assert "segments" in printed.out or "detections" in printed.out


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_finds_the_snowman(
    folder: Path, port: str, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    left: dict[str, object] = {}
    exec(compile(blocks("python")[number].replace(PORT, port), f"README block {number}", "exec"), left)
    found = getattr(left.get("found"), "names", ())
    assert "snowman" in found or "'snowman'" in capsys.readouterr().out


def test_pictures_exist() -> None:
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / path).exists(), path
