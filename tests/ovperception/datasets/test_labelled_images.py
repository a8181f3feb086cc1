"""Label maps of every kind on disk, turned into classes; unknown numbers are never a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ovperception.datasets.label_files import read_labels
from ovperception.datasets.labelled_images import LabelTable, folder_pairs, label_folder
from ovperception.datasets.samples import IGNORE, Dataset, missing_pictures, samples
from ovperception.errors import InvalidDataset, MissingFile
from ovperception.images import save_image
from ovperception.vocabulary import Vocabulary

RAW = np.array([[0, 1, 2], [255, 2, 1]], np.uint8)


def picture(path: Path, size: tuple[int, int] = (2, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(path, np.full((*size, 3), 50, np.uint8))


def labels(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.asarray(values))


def palette(path: Path, values: Any) -> None:
    image = pytest.importorskip("PIL.Image").fromarray(np.asarray(values, np.uint8))
    image.putpalette([(37 * i) % 256 for i in range(768)])
    image.save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    picture(tmp_path / "images" / "b.jpg")
    picture(tmp_path / "images" / "sub" / "a.png")
    labels(tmp_path / "labels" / "b.png", RAW)
    labels(tmp_path / "labels" / "sub" / "a.tif", RAW.astype(np.uint16))
    return tmp_path


def test_any_folder(root: Path) -> None:
    (root / "classes.txt").write_text("grass\nsky|clouds\nroad\n")
    dataset = label_folder(root / "images", root / "labels", root / "classes.txt")
    assert isinstance(dataset, Dataset)
    assert [dataset.sample(i).image_id for i in range(len(dataset))] == ["b", "sub/a"]
    assert dataset.vocabulary.texts == ("grass", "sky", "clouds", "road")
    for index in range(2):
        found = dataset.sample(index).labels()
        assert found.dtype == np.int32
        assert found.tolist() == [[0, 1, 2], [IGNORE, 2, 1]]


def test_numbers_may_begin_at_one(root: Path) -> None:
    words = Vocabulary.from_words(["sky", "road"])
    dataset = label_folder(root / "images", root / "labels", words, ignore=(0, 255), first=1)
    assert dataset.sample(0).labels().tolist() == [[IGNORE, 0, 1], [IGNORE, 1, 0]]
    assert dataset.category_ids == (1, 2)


def test_a_number_without_a_class(root: Path) -> None:
    dataset = label_folder(root / "images", root / "labels", Vocabulary.from_words(["sky", "road"]))
    with pytest.raises(InvalidDataset, match=r"b\.png has labels that stand for no class.*Got 2"):
        dataset.sample(0).labels()


@pytest.mark.parametrize("value", [-1, 70000])
def test_numbers_beyond_any_table(value: int) -> None:
    with pytest.raises(InvalidDataset, match=f"Got {value}"):
        LabelTable.of((0, 1)).apply(np.array([[0, value]]), "here")


def test_missing_labels_and_folders(root: Path) -> None:
    (root / "labels" / "b.png").unlink()
    with pytest.raises(MissingFile, match=r"1 pictures .* have no labels.*labels/b\.png"):
        folder_pairs(root / "images", root / "labels")
    with pytest.raises(MissingFile, match="nowhere"):
        folder_pairs(root / "images", root / "nowhere")
    (root / "empty").mkdir()
    with pytest.raises(MissingFile, match="has no pictures"):
        folder_pairs(root / "empty", root / "labels")


def test_palette_gives_indices(tmp_path: Path) -> None:
    palette(tmp_path / "p.png", RAW)
    np.testing.assert_array_equal(read_labels(tmp_path / "p.png"), RAW)


def test_sixteen_bits(tmp_path: Path) -> None:
    wide = np.array([[0, 300], [65535, 846]], np.uint16)
    for name in ("w.png", "w.tif"):
        labels(tmp_path / name, wide)
        np.testing.assert_array_equal(read_labels(tmp_path / name), wide)


def test_matlab(tmp_path: Path) -> None:
    matlab = pytest.importorskip("scipy.io")
    matlab.savemat(tmp_path / "m.mat", {"LabelMap": np.array([[1, 459]], np.uint16)})
    assert read_labels(tmp_path / "m.mat").tolist() == [[1, 459]]
    matlab.savemat(tmp_path / "n.mat", {"Other": 1})
    with pytest.raises(InvalidDataset, match="LabelMap"):
        read_labels(tmp_path / "n.mat")
    (tmp_path / "o.mat").write_bytes(b"no matlab" * 40)
    with pytest.raises(InvalidDataset, match="LabelMap"):
        read_labels(tmp_path / "o.mat")


def test_grey_stored_as_rgb_is_read_and_colours_are_not(tmp_path: Path) -> None:
    labels(tmp_path / "g.png", np.repeat(RAW[..., None], 3, axis=2))
    np.testing.assert_array_equal(read_labels(tmp_path / "g.png"), RAW)
    labels(tmp_path / "c.png", np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    with pytest.raises(InvalidDataset, match="no label map"):
        read_labels(tmp_path / "c.png")


def test_broken_files(tmp_path: Path) -> None:
    palette(tmp_path / "p.png", np.random.default_rng(0).integers(0, 255, (64, 64)))
    data = (tmp_path / "p.png").read_bytes()
    (tmp_path / "p.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidDataset, match="broken"):
        read_labels(tmp_path / "p.png")
    (tmp_path / "q.png").write_bytes(b"nothing")
    with pytest.raises(InvalidDataset, match="broken"):
        read_labels(tmp_path / "q.png")


def test_the_official_mmsegmentation_sample(shared_dir: Path) -> None:
    """Five pictures of seven classes, whose labels end in another way than the pictures."""
    name = "eval/data/SwinTransformer__Swin-Transformer-Semantic-Segmentation/tests/data/pseudo_dataset"
    folder = shared_dir / name
    if not folder.is_dir():
        pytest.skip(f"no sample at {folder}")
    words = Vocabulary.from_words(["a", "b", "c", "d", "e", "f", "g"])
    dataset = label_folder(
        folder / "imgs", folder / "gts", words, image_suffix="_img.jpg", label_suffix="_gt.png"
    )
    assert [sample.image_id for sample in samples(dataset)] == [f"0000{i}" for i in range(5)]
    for sample in samples(dataset):
        assert sample.labels().shape == sample.image().shape[:2]
    assert missing_pictures(dataset) == ()


def test_missing_pictures_are_listed(root: Path) -> None:
    dataset = label_folder(root / "images", root / "labels", Vocabulary.from_words(["a", "b", "c"]))
    assert missing_pictures(dataset) == ()
    (root / "images" / "sub" / "a.png").unlink()
    assert missing_pictures(dataset) == (root / "images" / "sub" / "a.png",)
