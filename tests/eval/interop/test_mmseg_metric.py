"""Our metric inside mmsegmentation gives the numbers of our metric outside it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from eval.interop import mmseg_metric
from eval.metrics import Category, ConfusionMatrix, score_semantic
from ovperception.errors import InvalidParameter, InvalidRegions, MissingDependency

NAMES = ("sky", "sea", "cat")


def samples() -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    made = []
    for _ in range(3):
        truth, found = generator.integers(0, 3, (2, 1, 6, 7))
        truth[0, 0, :2] = 255
        made.append(
            {"gt_sem_seg": {"data": torch.tensor(truth)}, "pred_sem_seg": {"data": torch.tensor(found)}}
        )
    return made


def expected(rule: Any) -> dict[str, float]:
    confusion = ConfusionMatrix(3)
    for sample in samples():
        truth, found = (sample[n]["data"][0].numpy() for n in ("gt_sem_seg", "pred_sem_seg"))
        confusion.add(truth, found, ignore_label=255)
    scores = score_semantic(confusion, [Category(id=i, name=n) for i, n in enumerate(NAMES)], rule=rule)
    return {name: 100 * value for name, value in scores.metrics.items() if value is not None}


class FakeMetric:
    """As much of mmengine's ``BaseMetric`` as ours uses."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.dataset_meta = {"classes": NAMES}
        self.results: list[Any] = []


@pytest.fixture
def _fake_mmseg(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, type]]:
    registered: dict[str, type] = {}
    registry = SimpleNamespace(
        register_module=lambda *, name, module, force: registered.update({name: module})
    )
    for name, content in (
        ("mmengine", {}),
        ("mmengine.evaluator", {"BaseMetric": FakeMetric}),
        ("mmseg", {}),
        ("mmseg.registry", {"METRICS": registry}),
    ):
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    mmseg_metric.metric.cache_clear()
    yield registered
    mmseg_metric.metric.cache_clear()


@pytest.mark.parametrize("rule", ["mmseg", "detectron2"])
def test_registered_and_right(_fake_mmseg: dict[str, type], rule: str) -> None:  # noqa: PT019
    made = mmseg_metric.metric()
    assert _fake_mmseg == {"OVPerceptionIoU": made}
    metric = made(rule=rule, collect_device="gpu")
    assert metric.settings == {"collect_device": "gpu"}
    for sample in samples():
        metric.process(None, [sample])
    found = metric.compute_metrics(metric.results)
    assert found == pytest.approx(expected(rule))
    with pytest.raises(InvalidParameter, match="averaging rule"):
        made(rule="mean")


def test_maps_of_two_sizes_are_refused() -> None:
    sample = samples()[0]
    sample["pred_sem_seg"]["data"] = sample["pred_sem_seg"]["data"][..., :5]
    with pytest.raises(InvalidRegions, match="size"):
        mmseg_metric.counted(sample, 3)


def test_without_mmseg_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mmengine", None)
    monkeypatch.setitem(sys.modules, "mmengine.evaluator", None)
    mmseg_metric.metric.cache_clear()
    with pytest.raises(MissingDependency, match="mmengine"):
        mmseg_metric.metric()


def test_beside_mmseg_itself() -> None:
    pytest.importorskip("mmseg")
    mmseg_metric.metric.cache_clear()
    from mmseg.registry import METRICS

    metric = METRICS.build({"type": mmseg_metric.metric().__name__, "rule": "mmseg"})
    metric.dataset_meta = {"classes": NAMES}
    metric.process(None, samples())
    assert metric.evaluate(3)["ovp/mIoU"] == pytest.approx(expected("mmseg")["mIoU"])
