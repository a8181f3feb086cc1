"""A model that knows the truth gets everything, one that lies nothing; what it cannot answer is null."""

from __future__ import annotations

import numpy as np
import pytest

from eval.scenes import MEASURES, SceneEvaluation, evaluate_scenes
from eval.scenes.crops import drawn_crops, scene_crops
from ovperception.datasets.scenes import SceneSample, load_categories, scene
from ovperception.errors import InvalidParameter, Unsupported

SIZE, IMAGES = 96, 8
THINGS = [c for c in load_categories() if c.is_thing]
SETTINGS = SceneEvaluation(images=IMAGES, size=SIZE, crops_per_class=1)


@pytest.fixture(scope="module")
def samples() -> list[SceneSample]:
    return [scene("val", i, (SIZE, SIZE)) for i in range(IMAGES)]


@pytest.fixture(scope="module")
def crops(samples: list[SceneSample]) -> list[int]:
    return [c.id for c in THINGS] + [s.category_id for sample in samples for s in sample.things]


def qualities(metrics: dict) -> dict:
    return {k: v for k, v in metrics.items() if not k.startswith("timing/")}


def test_the_truth_gets_everything(fake_model: type, samples: list, crops: list) -> None:
    model = fake_model(samples, crops)
    seen: list[int] = []
    metrics = evaluate_scenes(model, SETTINGS, on_image=lambda: seen.append(1))
    assert len(seen) == model.encoded == IMAGES
    by_size = {k: v for k, v in metrics.items() if k.endswith(("APs", "APm", "APl"))}
    for name, value in qualities(metrics).items():
        if name not in by_size or value is not None:
            assert value == pytest.approx(1), name
    assert by_size["box/APl"] is None  # nothing so large fits
    assert all(value is None or (type(value) is float and np.isfinite(value)) for value in metrics.values())
    assert all(metrics[f"timing/{k}_ms"] >= 0 for k in ("text", "encode", "detect", "semantic", "panoptic"))
    assert {name.partition("/")[0] for name in metrics} == {
        *("crop", "region", "box", "segm", "semantic", "panoptic", "timing")
    }


def test_lies_get_nothing(fake_model: type, samples: list, crops: list) -> None:
    metrics = qualities(evaluate_scenes(fake_model(samples, crops, lies=True), SETTINGS))
    assert all(value in (0, None) for value in metrics.values()), metrics
    assert metrics["box/AP50"] == metrics["panoptic/PQ"] == metrics["semantic/mIoU"] == 0


@pytest.mark.parametrize("part", ["base", "novel"])
def test_other_words_are_not_judged(fake_model: type, samples: list, part: str) -> None:
    wanted = ("box", "semantic", "panoptic")
    settings = SceneEvaluation(images=IMAGES, size=SIZE, words=part, only=wanted)
    metrics = evaluate_scenes(fake_model(samples), settings)
    other = "novel" if part == "base" else "base"
    for name in ("box/AP50", "segm/AP50", "semantic/mIoU", "panoptic/PQ"):
        assert metrics[name] == metrics[f"{name}_{part}"] == pytest.approx(1)
        assert metrics[f"{name}_{other}"] is None
    assert not [name for name in metrics if name.startswith("crop/")]


def test_a_head_without_masks_has_no_mask_ap(fake_model: type, samples: list) -> None:
    settings = SceneEvaluation(images=IMAGES, size=SIZE, only=("box",))
    metrics = evaluate_scenes(fake_model(samples, masks=False), settings)
    assert metrics["box/AP50"] == pytest.approx(1)
    assert {v for k, v in metrics.items() if k.startswith("segm/")} == {None}
    assert metrics["timing/semantic_ms"] is None


def test_what_a_model_cannot_answer_is_null(fake_model: type, samples: list, crops: list) -> None:
    metrics = evaluate_scenes(fake_model(samples, crops, tasks=["semantic"]), SETTINGS)
    assert metrics["semantic/mIoU"] == pytest.approx(1)
    assert metrics["box/AP50"] is metrics["segm/AP50"] is metrics["panoptic/PQ"] is None
    assert metrics["panoptic/PQ_novel"] is metrics["timing/panoptic_ms"] is None


def test_asked_by_name_it_is_an_error(fake_model: type) -> None:
    with pytest.raises(Unsupported, match=r"cannot answer 'panoptic'.*semantic or region or crop"):
        evaluate_scenes(fake_model([], tasks=["semantic"]), SceneEvaluation(only=("panoptic",)))


