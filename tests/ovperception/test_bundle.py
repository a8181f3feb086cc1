"""A bundle comes back as it was written, or the reason is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ovperception.bundle import BackboneCard, HeadCard, ModelCard, read_bundle, read_card, write_bundle
from ovperception.errors import InvalidCheckpoint, MissingFile, ResourceExhausted


@pytest.fixture
def card() -> ModelCard:
    return ModelCard(
        name="m",
        backbone=BackboneCard(name="open_clip:RN50"),
        heads=(HeadCard(name="fcclip", config={"queries": 3, "seen_words": ["a", "b"]}),),
        preprocessing={"mean": [0.0, 0.0, 0.0]},
        templates=("a {}",),
        scores={"PQ": 1.5},
    )


def write(path: Path, metadata: dict[str, str]) -> Path:
    save_file({"x": torch.zeros(1)}, path, metadata=metadata)
    return path


def test_round_trip(tmp_path: Path, card: ModelCard) -> None:
    tensors = {
        "backbone.a": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
        "head.fcclip.b": torch.ones(2, dtype=torch.float16),
        "head.fcclip.n": torch.tensor(3),
    }
    path = write_bundle(tmp_path / "deep" / "m.safetensors", card, tensors)
    bundle = read_bundle(path)
    assert bundle.card == card == read_card(path)
    assert bundle.tensors.keys() == tensors.keys()
    for key, value in tensors.items():
        assert torch.equal(bundle.tensors[key], value)
        assert bundle.tensors[key].dtype == value.dtype
    assert set(bundle.part("head.fcclip")) == {"b", "n"}
    assert bundle.part("head.fc") == {}


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path, card: ModelCard) -> None:
    whole = torch.arange(4.0)
    path = write_bundle(tmp_path / "m.safetensors", card, {"a": whole, "b": whole, "c": whole[2:]})
    tensors = read_bundle(path).tensors
    assert torch.equal(tensors["a"], tensors["b"])
    assert tensors["c"].tolist() == [2.0, 3.0]


def test_reading_the_card_loads_no_torch(tmp_path: Path, card: ModelCard) -> None:
    path = write_bundle(tmp_path / "m.safetensors", card, {"x": torch.zeros(1)})
    code = (
        "import sys, pathlib; from ovperception.bundle import read_card; "
        f"print(read_card(pathlib.Path({str(path)!r})).name, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "m False\n"


@pytest.mark.parametrize("content", [b"", b"text", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0notjson!"])
@pytest.mark.parametrize("read", [read_card, read_bundle])
def test_no_safetensors(tmp_path: Path, content: bytes, read: Any) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match="is not a safetensors file"):
        read(path)


def test_truncated(tmp_path: Path, card: ModelCard) -> None:
    path = write_bundle(tmp_path / "m.safetensors", card, {"x": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidCheckpoint):
        read_bundle(path)


@pytest.mark.parametrize("name", ["absent.safetensors", "."])
def test_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingFile, match="No bundle at"):
        read_card(tmp_path / name)


def test_no_card(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="has no model card"):
        read_card(write(tmp_path / "m.safetensors", {"format": "pt"}))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"format_version": 2}, "format_version"),
        ({"surprise": 1}, "surprise"),
        ({"name": None}, "name"),
        ({"heads": [{"name": "x"}]}, "heads.0.config"),
    ],
)
def test_a_card_that_cannot_be_read_names_the_field(
    tmp_path: Path, card: ModelCard, change: dict[str, Any], field: str
) -> None:
    text = json.dumps(card.model_dump(mode="json") | change)
    with pytest.raises(InvalidCheckpoint) as caught:
        read_card(write(tmp_path / "m.safetensors", {"ovperception": text}))
    assert caught.value.field == field


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"the old one")
    with pytest.raises(ResourceExhausted, match="No room"):
        write_bundle(path, card, {})
    assert path.read_bytes() == b"the old one"
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_a_folder_that_cannot_be(tmp_path: Path, card: ModelCard) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MissingFile, match="Cannot write"):
        write_bundle(tmp_path / "file" / "m.safetensors", card, {})
