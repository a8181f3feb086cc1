"""What the open-vocabulary recipes learn from: base classes and nothing else, rare ones more often."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ovperception.datasets.vocabularies import load_vocabulary_file
from ovperception.errors import InvalidParameter
from ovperception.training.data_settings import DataSettings, open_training_images
from ovperception.training.epochs import EpochOrder
from ovperception.training.paper_recipes import lseg_pascal5i, regionclip_coco, regionclip_lvis
from ovperception.training.repeat_factors import RepeatedOrder, repeat_factors
from ovperception.training.wrong_data import Trouble
from tests.ovperception.datasets.layouts import (
    annotation,
    categories,
    columns,
    image,
    label_map,
    lines,
    picture,
    write_json,
)

BASE, NOVEL = 1, 5  # person and aeroplane


def opened(settings: DataSettings, root: Path) -> list[tuple[list[str], tuple[Trouble, ...]]]:
    """The class names of every picture."""
    images = open_training_images(dataclasses.replace(settings, root=root))
    names = images.classes.names
    read = (images.read(index) for index in range(len(images)))
    return [([names[i] for i in sample.class_ids], troubles) for sample, troubles in read]


def coco(root: Path) -> Path:
    """One picture with an object of either kind, one with a novel one alone, one with a base one alone."""
    for number in (1, 2, 3):
        picture(root / "train2017" / f"{number:012d}.jpg")
    data = {
        "images": [image(n, f"{n:012d}.jpg") for n in (1, 2, 3)],
        "annotations": [
            annotation(number, of, category)
            for number, (of, category) in enumerate([(1, BASE), (1, NOVEL), (2, NOVEL), (3, BASE)], start=1)
        ],
        "categories": categories("coco_80"),
    }
    write_json(root / "annotations" / "instances_train2017.json", data)
    return root


def test_ov_coco_teaches_the_48_base_classes_alone(tmp_path: Path) -> None:
    settings = regionclip_coco().data
    found = opened(settings, coco(tmp_path))
    assert [names for names, _ in found] == [["person"], [], ["person"]]
    images = open_training_images(dataclasses.replace(settings, root=tmp_path))
    entries = load_vocabulary_file("ov_coco_48_17").classes
    assert len(images.classes) == 48
    assert set(images.classes.names) == {e.name for e in entries if e.split == "base"}
    # Words of a novel class are not among the synonyms of a base one either.
    novel = {word for e in entries if e.split == "novel" for word in (e.name, *e.synonyms)}
    assert not novel & {word for c in images.classes.classes for word in c.synonyms}
    everything = opened(dataclasses.replace(settings, part=""), tmp_path)
    assert [len(names) for names, _ in everything] == [2, 1, 1]


def test_ov_lvis_teaches_frequent_and_common_classes(tmp_path: Path) -> None:
    entries = load_vocabulary_file("lvis_v1_1203").classes
    rare = next(e for e in entries if e.frequency == "r")
    common = next(e for e in entries if e.frequency == "c")
    picture(tmp_path / "train2017" / "1.jpg")
    data = {
        "images": [image(1, "1.jpg") | {"coco_url": "http://images.cocodataset.org/train2017/1.jpg"}],
        "annotations": [annotation(1, 1, rare.id), annotation(2, 1, common.id)],
        "categories": [
            {"id": e.id, "name": e.name, "synonyms": [e.name], "frequency": e.frequency} for e in entries
        ],
    }
    write_json(tmp_path / "annotations" / "lvis_v1_train.json", data)
    recipe = regionclip_lvis()
    assert [names for names, _ in opened(recipe.data, tmp_path)] == [[common.name]]
    images = open_training_images(dataclasses.replace(recipe.data, root=tmp_path))
    assert len(images.classes) == 866
    assert recipe.repeat_threshold == 0.001
    assert images.classes_in(0) == (images.classes.names.index(common.name),)


def test_base_classes_must_be_known() -> None:
    with pytest.raises(InvalidParameter, match="base classes") as caught:
        open_training_images(DataSettings(name="scenes", part="base"))
    assert caught.value.field == "data.part"


def test_a_fold_is_trained_on_the_classes_of_the_others(tmp_path: Path) -> None:
    home = tmp_path / "VOC2012"
    for name in ("a", "b"):
        picture(home / "JPEGImages" / f"{name}.jpg")
    # Background, an aeroplane (fold 0), a bus (fold 1), a border.
    label_map(home / "SegmentationClassAug" / "a.png", columns(0, 1, 6, 255))
    label_map(home / "SegmentationClassAug" / "b.png", columns(1, 0))
    lines(home / "ImageSets" / "Segmentation" / "trainaug.txt", "a", "b")
    settings = lseg_pascal5i().data
    assert settings.name == "pascal_5i_0"
    assert [names for names, _ in opened(settings, tmp_path)] == [["bus"], []]
    of_fold_1 = dataclasses.replace(settings, name="pascal_5i_1")
    assert [names for names, _ in opened(of_fold_1, tmp_path)] == [["aeroplane"], ["aeroplane"]]


def test_factors_by_hand() -> None:
    """Of 100 pictures class 0 is in all, class 1 in one: t / f is 0.04 / 0.01, its root 2."""
    classes = [[0, 1, 1], *([0] for _ in range(98)), []]
    factors = repeat_factors(classes, 0.04)
    assert factors == (2.0, *(1.0 for _ in range(99)))
    with pytest.raises(InvalidParameter, match="share"):
        repeat_factors(classes, 0)


def test_an_epoch_sees_each_picture_as_often_as_its_factor_says() -> None:
    factors = (1.0, 2.5, 1.0, 1.25, 3.0, 1.25)
    order = RepeatedOrder(factors=factors, seed=3, batch_size=5)
    assert order.length == 10
    seen, epochs = Counter[int](), 200
    views = set()
    for epoch in range(epochs):
        picks = [pick for number in (2 * epoch, 2 * epoch + 1) for pick in order.picks(number)]
        counts = Counter(pick.index for pick in picks)
        assert all(abs(counts[i] - factor) < 1 for i, factor in enumerate(factors))
        seen += counts
        views |= set(picks)
    assert len(views) == 10 * epochs  # never the same view twice
    means = np.array([seen[i] / epochs for i in range(len(factors))])
    assert means == pytest.approx(factors, abs=0.15)
    # Told by its number alone.
    assert RepeatedOrder(factors=factors, seed=3, batch_size=5).picks(77) == order.picks(77)


def test_without_rare_classes_it_is_every_picture_once() -> None:
    order = RepeatedOrder(factors=(1.0,) * 7, seed=0, batch_size=7)
    plain = EpochOrder(count=7, seed=0, batch_size=7)
    assert sorted(p.index for p in order.picks(4)) == sorted(p.index for p in plain.picks(4))
