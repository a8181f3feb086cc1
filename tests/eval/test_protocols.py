"""The named protocols describe things that exist, and their report line says all that must be said."""

from __future__ import annotations

import pytest

from eval.protocols import (
    AP,
    PQ,
    Background,
    FewShot,
    MeanIoU,
    groups_of,
    protocol,
    protocol_names,
    protocols,
    published,
    report_line,
)
from ovperception.datasets.named import named_dataset
from ovperception.errors import InvalidParameter, NotFound
from ovperception.templates import template_names
from ovperception.vocabulary import Vocabulary

NO_LIST = ("the file's own categories", "the classes of the fold")
HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize("name", protocol_names())
def test_what_it_names_is_there(name: str) -> None:
    chosen = protocol(name)
    assert chosen.name == name
    data = named_dataset(chosen.data)
    assert chosen.split in data.splits
    if chosen.vocabulary not in NO_LIST:
        assert len(Vocabulary.builtin(chosen.vocabulary)) > 1
    assert chosen.asked is None or Vocabulary.builtin(chosen.asked)
    assert chosen.templates is None or chosen.templates in template_names()
    assert chosen.source
    assert all(len(indices) > 1 for indices in groups_of(chosen).values())
    assert chosen.score_floor == 0


@pytest.mark.parametrize("name", protocol_names())
def test_task_metric_and_headline_go_together(name: str) -> None:
    chosen = protocol(name)
    tasks = {AP: "detect", MeanIoU: "semantic", FewShot: "semantic", PQ: "panoptic"}
    assert chosen.task == tasks[type(chosen.metric)]
    headline, _, group = chosen.headline.partition("_")
    assert headline in {"AP", "AP50", "APr", "mIoU", "PQ"}
    assert not group or group in chosen.groups


def test_the_published_settings() -> None:
    ov_coco = protocol("ov_coco")
    assert ov_coco.metric == AP(kind="coco", iou="bbox", generalized=True)
    assert {p: len(i) for p, i in groups_of(ov_coco).items()} == {"base": 48, "novel": 17}
    assert {p: len(i) for p, i in groups_of(protocol("ov_lvis_mask")).items()} == {
        "r": 337,
        "c": 461,
        "f": 405,
    }
    standard, fixed = protocol("lvis_minival_box").metric, protocol("lvis_minival_box_fixed").metric
    assert (standard.max_detections, standard.fixed) == (300, False)
    assert (fixed.max_detections, fixed.fixed) == (None, True)
    thresholds = [
        protocol(f"training_free_{n}").background.threshold for n in ("voc21", "context60", "object")
    ]
    assert thresholds == [0.2, 0.15, 0.25]
    assert protocol("training_free_voc21").metric == MeanIoU(averaging="mmseg")
    assert protocol("ade20k_847").metric == MeanIoU(averaging="detectron2")
    assert protocol("cityscapes_panoptic").resolution.shortest_edge == 1024
    assert {p: len(i) for p, i in groups_of(protocol("scenes_panoptic")).items()} == {
        "things": 659,
        "stuff": 8,
        "base": 556,
        "novel": 111,
    }


def test_near_names_are_told() -> None:
    with pytest.raises(NotFound, match=r"lvis_minival_box_fixed.*ovp eval --protocols"):
        protocol("lvis_minival_fixed")
    with pytest.raises(NotFound, match="coco_box"):
        protocol("")


def test_rules_that_contradict_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="Fixed AP"):
        AP(kind="coco", iou="bbox", fixed=True, max_detections=None)
    with pytest.raises(InvalidParameter, match="threshold"):
        Background(rule="class", threshold=0.2)
    with pytest.raises(InvalidParameter, match="threshold"):
        Background(rule="threshold")


@pytest.mark.parametrize("name", protocol_names())
def test_the_report_line_says_all(name: str) -> None:
    chosen = protocol(name)
    line = report_line(chosen, images=4836, vocabulary_hash=HASH, engine="hotcoco 1.3.0")
    wanted = [
        f"{chosen.data} {chosen.split}, 4,836 images",
        f"background {chosen.background}",
        f"not judged: {chosen.ignore}",
        HASH[:12],
        f"templates {chosen.templates or 'the model'}",
        f"resolution {chosen.resolution or 'the model'}",
        "augmentation none",
        "hotcoco 1.3.0",
        "best synonym",
    ]
    if isinstance(chosen.metric, AP):
        wanted.append("box AP (" if chosen.metric.iou == "bbox" else "mask AP (")
        wanted.append({"coco": "COCO", "lvis": "LVIS", "cityscapes": "Cityscapes"}[chosen.metric.kind])
        wanted.append("fixed" if chosen.metric.fixed else "AP")
        wanted.append({None: "", True: "; generalized", False: "not generalized"}[chosen.metric.generalized])
    if isinstance(chosen.metric, MeanIoU):
        wanted.append(f"averaged as {chosen.metric.averaging}")
    assert [part for part in wanted if part not in line] == []
    assert "\n" not in line


def test_the_report_line_tells_what_was_done_in_fact() -> None:
    free = protocol("training_free_voc21")
    line = report_line(free, images=1449, vocabulary_hash=HASH, engine="x")
    assert "shortest edge 336, window 336, stride 112" in line
    assert "background threshold 0.2" in line
    line = report_line(
        free,
        images=3,
        vocabulary_hash=HASH,
        engine="x",
        split="train",
        templates="vild_14",
        resolution="as it is",
        augmentation="flip",
    )
    for part in (
        "pascal_voc_21 train, 3 images",
        "templates vild_14",
        "resolution as it is;",
        "augmentation flip",
    ):
        assert part in line
    assert "(novel alone)" in report_line(
        protocol("ov_coco_novel_only"), images=1, vocabulary_hash=HASH, engine="x"
    )


def test_published_numbers_belong_to_a_protocol() -> None:
    every = published(checked=False)
    assert {row.protocol for row in every} <= set(protocol_names())
    keys = [(r.protocol, r.method, r.backbone, r.metric, r.source) for r in every]
    assert len(set(keys)) == len(keys)
    for row in every:
        assert 0 < row.value < 100
        assert row.source
        kinds = {AP: ("AP",), MeanIoU: ("mIoU", "fwIoU", "pACC"), FewShot: ("mIoU",)}
        assert row.metric.startswith(kinds.get(type(protocol(row.protocol).metric), ("PQ", "SQ", "RQ")))


def test_published_numbers_are_those_of_the_papers() -> None:
    best = published("ade20k_150_panoptic", metric="PQ")
    assert (best[0].method, best[0].value) == ("FC-CLIP + RetCLIP", 30.9)
    own = {r.backbone: r.value for r in published("ov_coco", metric="AP50_novel") if r.method == "RegionCLIP"}
    assert own == {"R50-C4": 31.4}  # the one of R50x4 is from memory
    remembered = [r for r in published("ov_coco", checked=False) if not r.checked]
    assert 39.3 in {r.value for r in remembered}
    log = {r.metric: r.value for r in published("ade20k_150_panoptic") if "log" in r.source}
    assert log == {"PQ_things": 25.1393, "PQ_stuff": 30.0858, "SQ": 71.5713, "RQ": 32.3416}
    values = [r.value for r in published("ade20k_150", metric="mIoU")]
    assert values == sorted(values, reverse=True)


def test_they_are_listed_in_order() -> None:
    assert tuple(p.name for p in protocols()) == protocol_names()
    assert len(protocols()) > 60