def test_true_boxes_are_named_by_any_model(fake_model: type, samples: list) -> None:
    settings = SceneEvaluation(images=IMAGES, size=SIZE, only=("region",))
    able, unable = fake_model(samples), fake_model(samples, names_boxes=False)
    named, nearest = evaluate_scenes(able, settings), evaluate_scenes(unable, settings)
    assert able.encoded == unable.encoded == IMAGES
    regions = {f"region/{name}{part}" for name in ("top1", "AP50") for part in ("", "_base", "_novel")}
    assert qualities(named).keys() == qualities(nearest).keys() == regions
    for name in regions:
        assert named[name] == pytest.approx(1)
        assert nearest[name] == (pytest.approx(1) if "top1" in name else None)


def test_true_boxes_of_other_classes_are_not_shown(fake_model: type, samples: list) -> None:
    settings = SceneEvaluation(images=IMAGES, size=SIZE, words="novel", only=("region",))
    metrics = evaluate_scenes(fake_model(samples), settings)
    assert metrics["region/top1"] == metrics["region/AP50_novel"] == pytest.approx(1)
    assert metrics["region/top1_base"] is metrics["region/AP50_base"] is None


def test_crops_alone_need_no_look(fake_model: type, samples: list, crops: list) -> None:
    model = fake_model(samples, crops, tasks=[])
    settings = SceneEvaluation(images=IMAGES, size=SIZE, crops_per_class=1, only=("crop",))
    metrics = evaluate_scenes(model, settings)
    assert metrics["crop/top1"] == metrics["crop/top1_scene_novel"] == 1
    assert model.encoded == 0


def test_some_crops_wrong(fake_model: type, samples: list, crops: list) -> None:
    wrong = crops.copy()
    novel = next(i for i, c in enumerate(THINGS) if c.is_novel)
    wrong[novel] = THINGS[novel - 1].id
    settings = SceneEvaluation(images=IMAGES, size=SIZE, crops_per_class=1, only=("crop",))
    metrics = evaluate_scenes(fake_model(samples, wrong, tasks=[]), settings)
    count = sum(c.is_novel for c in THINGS)
    assert metrics["crop/top1"] == pytest.approx(1 - 1 / len(THINGS))
    assert metrics["crop/top1_novel"] == pytest.approx(1 - 1 / count)
    assert metrics["crop/top1_base"] == metrics["crop/top1_scene"] == 1


def test_crops_are_the_same_every_time() -> None:
    few = load_categories()[:2] + load_categories()[-1:]
    first, again = (list(drawn_crops(few, 2, 32)) for _ in range(2))
    assert [i for _, i in first] == [1, 1, 2, 2]
    assert all((a == b).all() for (a, _), (b, _) in zip(first, again, strict=True))
    assert not (first[0][0] == first[1][0]).all()


def test_scene_crops_keep_context_inside_the_picture(samples: list[SceneSample]) -> None:
    for sample in samples:
        cut = list(scene_crops(sample, THINGS))
        assert [i for _, i in cut] == [s.category_id for s in sample.things]
        for (crop, _), segment in zip(cut, sample.things, strict=True):
            x0, y0, x1, y1 = segment.box
            assert y1 - y0 <= crop.shape[0] <= min(1.2 * (y1 - y0) + 1, SIZE)
            assert x1 - x0 <= crop.shape[1] <= min(1.2 * (x1 - x0) + 1, SIZE)


def test_workers_draw_the_same_scenes(fake_model: type, samples: list) -> None:
    settings = SceneEvaluation(images=3, size=SIZE, only=("semantic",), workers=2)
    model = fake_model(samples)
    assert evaluate_scenes(model, settings)["semantic/pACC"] == 1
    assert model.encoded == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "dev"}, "one of train, val, test"),
        ({"words": "some"}, "one of all, base, novel"),
        ({"images": 0}, "images is too small"),
        ({"size": 8}, "size is too small"),
        ({"workers": 0}, "workers is too small"),
        ({"crops_per_class": 0}, "crops_per_class is too small"),
        ({"first": -1}, "no such scene"),
        ({"only": ("boxes",)}, f"some of {', '.join(MEASURES)}.*boxes"),
        ({"only": ()}, "no such measure"),
    ],
)
def test_impossible_settings(settings: dict, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        SceneEvaluation(**settings)
