"""Official checkpoints: every key is accounted for; what is no checkpoint is refused without running it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from heads.fcclip import FCCLIP
from heads.fcclip.config import PUBLISHED
from heads.fcclip.convert import convert, convert_state, official_names
from ovperception.errors import InvalidCheckpoint, MissingFile
from tests.heads.fcclip.conftest import manifest


def blank(variant: str = "r50") -> dict[str, Tensor]:
    """An official state dict that takes no memory."""
    return {k: torch.zeros(()).expand(shape) for k, (shape, _) in manifest(variant).items()}


@pytest.mark.parametrize(
    ("variant", "arch"), [("r50", "RN50-quickgelu"), ("convnext_large", "convnext_large_d_320")]
)
def test_every_key_goes_somewhere(variant: str, arch: str) -> None:
    converted = convert_state(blank(variant))
    assert converted.backbone_arch == arch
    with torch.device("meta"):
        head = FCCLIP(converted.config)
    ours = {k: tuple(v.shape) for k, v in head.state_dict().items()}
    assert {k: tuple(v.shape) for k, v in converted.head_state.items()} == ours
    used = {theirs for theirs, _ in official_names(converted.config).values()}
    kept = {f"backbone.clip_model.{k}" for k in converted.backbone_state}
    assert used | kept | {"criterion.empty_weight"} == set(manifest(variant))


@pytest.mark.parametrize("arch", PUBLISHED)
def test_names_fit_every_published_size(arch: str) -> None:
    config = PUBLISHED[arch]()
    with torch.device("meta"):
        head = FCCLIP(config)
    assert set(official_names(config)) == set(head.state_dict())


def test_packed_projections_come_apart() -> None:
    state = blank()
    name = "sem_seg_head.predictor.transformer_cross_attention_layers.2.multihead_attn.in_proj_weight"
    state[name] = torch.randn(768, 256)
    head_state = convert_state(state).head_state
    for third, projection in enumerate(("query", "key", "value")):
        found = head_state[f"mask_decoder.layers.2.cross_attention.{projection}.weight"]
        assert torch.equal(found, state[name][third * 256 : (third + 1) * 256])


def test_temperature_and_words_are_kept() -> None:
    state = blank()
    state["backbone.clip_model.logit_scale"] = torch.tensor(3.0)
    config = convert_state(state, seen_words=("cat",)).config
    assert config.clip_logit_scale == pytest.approx(20.0855, rel=1e-5)
    assert config.seen_words == ("cat",)
    state["backbone.clip_model.logit_scale"] = torch.tensor(9.0)
    assert convert_state(state).config.clip_logit_scale == 100.0


def test_what_is_wrong_is_listed() -> None:
    state = blank()
    for layer in range(9):
        for kind in ("weight", "bias"):
            del state[f"sem_seg_head.predictor.transformer_ffn_layers.{layer}.norm.{kind}"]
    state["sem_seg_head.predictor.surprise"] = torch.zeros(1)
    state["sem_seg_head.predictor.decoder_norm.weight"] = torch.zeros(7)
    del state["backbone.clip_model.visual.conv1.weight"]
    with pytest.raises(InvalidCheckpoint) as caught:
        convert_state(state)
    message = str(caught.value)
    assert "19 missing" in message
    assert "backbone.clip_model.visual.conv1.weight" in message
    assert "..." in message
    assert "1 unexpected (sem_seg_head.predictor.surprise)" in message
    assert "decoder_norm.weight (7,) instead of (256,)" in message


def test_another_size_is_named() -> None:
    state = blank()
    state["void_embedding.weight"] = torch.zeros(1, 77)
    with pytest.raises(InvalidCheckpoint, match="no published FC-CLIP size"):
        convert_state(state)
    with pytest.raises(InvalidCheckpoint, match="no FC-CLIP checkpoint"):
        convert_state({"conv.weight": torch.zeros(1)})


@pytest.mark.parametrize("wrap", [None, "model", "state_dict"])
def test_files(tmp_path: Path, wrap: str | None) -> None:
    state: Any = blank()
    path = tmp_path / "model.pth"
    torch.save(state if wrap is None else {wrap: state, "iteration": 3}, path)
    assert convert(path).backbone_arch == "RN50-quickgelu"


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (Path("bomb-went-off"), "boom")


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Bomb()}, tmp_path / "bomb.pth")
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps({"model": Bomb()}, protocol=2))
    for name in ("bomb.pth", "bomb.pkl"):
        with pytest.raises(InvalidCheckpoint, match="cannot be read"):
            convert(tmp_path / name)
    assert not (tmp_path / "bomb-went-off").exists()


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        convert(tmp_path / "nowhere.pth")
    with pytest.raises(MissingFile):
        convert(tmp_path)
    whole = tmp_path / "whole.pth"
    torch.save({"model": {"a": torch.zeros(1000)}}, whole)
    contents = {
        "empty.pth": b"",
        "text.pth": b"not a checkpoint at all",
        "truncated.pth": whole.read_bytes()[:1500],
        "zip.pth": b"PK\x03\x04" + b"\0" * 100,
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InvalidCheckpoint):
            convert(tmp_path / name)
    for index, content in enumerate(([1, 2], {}, {"model": {}}, {"model": {"a": "b"}}, {1: torch.zeros(1)})):
        path = tmp_path / f"{index}.pth"
        torch.save(content, path)
        with pytest.raises(InvalidCheckpoint):
            convert(path)
