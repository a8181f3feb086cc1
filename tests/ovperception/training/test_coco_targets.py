"""Data sets as a trainer sees them: truth in the training vocabulary, wrong data told and survived."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ovperception.datasets.coco import coco_dataset
from ovperception.datasets.samples import (
    IGNORE,
    Dataset,
    LabelMap,
    PanopticTruth,
    Sample,
    Truth,
    TruthSegment,
)
from ovperception.errors import InvalidDataset, InvalidParameter, Unsupported
from ovperception.images import save_image
from ovperception.preprocess import Preprocessing
from ovperception.rle import RLE
from ovperception.training.augmentations import Augmentation
from ovperception.training.coco_targets import TrainingImages
from ovperception.training.epochs import EpochOrder, Pick
from ovperception.training.labelled_batches import LabelledBatches, LabelledViews
from ovperception.training.wrong_data import Trouble, WrongData, WrongDataPolicy
from ovperception.vocabulary import Vocabulary

PLAIN = Preprocessing(mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 4.0), multiple=8)
STILL = Augmentation(flip=0.0)
SIZE = (24, 32)


def square(x: int, y: int, side: int) -> dict[str, Any]:
    """A mask and its box, as an annotation has them."""
    mask = np.zeros(SIZE, np.uint8)
    mask[y : y + side, x : x + side] = 1
    return {"bbox": [x, y, side, side], "segmentation": RLE.encode(mask).to_coco(), "area": side * side}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures: 1 and 2 are good; 3 is missing, 4 corrupt, 5 of another size, 6 without objects."""
    rng = np.random.default_rng(0)
    for number in (1, 2, 4, 6):
        save_image(tmp_path / f"{number}.png", rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8))
    save_image(tmp_path / "5.png", np.zeros((8, 8, 3), np.uint8))
    broken = tmp_path / "4.png"
    broken.write_bytes(broken.read_bytes()[:60])
    annotations = [
        {"image_id": 1, "category_id": 7} | square(2, 3, 8),
        {"image_id": 1, "category_id": 9} | square(20, 10, 6),
        {"image_id": 2, "category_id": 7} | square(4, 4, 4),
        {"image_id": 2, "category_id": 7, "iscrowd": 1} | square(12, 2, 9),
        {"image_id": 3, "category_id": 7} | square(1, 1, 4),
        {"image_id": 4, "category_id": 7} | square(1, 1, 4),
        {"image_id": 5, "category_id": 7} | square(1, 1, 4),
    ]
    data = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "height": SIZE[0], "width": SIZE[1]} for n in range(1, 7)
        ],
        "categories": [{"id": 7, "name": "taxi"}, {"id": 9, "name": "cat"}],
        "annotations": [{"id": k + 1} | row for k, row in enumerate(annotations)],
    }
    (tmp_path / "instances.json").write_text(json.dumps(data), encoding="utf-8")
    return tmp_path


def edited(folder: Path, **of_first: Any) -> Dataset:
    """The data set after a change of its first annotation."""
    path = folder / "instances.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["annotations"][0] |= of_first
    path.write_text(json.dumps(data), encoding="utf-8")
    return coco_dataset(path, folder, on_problem="skip")


def opened(folder: Path) -> Dataset:
    return coco_dataset(folder / "instances.json", folder)


def views(source: TrainingImages, augmentation: Augmentation = STILL) -> LabelledViews:
    return LabelledViews(source=source, augmentation=augmentation, preprocessing=PLAIN, seed=4)


class Maps:
    """A data set in memory of one picture with a class per pixel and segments."""

    name = "maps"
    vocabulary = Vocabulary.from_words(["taxi", "cat", "grass"], stuff=["grass"])
    category_ids = (0, 1, 2)
    truths: frozenset[Truth] = frozenset(("labels", "panoptic"))
    annotations = None

    def __init__(self, labels: LabelMap, truth: PanopticTruth) -> None:
        self._labels, self._truth = labels, truth

    def __len__(self) -> int:
        return 1

    def sample(self, index: int) -> Sample:
        return Sample(
            image_id=0,
            file_name="memory.png",
            read_image=lambda: np.full((4, 6, 3), 50, np.uint8),
            read_labels=lambda: self._labels,
            read_panoptic=lambda: self._truth,
        )


