"""`ovp features`: exports your own files, verifies them, says what they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ovperception.cli import main


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "scenes"
    assert main(["data", "scenes", "--out", str(folder), "--images", "3", "--size", "96"]) == 0
    return folder


def export(scenes: Path, out: Path, *more: str) -> int:
    words = ["features", "export", "--out", str(out), "--images", str(scenes / "images")]
    words += ["--annotations", str(scenes / "instances.json"), "--size", "64", "--views", "2", "-j", "0"]
    return main([*words, *more])


def test_export_verify_and_show(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "features"
    assert export(scenes, out, "--stages", "res4,res5") == 0
    assert "2 views of 3 pictures" in capsys.readouterr().out
    assert main(["features", "verify", str(out)]) == 0
    assert "is whole" in capsys.readouterr().out
    assert main(["features", "show", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["views"] == 6
    assert facts["missing"] == 0
    assert facts["key"]["stages"] == ["res4", "res5"]

    shard = out / "000000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert main(["features", "verify", str(out)]) == 2
    assert "other bytes" in capsys.readouterr().err
    assert export(scenes, out, "--stages", "res4,res5", "--seed", "9") == 2
    assert "of another seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "coco"], "Both files and the name"),
        (["--scales", "1"], "two numbers"),
        (["--part", "4/2"], "No such part"),
        (["--stages", "res9"], "no such maps"),
        (["--maps", "/nowhere"], "missing"),
    ],
)
def test_what_makes_no_sense_is_said(
    scenes: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(scenes, tmp_path, *words) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_data_has_to_be_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "export", "--out", str(tmp_path)]) == 2
    assert "The data is not told" in capsys.readouterr().err
