"""The files on disk: read back by the field's own readers and compared with the scenes."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from ovperception.datasets import scenes
from ovperception.datasets.command import app
from ovperception.datasets.scenes import SceneSample, export, sheet
from ovperception.datasets.scenes.export import ExportSettings, export_scenes
from ovperception.errors import InvalidParameter, ResourceExhausted

SETTINGS = ExportSettings(images=4, first=3, size=(96, 128), image_format="png")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "val"
    export_scenes(out, SETTINGS)
    return out


@pytest.fixture(scope="module")
def samples() -> dict[int, SceneSample]:
    """By image id."""
    return {index + 1: scenes.scene("val", index, (96, 128)) for index in range(3, 7)}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_images_are_the_exact_pixels(exported: Path, samples: dict[int, SceneSample]) -> None:
    for image_id, sample in samples.items():
        picture = cv2.imread(str(exported / "images" / f"{image_id:012d}.png"))
        assert picture is not None
        np.testing.assert_array_equal(picture[..., ::-1], sample.image)


# pycocotools 2.0 does not yet say what NumPy 2 wants of __array__
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_instances_by_pycocotools(exported: Path, samples: dict[int, SceneSample]) -> None:
    coco_module = pytest.importorskip("pycocotools.coco")
    coco = coco_module.COCO(str(exported / "instances.json"))
    assert coco.getImgIds() == list(samples)
    for image_id, sample in samples.items():
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        assert len(annotations) == len(sample.things)
        for annotation, segment in zip(annotations, sample.things, strict=True):
            mask = coco.annToMask(annotation).astype(bool)
            np.testing.assert_array_equal(mask, sample.mask(segment.id))
            x, y, width, height = annotation["bbox"]
            assert (x, y, x + width, y + height) == segment.box
            assert annotation["area"] == segment.area
            assert annotation["category_id"] == segment.category_id
            assert annotation["iscrowd"] == 0
            assert annotation["id"] > 0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_perfect_results_score_one(exported: Path) -> None:
    coco_module = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    coco = coco_module.COCO(str(exported / "instances.json"))
    results = [
        {key: annotation[key] for key in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 0.9}
        for annotation in coco.dataset["annotations"]
    ]
    evaluation = cocoeval.COCOeval(coco, coco.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_panoptic(exported: Path, samples: dict[int, SceneSample]) -> None:
    content = read(exported / "panoptic.json")
    assert len(content["categories"]) == len(scenes.load_categories())
    for annotation in content["annotations"]:
        sample = samples[annotation["image_id"]]
        png = cv2.imread(str(exported / "panoptic" / annotation["file_name"]))
        assert png is not None
        blue, green, red = (png[..., channel].astype(int) for channel in range(3))
        np.testing.assert_array_equal(red + 256 * green + 65536 * blue, sample.panoptic)
        listed = {info["id"]: (info["category_id"], info["area"]) for info in annotation["segments_info"]}
        assert listed == {segment.id: (segment.category_id, segment.area) for segment in sample.segments}


def test_lvis(exported: Path, samples: dict[int, SceneSample]) -> None:
    content = read(exported / "lvis.json")
    categories = {category["id"]: category for category in content["categories"]}
    assert {category["frequency"] for category in categories.values()} == {"r", "c", "f"}
    assert sum(category["instance_count"] for category in categories.values()) == len(content["annotations"])
    for image in content["images"]:
        present = {segment.category_id for segment in samples[image["id"]].things}
        assert len(image["neg_category_ids"]) == 40
        assert not present & set(image["neg_category_ids"])
        assert set(image["neg_category_ids"]) <= set(categories)
        assert image["not_exhaustive_category_ids"] == []
    for category in categories.values():
        holding = [s for s in samples.values() if category["id"] in {g.category_id for g in s.things}]
        assert category["image_count"] == len(holding)
        assert category["synonyms"][0] == category["name"]


def test_ade(exported: Path, samples: dict[int, SceneSample]) -> None:
    header, *rows = (exported / "ade" / "objectInfo.txt").read_text(encoding="utf-8").splitlines()
    assert header.split("\t") == ["Idx", "Ratio", "Train", "Val", "Stuff", "Name"]
    table = [row.split("\t") for row in rows]
    assert [int(row[0]) for row in table] == list(range(1, len(scenes.load_categories()) + 1))
    assert sum(float(row[1]) for row in table) == pytest.approx(1, abs=1e-3)
    assert [row[5].split(", ")[0] for row in table] == [c.name for c in scenes.load_categories()]
    for image_id, sample in samples.items():
        labels = cv2.imread(
            str(exported / "ade" / "annotations" / f"{image_id:012d}.png"), cv2.IMREAD_UNCHANGED
        )
        assert labels is not None
        assert labels.dtype == np.uint16
        np.testing.assert_array_equal(labels, sample.labels)


def test_captions_and_splits(exported: Path, samples: dict[int, SceneSample]) -> None:
    captions = {a["image_id"]: a["caption"] for a in read(exported / "captions.json")["annotations"]}
    assert captions == {image_id: sample.captions[0] for image_id, sample in samples.items()}
    splits = read(exported / "splits.json")
    assert splits["novel"] == [c.name for c in scenes.load_categories() if c.is_novel]
    assert len(splits["base"]) + len(splits["novel"]) == len(scenes.load_categories())
    assert splits["first_seed"] == scenes.scene_seed("val", 3)
    assert (
        "OFL" in (exported / "ATTRIBUTION.md").read_text()
        or "Open Font License" in (exported / "ATTRIBUTION.md").read_text()
    )


def test_workers_write_the_same_files(exported: Path, tmp_path: Path) -> None:
    export_scenes(tmp_path / "two", SETTINGS, workers=2)
    for path in sorted(exported.rglob("*.*")):
        if path.is_file():
            assert (tmp_path / "two" / path.relative_to(exported)).read_bytes() == path.read_bytes()


def test_an_empty_folder_is_taken_and_a_full_one_refused(tmp_path: Path) -> None:
    settings = ExportSettings(images=1, size=(32, 32))
    out = tmp_path / "out"
    out.mkdir()
    export_scenes(out, settings)
    before = sorted(out.rglob("*"))
    with pytest.raises(InvalidParameter, match="is not empty") as caught:
        export_scenes(out, settings)
    assert caught.value.field == "out"
    assert sorted(out.rglob("*")) == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = ExportSettings(images=1, size=(32, 32))
    with pytest.raises(InvalidParameter, match="not a plain folder"):
        export_scenes(tmp_path / "file", settings)
    with pytest.raises(InvalidParameter, match="cannot be written"):
        export_scenes(tmp_path / "file" / "below", settings)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "_write_json", full)
    with pytest.raises(ResourceExhausted, match="disk is full"):
        export_scenes(tmp_path / "out", ExportSettings(images=1, size=(32, 32)))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_scenes(tmp_path / "out", ExportSettings(images=2, size=(32, 32)), on_image=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [{"split": "dev"}, {"images": 0}, {"size": (16, 64)}, {"image_format": "gif"}, {"first": -1}],
    ids=str,
)
def test_bad_settings(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        ExportSettings(**arguments)


def test_command(tmp_path: Path) -> None:
    arguments = ["scenes", "--out", str(tmp_path / "out"), "--images", "2", "--size", "48", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["images"] == 2
    assert len(list((tmp_path / "out" / "images").glob("*.jpg"))) == 2


def test_command_refuses_a_full_folder(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    done = CliRunner().invoke(app, ["scenes", "--out", str(tmp_path), "--images", "1"])
    assert isinstance(done.exception, InvalidParameter)
    assert (tmp_path / "kept").read_text() == "mine"


def test_sheet_draws_the_truth_without_touching_the_sample() -> None:
    sample = scenes.scene("val", 0, (96, 96))
    before = sample.image.copy()
    drawn = sheet.with_truth(sample)
    assert (drawn != before).any()
    np.testing.assert_array_equal(sample.image, before)
