"""The segmentor gives mmsegmentation the maps that the model gives by itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import ovperception as ovp
from ovperception.datasets.scenes import scene
from ovperception.errors import MissingDependency, Unsupported
from ovperception.interop import mmseg_segmentor

WORDS = ["grass", "sky", "dog", "car"]


class FakeSample:
    """As much of mmseg's ``SegDataSample`` as the segmentor uses."""

    def __init__(self, metainfo: dict[str, Any] | None = None) -> None:
        self.metainfo = metainfo or {}

    def set_data(self, data: dict[str, Any]) -> None:
        self.__dict__.update(data)


class FakeModel(torch.nn.Module):
    """As much of mmengine's ``BaseModel``."""

    def __init__(self, data_preprocessor: Any = None) -> None:
        super().__init__()


@pytest.fixture
def registered_in_mmseg(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, type]]:
    registered: dict[str, type] = {}
    registry = SimpleNamespace(
        register_module=lambda *, name, module, force: registered.update({name: module})
    )
    for name, content in (
        ("mmengine", {}),
        ("mmengine.model", {"BaseModel": FakeModel}),
        ("mmengine.structures", {"PixelData": SimpleNamespace}),
        ("mmseg", {}),
        ("mmseg.registry", {"MODELS": registry}),
        ("mmseg.structures", {"SegDataSample": FakeSample}),
    ):
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    mmseg_segmentor.segmentor.cache_clear()
    yield registered
    mmseg_segmentor.segmentor.cache_clear()


def test_maps_are_the_models_own(registered_in_mmseg: dict[str, type]) -> None:
    made = mmseg_segmentor.segmentor()
    assert registered_in_mmseg == {"OVPerceptionSegmentor": made}
    segmentor = made(model="tiny", words=WORDS)
    pixels = scene("val", 0, (96, 96)).image
    image = torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1)))
    samples = segmentor([image, image], [FakeSample(), FakeSample({"ori_shape": (48, 64)})])
    own = ovp.load("tiny").encode(pixels).semantic(WORDS, score_threshold=0.0)
    assert samples[0].pred_sem_seg.data.dtype == torch.int64
    np.testing.assert_array_equal(samples[0].pred_sem_seg.data[0].numpy(), own.labels)
    assert samples[1].pred_sem_seg.data.shape == (1, 48, 64)
    assert len(segmentor([image])) == 1
    with pytest.raises(Unsupported, match="only predicts"):
        segmentor([image], mode="loss")


def test_words_by_name_and_models_without_maps() -> None:
    assert len(mmseg_segmentor.Segmenter("tiny", "ade20k_150").vocabulary) == 150
    with pytest.raises(Unsupported, match="gives no maps"):
        mmseg_segmentor.Segmenter("tiny-regionclip", WORDS)


def test_without_mmseg_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mmengine", None)
    monkeypatch.setitem(sys.modules, "mmengine.model", None)
    mmseg_segmentor.segmentor.cache_clear()
    with pytest.raises(MissingDependency, match="mmengine"):
        mmseg_segmentor.segmentor()


def test_inside_mmseg_itself() -> None:
    pytest.importorskip("mmseg")
    mmseg_segmentor.segmentor.cache_clear()
    mmseg_segmentor.segmentor()
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    segmentor = MODELS.build({"type": "OVPerceptionSegmentor", "model": "tiny", "words": WORDS})
    pixels = scene("val", 0, (96, 96)).image
    image = torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1)))
    sample = SegDataSample(metainfo={"ori_shape": (96, 96)})
    (found,) = segmentor.test_step({"inputs": [image], "data_samples": [sample]})
    own = ovp.load("tiny").encode(pixels).semantic(WORDS, score_threshold=0.0)
    np.testing.assert_array_equal(found.pred_sem_seg.data[0].numpy(), own.labels)