def maps(rows: int = 4) -> Maps:
    labels = np.full((rows, 6), 2, np.int32)
    labels[:2, :2] = 0
    labels[3, 5] = IGNORE
    ids = np.full((rows, 6), 31, np.int32)
    ids[:2, :2] = 12
    ids[:2, 3:5] = 13
    ids[3, 5] = 0
    segments = (
        TruthSegment(id=12, class_id=0, is_crowd=False, area=4),
        TruthSegment(id=13, class_id=1, is_crowd=True, area=4),
        TruthSegment(id=31, class_id=2, is_crowd=False, area=15),
    )
    return Maps(labels, PanopticTruth(ids=ids, segments=segments))


def test_objects_become_targets_in_the_frame_of_the_network(folder: Path) -> None:
    view, troubles = views(TrainingImages(opened(folder))).view(Pick(index=0, epoch=0))
    assert troubles == ()
    assert view.image.shape == (3, 24, 32)
    assert view.target.class_ids.tolist() == [0, 1]
    assert view.target.boxes.tolist() == [[2, 3, 10, 11], [20, 10, 26, 16]]
    assert view.target.masks.dtype == torch.bool
    assert view.target.masks.sum((1, 2)).tolist() == [64, 36]
    assert view.target.masks[0, 3:11, 2:10].all()
    assert view.target.boxes.dtype == torch.float32
    assert view.target.class_ids.dtype == torch.int64


def test_crowds_are_no_targets(folder: Path) -> None:
    view, _ = views(TrainingImages(opened(folder))).view(Pick(index=1, epoch=0))
    assert view.target.boxes.tolist() == [[4, 4, 8, 8]]


def test_only_classes_of_the_vocabulary_are_learned(folder: Path) -> None:
    novel = TrainingImages(opened(folder), vocabulary=Vocabulary.from_words(["dog", "cat"]))
    view, _ = views(novel).view(Pick(index=0, epoch=0))
    assert view.target.class_ids.tolist() == [1]
    assert view.target.boxes.tolist() == [[20, 10, 26, 16]]
    with pytest.raises(InvalidDataset, match="No class"):
        TrainingImages(opened(folder), vocabulary=Vocabulary.from_words(["dog"]))
    with pytest.raises(Unsupported, match="no panoptic"):
        TrainingImages(opened(folder), truth="panoptic")


def test_boxes_alone(folder: Path) -> None:
    data = json.loads((folder / "instances.json").read_text(encoding="utf-8"))
    for row in data["annotations"]:
        del row["segmentation"]
    (folder / "instances.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InvalidDataset, match="no masks"):
        TrainingImages(opened(folder)).read(0)
    view, _ = views(TrainingImages(opened(folder), shapes="boxes")).view(Pick(index=0, epoch=0))
    assert view.target.boxes.tolist() == [[2, 3, 10, 11], [20, 10, 26, 16]]
    assert view.target.masks.sum((1, 2)).tolist() == [64, 36]


@pytest.mark.parametrize("truth", ["labels", "panoptic"])
def test_stuff_and_things_of_maps(truth: Truth) -> None:
    sample, _ = TrainingImages(maps(), truth=truth).read(0)
    assert sample.class_ids.tolist() == [0, 2]
    stack = sample.mask_stack()
    assert stack is not None
    assert stack[0].sum() == 4
    # The crowd and void are nobody's; of the labels only void is.
    assert stack[1].sum() == (15 if truth == "panoptic" else 19)
    assert sample.boxes.tolist() == [[0, 0, 2, 2], [0, 0, 6, 4]]


@pytest.mark.parametrize("truth", ["labels", "panoptic"])
def test_a_map_of_another_size_is_told(truth: Truth) -> None:
    with pytest.raises(InvalidDataset, match=r"memory\.png is of another size"):
        TrainingImages(maps(rows=5), truth=truth).read(0)


@pytest.mark.parametrize(
    ("change", "kind", "lost"),
    [
        ({"bbox": [40, 3, 8, 8]}, "a box without pixels in its picture", True),
        ({"bbox": [2, 3, 0, 8]}, "a box without pixels in its picture", True),
        ({"bbox": [-6, 3, 16, 8]}, "a box that reaches beyond its picture", False),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, "a mask that cannot be read", True),
        ({"segmentation": {"size": [24, 32], "counts": [768]}}, "an empty mask", True),
        ({"segmentation": [[1, 1]]}, "a mask that cannot be read", True),
    ],
)
def test_a_wrong_object_is_left_out_and_told(
    folder: Path, change: dict[str, Any], kind: str, lost: bool
) -> None:
    view, troubles = views(TrainingImages(edited(folder, **change))).view(Pick(index=0, epoch=0))
    assert len(view.target.class_ids) == (1 if lost else 2)
    assert [t.kind for t in troubles] == [kind]
    assert troubles[0].where.endswith("1.png, annotation 1")
    assert troubles[0].harmless != lost


