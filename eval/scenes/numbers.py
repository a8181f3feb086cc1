"""The names under which the measures of scenes are told: ``box/AP50_novel``, ``panoptic/PQ_stuff``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eval.metrics import PanopticQuality, PrecisionRecall, SemanticScores, miou
from eval.scenes.settings import Metrics
from ovperception.datasets.scenes import SceneCategory

__all__ = ["detection_numbers", "panoptic_numbers", "semantic_numbers"]

Groups = dict[str, list[int]]


def detection_numbers(
    kind: str, found: PrecisionRecall | None, categories: Sequence[SceneCategory]
) -> Metrics:
    """``box/...`` or ``segm/...``, 0-1; None where nothing can be said."""
    base = [c.id for c in categories if c.is_thing and not c.is_novel]
    novel = [c.id for c in categories if c.is_novel]
    rows: dict[str, Callable[[PrecisionRecall], float | None]] = {
        "AP50": lambda f: f.ap(iou=0.5),
        "AP": lambda f: f.ap(),
        "AP75": lambda f: f.ap(iou=0.75),
        "AP50_base": lambda f: f.ap(base, iou=0.5),
        "AP50_novel": lambda f: f.ap(novel, iou=0.5),
        "AP_base": lambda f: f.ap(base),
        "AP_novel": lambda f: f.ap(novel),
        "APs": lambda f: f.ap(area="small"),
        "APm": lambda f: f.ap(area="medium"),
        "APl": lambda f: f.ap(area="large"),
        "AR100": lambda f: f.ar(),
    }
    return {f"{kind}/{name}": None if found is None else row(found) for name, row in rows.items()}


def semantic_numbers(found: SemanticScores | None, categories: Sequence[SceneCategory]) -> Metrics:
    """``semantic/...``, 0-1; None where nothing can be said. "Base" is base things and stuff."""
    rows: Metrics = {}
    for name, classes in _groups(categories, list(range(len(categories)))).items():
        rows[f"mIoU{name}"] = None if found is None else miou(found.confusion, classes)
    rows |= {name: None if found is None else found.metrics[name] for name in ("fwIoU", "mACC", "pACC")}
    return {f"semantic/{name}": value for name, value in rows.items()}


def panoptic_numbers(found: PanopticQuality | None, categories: Sequence[SceneCategory]) -> Metrics:
    """``panoptic/...``, 0-1; None where nothing can be said. "Base" is base things and stuff."""
    rows: Metrics = {}
    groups = _groups(categories, [c.id for c in categories])
    for name in ("", "_things", "_stuff", "_base", "_novel"):
        ids = groups[name]
        quality = None if found is None else found.of(ids)
        rows[f"panoptic/PQ{name}"] = None if quality is None else quality.pq
        rows[f"panoptic/SQ{name}"] = None if quality is None else quality.sq
        rows[f"panoptic/RQ{name}"] = None if quality is None else quality.rq
    return rows


def _groups(categories: Sequence[SceneCategory], numbers: Sequence[int]) -> Groups:
    tests: dict[str, Callable[[SceneCategory], bool]] = {
        "": lambda c: True,
        "_base": lambda c: not c.is_novel,
        "_novel": lambda c: c.is_novel,
        "_things": lambda c: c.is_thing,
        "_stuff": lambda c: not c.is_thing,
    }
    return {
        name: [n for n, c in zip(numbers, categories, strict=True) if test(c)] for name, test in tests.items()
    }
