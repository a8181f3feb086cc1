"""Official checkpoints: every key is accounted for, and what is left out is left out on purpose."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

import heads.lseg.convert as conversion
from heads.lseg import LSeg, LSegConfig
from heads.lseg.convert import convert, convert_state, text_only_config
from ovperception.backbones import build_open_clip
from ovperception.bundle import read_bundle
from ovperception.catalogue import entry
from ovperception.cli import main
from ovperception.conversion import Companions
from ovperception.errors import InvalidCheckpoint, InvalidParameter, MissingFile
from ovperception.model import load
from tests.heads.lseg.official import manifest, synthetic_state
from tests.heads.lseg.small import TRUNK, image
from tests.ovperception.backbones.conftest import small_config

BLOCK = "net.scratch.head_block.depthwise.depthwise."


def blank() -> dict[str, Tensor]:
    """An official state dict that takes no memory."""
    return {
        key: torch.zeros((), dtype=getattr(torch, dtype)).expand(shape)
        for key, (shape, dtype) in manifest().items()
    }


@pytest.fixture
def _no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_plain", lambda tensor: tensor)


@pytest.mark.usefixtures("_no_copies")
def test_the_manifest_is_read_whole() -> None:
    state = blank()
    assert len(state) == 730
    converted = convert_state(state)
    with torch.device("meta"):
        head, (clip, _) = LSeg(converted.config), build_open_clip(text_only_config())
    for module, found in ((head, converted.head_state), (clip, converted.backbone_state)):
        assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in module.state_dict().items()}
    left_out = len(state) - len(converted.head_state) - len(converted.backbone_state)
    visual = sum(k.startswith("net.clip_pretrained.visual.") for k in state)
    assert left_out == visual + 4 + 12  # the trunk's norm and classifier, a residual unit
    about = entry("lseg-vitl16")
    assert sum(p.numel() for p in head.parameters()) == about.parameters
    assert sum(v.numel() for v in converted.backbone_state.values()) == about.backbone_parameters


@pytest.mark.usefixtures("_no_copies")
def test_what_nothing_reads_may_be_missing() -> None:
    state = {k: v for k, v in blank().items() if not k.startswith("net.clip_pretrained.visual.")}
    del state["net.pretrained.model.head.weight"]
    assert len(convert_state(state).backbone_state) == 150


@pytest.mark.usefixtures("_no_copies")
@pytest.mark.parametrize("option", [1, 2])
def test_blocks_after_the_logits(option: int) -> None:
    state = blank() | {f"{BLOCK}weight": torch.zeros(1, 1, 3, 3), f"{BLOCK}bias": torch.zeros(1)}
    settings = {"arch_option": option, "block_depth": 2, "activation": "lrelu", "max_epochs": 240}
    config = convert_state(state, settings=settings).config
    assert (config.arch_option, config.block_depth, config.activation) == (option, 2, "lrelu")
    with pytest.raises(InvalidCheckpoint, match=r"of which kind.*hyper_parameters=\{"):
        convert_state(state)


@pytest.mark.usefixtures("_no_copies")
def test_what_is_wrong_is_listed() -> None:
    state = blank()
    del state["net.scratch.refinenet2.out_conv.bias"]
    state["net.scratch.surprise"] = torch.zeros(1)
    state["net.clip_pretrained.text_projection"] = torch.zeros(512, 640)
    with pytest.raises(InvalidCheckpoint) as caught:
        convert_state(state)
    message = str(caught.value)
    for part in (
        "1 missing (net.scratch.refinenet2.out_conv.bias)",
        "1 unexpected (net.scratch.surprise)",
        "1 misshaped (net.clip_pretrained.text_projection (512, 640) instead of (512, 512))",
    ):
        assert part in message
    with pytest.raises(InvalidCheckpoint, match="no LSeg checkpoint"):
        convert_state({"model.weight": torch.zeros(1)})


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The format cut down: a small trunk, a small CLIP in float16, and the tensors that nothing reads."""
    config = small_config("vit")
    config["embed_dim"] = 512
    config["text_cfg"]["vocab_size"] = 49408
    del config["tokenizer"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32-quickgelu", config)
    monkeypatch.setattr(conversion, "vit_large_16_384", lambda: TRUNK)
    torch.manual_seed(0)
    clip, _ = build_open_clip(config)
    state = synthetic_state(LSegConfig(embed_dim=512, trunk=TRUNK))
    state |= {f"net.clip_pretrained.{k}": v.half() for k, v in clip.state_dict().items()}
    state["net.pretrained.model.norm.weight"] = torch.ones(32)
    return state


@pytest.fixture
def _lightning(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package that is not installed, as far as checkpoints name it."""
    for name, holder in (
        ("callbacks.model_checkpoint", "ModelCheckpoint"),
        ("utilities.parsing", "AttributeDict"),
    ):
        module = ModuleType(f"pytorch_lightning.{name}")
        base: tuple[type, ...] = (dict,) if holder == "AttributeDict" else ()
        setattr(module, holder, type(holder, base, {"__module__": module.__name__}))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks", "pytorch_lightning.utilities"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    return


def write_checkpoint(path: Path, state: dict[str, Tensor], **settings: Any) -> Path:
    """As Lightning writes it: callbacks by their class, hyper-parameters in a dict of its own."""
    callback = sys.modules["pytorch_lightning.callbacks.model_checkpoint"].ModelCheckpoint
    attributes = sys.modules["pytorch_lightning.utilities.parsing"].AttributeDict
    torch.save(
        {
            "epoch": 200,
            "pytorch-lightning_version": "1.3.5",
            "state_dict": state,
            "callbacks": {callback: {"best_model_score": torch.tensor(0.3)}},
            "hyper_parameters": attributes(settings),
        },
        path,
    )
    return path


@pytest.mark.usefixtures("_lightning")
def test_from_the_command_line(
    small: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    small |= {f"{BLOCK}weight": torch.randn(1, 1, 3, 3), f"{BLOCK}bias": torch.zeros(1)}
    path = write_checkpoint(tmp_path / "demo.ckpt", small, arch_option=2, block_depth=2, activation="tanh")
    for name in [n for n in sys.modules if n.startswith("pytorch_lightning")]:
        monkeypatch.delitem(sys.modules, name)
    out = tmp_path / "lseg.safetensors"
    assert main(["convert", str(path), "--format", "lseg", "--out", str(out)]) == 0
    told = "".join(capfd.readouterr().out.split())
    assert f"--model{out}--tasksemantic--classes" in told  # the usual task is none of its own
    bundle = read_bundle(out)
    assert not any("visual" in key for key in bundle.tensors)
    assert bundle.card.name == "lseg-vitl16"
    assert bundle.card.heads[0].config["block_depth"] == 2
    assert bundle.card.vocabulary == "ade20k_150"
    model = load(out)
    assert model.spec.digest == bundle.card.backbone.digest
    official = small["net.scratch.refinenet4.resConfUnit2.bn1.running_var"]
    assert torch.equal(model.heads["lseg"].state_dict()["decoder.fusion.3.refine.bn1.running_var"], official)
    found = model.encode(image()).semantic(["sky", "grass|meadow"])
    assert found.labels.shape == (90, 133)
    capfd.readouterr()
    small.popitem()
    torch.save({"state_dict": small}, path)
    assert main(["convert", str(path), "--format", "lseg", "--out", str(tmp_path / "b.safetensors")]) != 0
    assert "of which kind" in capfd.readouterr().err


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        convert(tmp_path / "none.ckpt", vocabulary=None, companions=Companions())
    with pytest.raises(InvalidParameter):
        convert(tmp_path / "none.ckpt", vocabulary=None, companions=Companions(clip=tmp_path))

    broken = tmp_path / "code.ckpt"
    torch.save({"state_dict": {"a": print}}, broken)
    with pytest.raises(InvalidCheckpoint):
        convert(broken, vocabulary=None, companions=Companions())