def test_a_picture_that_cannot_be_used_is_replaced_by_the_next(folder: Path) -> None:
    batches = LabelledBatches(
        views=views(TrainingImages(opened(folder))), order=EpochOrder(count=6, seed=0, batch_size=6)
    )
    batch = batches[0]
    assert {pick.index for pick in batch.picks} == {0, 1}
    assert len(batch.targets) == 6
    told = {(t.kind, Path(t.where).name) for t in batch.troubles}
    assert told == {
        ("a missing file", "3.png"),
        ("a picture that cannot be decoded", "4.png"),
        ("a picture that does not fit its annotations", "5.png"),
        ("a picture with nothing to learn", "6.png"),
    }
    assert sorted(Path(n).name for n in batches.names(0)) == [f"{n}.png" for n in range(1, 7)]


def test_nothing_usable_at_all_is_an_error(folder: Path) -> None:
    for number in (1, 2):
        (folder / f"{number}.png").unlink()
    with pytest.raises(InvalidDataset, match="6 pictures in a row"):
        views(TrainingImages(opened(folder))).first_usable(Pick(index=0, epoch=0))


def test_wrong_data_is_counted_once_and_ends_a_run_past_its_limit() -> None:
    def lost(number: int) -> Trouble:
        return Trouble(kind="a missing file", where=f"/data/{number}.jpg")

    wrong = WrongData(WrongDataPolicy(limit=2))
    for _ in range(3):  # epochs
        wrong.note([lost(1), lost(2), Trouble(kind="nothing", where="/data/3.jpg", harmless=True)])
    assert wrong.counts == {"a missing file": 2, "nothing": 1}
    with pytest.raises(InvalidDataset, match=r"/data/4\.jpg.*3 x a missing file: /data/1\.jpg"):
        wrong.note([lost(4)])
    with pytest.raises(InvalidDataset, match=r"^/data/1\.jpg"):
        WrongData(WrongDataPolicy(policy="stop")).note([lost(1)])
    WrongData(WrongDataPolicy(policy="stop")).note([Trouble(kind="n", where="3", harmless=True)])
    with pytest.raises(InvalidParameter, match="skip or stop"):
        WrongDataPolicy(policy="ignore")  # type: ignore[arg-type]


def test_an_epoch_sees_every_picture_once_however_it_is_cut() -> None:
    order = EpochOrder(count=10, seed=3, batch_size=4)
    seen = [p for number in range(5) for p in order.picks(number)]
    for epoch in range(2):
        assert sorted(p.index for p in seen if p.epoch == epoch) == list(range(10))
    finer = EpochOrder(count=10, seed=3, batch_size=2)
    assert [p for number in range(10) for p in finer.picks(number)] == seen
    assert [p.index for p in seen[:10]] != [p.index for p in seen[10:]]


def test_batches_are_the_same_whoever_prepares_them(folder: Path) -> None:
    augmentation = Augmentation.large_scale_jitter((20, 28), (0.5, 2.0), colour=True)

    def source() -> LabelledBatches:
        return LabelledBatches(
            views=views(TrainingImages(opened(folder)), augmentation),
            order=EpochOrder(count=6, seed=0, batch_size=2),
        )

    one, other = source(), source()
    for number in (5, 1):
        a, b = one[number], other[number]
        assert a.images.shape == (2, 3, 24, 32)  # the crop, padded to a multiple
        assert torch.equal(a.images, b.images)
        assert all(torch.equal(x.masks, y.masks) for x, y in zip(a.targets, b.targets, strict=True))
    assert not torch.equal(one[0].images, one[3].images)  # another epoch, another view


def test_few_views_come_again(folder: Path) -> None:
    source = TrainingImages(opened(folder))
    few = LabelledViews(
        source=source,
        augmentation=Augmentation.large_scale_jitter((24, 32), (0.5, 2.0)),
        preprocessing=PLAIN,
        views=2,
    )
    seen = [few.view(Pick(index=0, epoch=epoch))[0].image for epoch in range(4)]
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


def test_a_change_of_data_changes_the_digest(folder: Path) -> None:
    before = TrainingImages(opened(folder)).digest()
    assert TrainingImages(opened(folder)).digest() == before
    assert TrainingImages(opened(folder), vocabulary=Vocabulary.from_words(["cat"])).digest() != before
    save_image(folder / "1.png", np.zeros((*SIZE, 3), np.uint8))
    assert TrainingImages(opened(folder)).digest() != before
    assert TrainingImages(edited(folder, bbox=[1, 1, 2, 2])).digest() != before
