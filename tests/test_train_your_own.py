"""The page that goes from a folder of pictures to a served model does so, word for word but for numbers."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from ovperception.bundle import read_card
from ovperception.cli import main
from ovperception.model import load
from tests.served_command import served_by

PAGE = (Path(__file__).parents[1] / "docs" / "train-your-own.md").read_text(encoding="utf-8")
PORT = "50051"
# Hours and gigabytes become seconds.
SMALLER = {
    "--images 120": "--images 3",
    "--size 256": "--size 96",
    "ovp train mine.toml": "ovp train mine.toml steps=1 batch_size=1 workers=0",
}


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    for large, small in SMALLER.items():
        found = [block.replace(large, small) for block in found]
    return found


def test_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert all(large in PAGE for large in SMALLER)
    monkeypatch.chdir(tmp_path)
    (recipe,) = blocks("toml")
    Path("mine.toml").write_text(recipe, encoding="utf-8")
    commands = [shlex.split(line) for block in blocks("bash") for line in block.strip().splitlines()]
    asked = [words for words in commands if words[1] == "predict"]
    served = [words for words in commands if words[1] == "serve"]
    before = [words for words in commands if words not in asked + served]
    for words in before:
        assert words[0] == "ovp"
        assert main(words[1:]) == 0, words
    assert (tmp_path / "runs" / "mine" / "last.pt").is_file()
    assert read_card(tmp_path / "runs" / "mine" / "mine.safetensors").name == "mine"
    for words in asked:
        assert main(words[1:]) == 0, words
    capsys.readouterr()

    (words,) = served
    (code,) = blocks("python")
    told: dict[str, Any] = {}
    with served_by(words, PORT) as port:
        exec(code.replace(PORT, port), told)
    model = load(words[words.index("--model") + 1])
    here = model.encode("my-data/images/000000000001.jpg").detect(["taxi", "cat", "traffic light"])
    assert told["found"].classes == here.classes
    assert told["found"].boxes == pytest.approx(here.boxes, abs=1e-2)
