"""A step of every head where weights and words are on another device than the pictures come from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from ovperception.datasets.scenes.export import ExportSettings, export_scenes
from ovperception.plugins import head_factory
from ovperception.text import TextEncoder
from ovperception.text_cache import EmbeddingCache
from ovperception.training.augmentations import Augmentation
from ovperception.training.data_recipe import open_base
from ovperception.training.data_settings import DataSettings, open_training_images
from ovperception.training.distributed import ParallelLosses, World
from ovperception.training.epochs import EpochOrder
from ovperception.training.heads import head_losses
from ovperception.training.labelled_batches import LabelledBatches, LabelledViews
from ovperception.training.learner import Learner
from ovperception.training.loop import _read
from ovperception.training.loop_settings import LoopSettings
from ovperception.training.parameters import OptimizerSettings, make_optimizer
from tests.ovperception.training.other_device import DEVICE, elsewhere

WORLD = World(device=str(DEVICE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes")
    export_scenes(out, ExportSettings(images=2, size=(64, 64)))
    return out


def test_mixed_devices_are_refused_and_waiting_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    with elsewhere(monkeypatch) as waits:
        layer = torch.nn.Linear(3, 1).to(DEVICE)
        assert layer.weight.device == DEVICE
        with pytest.raises(RuntimeError, match="two devices"):
            layer(torch.ones(2, 3))
        found = layer(torch.ones(2, 3).to(DEVICE)).sum()
        assert not waits.total()
        assert found.detach().item() == found.detach().cpu().item()
        assert waits.total() == 2


@pytest.mark.parametrize(
    ("model", "loss", "waiting"),
    [
        # A step of two batches: all of one is matched on the CPU in one go, proposals are suppressed in one.
        ("tiny", {"points": 32}, {"heads/fcclip/matching.py": 2}),
        ("tiny-regionclip", {}, {"ovperception/proposals/clip_rpn.py": 2}),
        ("tiny-lseg", {"candidates": 20, "pixels": 64, "balance": 0.5}, {"heads/lseg/losses.py": 6}),
    ],
    ids=["fcclip", "regionclip", "lseg"],
)
def test_a_step_mixes_no_devices_and_waits_for_one_read(
    model: str, loss: dict[str, Any], waiting: dict[str, int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = open_base(model, None, "x")
    assert base.head is not None
    head: Any = head_factory(base.head.name).from_settings(base.head.config, base.backbone.spec)
    images = open_training_images(
        DataSettings(annotations=folder / "instances.json", images=folder / "images")
    )
    encoder = TextEncoder(base.backbone, templates=("{}",), cache=EmbeddingCache())
    with torch.no_grad():
        text = encoder.classifier(images.classes)
    views = LabelledViews(
        source=images,
        augmentation=Augmentation.large_scale_jitter((64, 64), (0.8, 1.2)),
        preprocessing=base.preprocessing,
    )
    source = LabelledBatches(views=views, order=EpochOrder(count=2, seed=0, batch_size=1))
    with elsewhere(monkeypatch) as waits:
        backbone = base.backbone.to(DEVICE)
        head.to(DEVICE).train()
        losses = head_losses(head, backbone, text.to(DEVICE), loss=loss)
        optimizer = make_optimizer(head, OptimizerSettings(), 1e-4)
        settings = LoopSettings(accumulate=2, ema=0.9)
        learner = Learner(head, optimizer, settings, WORLD, float16=True)
        waits.clear()
        named = learner.gradients(ParallelLosses(head, losses, WORLD), [source[0], source[1]])
        assert +waits == Counter(waiting)
        waits.clear()
        numbers = _read(named, learner.clip())
        learner.update()
        assert +waits == Counter({"ovperception/training/loop.py": 1})
    assert all(value == value and value < 1e6 for value in numbers.values())
    assert numbers["gradient_norm"] > 0
