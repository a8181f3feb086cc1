"""Scenes drawn and scenes exported are one data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ovperception.datasets.samples import Dataset, samples
from ovperception.datasets.scene_sets import DrawnScenes, scenes_folder
from ovperception.datasets.scenes.export import ExportSettings, export_scenes
from ovperception.errors import InvalidParameter, MissingFile


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "val"
    export_scenes(out, ExportSettings(images=2, first=5, size=(96, 96), image_format="png"))
    return out


@pytest.fixture(scope="module")
def drawn() -> DrawnScenes:
    return DrawnScenes("val", 2, first=5, size=96)


def test_pictures_and_ids(folder: Path, drawn: DrawnScenes) -> None:
    assert isinstance(drawn, Dataset)
    read = scenes_folder(folder, "instances")
    assert len(read) == len(drawn) == 2
    for ours, theirs in zip(samples(drawn), samples(read), strict=True):
        assert ours.image_id == theirs.image_id
        assert ours.size == theirs.size
        np.testing.assert_array_equal(ours.image(), theirs.image())


@pytest.mark.parametrize("form", ["instances", "lvis"])
def test_objects(folder: Path, drawn: DrawnScenes, form: str) -> None:
    read = scenes_folder(folder, form)
    assert read.vocabulary.names == drawn.vocabulary.names[:-8]
    for ours, theirs in zip(samples(drawn), samples(read), strict=True):
        a, b = ours.instances(), theirs.instances()
        assert len(a) > 0
        np.testing.assert_array_equal(a.classes, b.classes)
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.areas, b.areas)
        assert a.masks == b.masks
        assert bool(b.negative) == (form == "lvis")
    assert drawn.sample(0).instances().ids.min() > 0


def test_segments_and_labels(folder: Path, drawn: DrawnScenes) -> None:
    panoptic, ade = scenes_folder(folder, "panoptic"), scenes_folder(folder, "ade")
    assert panoptic.vocabulary == ade.vocabulary == drawn.vocabulary
    for index, ours in enumerate(samples(drawn)):
        truth, theirs = ours.panoptic(), panoptic.sample(index).panoptic()
        np.testing.assert_array_equal(truth.ids, theirs.ids)
        assert set(truth.segments) == set(theirs.segments)
        np.testing.assert_array_equal(ours.labels(), panoptic.sample(index).labels())
        np.testing.assert_array_equal(ours.labels(), ade.sample(index).labels())


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="nothing to draw"):
        DrawnScenes("val", 0)
    with pytest.raises(InvalidParameter, match="form"):
        scenes_folder(tmp_path, "boxes")  # type: ignore[arg-type]
    with pytest.raises(MissingFile, match="ovp data scenes"):
        scenes_folder(tmp_path)
