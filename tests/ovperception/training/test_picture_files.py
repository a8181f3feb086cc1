"""Pictures as people have them: whatever the file is like, boxes lie where the object is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ovperception.errors import InvalidDataset
from ovperception.training.data_settings import DataSettings, open_training_images

SIZE = (48, 64)
BOX = (10, 8, 30, 20)
BRIGHT, DARK = 220, 30


def scene() -> NDArray[np.uint8]:
    """One bright object on dark ground."""
    pixels = np.full((*SIZE, 3), DARK, np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = BRIGHT
    return pixels


def converted(mode: str) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(scene()).convert(mode).save(path, quality=95)


def held(orientation: int) -> Callable[[Path], None]:
    """Stored as the camera held it; upright it is the scene."""
    turns = {3: 2, 6: 1, 8: -1}

    def save(path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        lying = np.ascontiguousarray(np.rot90(scene(), turns[orientation]))
        Image.fromarray(lying).save(path, quality=95, exif=exif)

    return save


def see_through(path: Path) -> None:
    alpha = np.full((*SIZE, 1), 255, np.uint8)
    alpha[:5] = 0
    Image.fromarray(np.concatenate((scene(), alpha), axis=2)).save(path)


def deep(path: Path) -> None:
    cv2.imwrite(str(path), scene().astype(np.uint16) << 8)


def opened(folder: Path, *names: str) -> Any:
    x0, y0, x1, y1 = BOX
    facts = {"category_id": 7, "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0}
    facts["segmentation"] = [[x0, y0, x1, y0, x1, y1, x0, y1]]
    file = folder / "instances.json"
    rows = [{"id": n, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for n, name in enumerate(names)]
    objects = [{"id": n + 1, "image_id": n, **facts} for n in range(len(names))]
    categories = [{"id": 7, "name": "cat"}]
    file.write_text(json.dumps({"images": rows, "annotations": objects, "categories": categories}))
    return open_training_images(DataSettings(annotations=file, images=folder))


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("alpha.png", see_through),
        ("grey.jpg", converted("L")),
        ("grey and alpha.png", converted("LA")),
        ("palette.png", converted("P")),
        ("cmyk.jpg", converted("CMYK")),
        ("sixteen bits.png", deep),
        ("猫 é.webp", converted("RGB")),
        ("below/one.jpg", converted("RGB")),
        ("upside down.jpg", held(3)),
        ("turned left.jpg", held(6)),
        ("turned right.jpg", held(8)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_boxes_lie_where_the_object_is_seen(name: str, save: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    save(path)
    found, troubles = opened(tmp_path, name).read(0)
    assert not troubles
    assert found.image.shape == (*SIZE, 3)
    assert found.boxes.tolist() == [list(BOX)]
    inside = found.masks[0]
    assert found.image[inside].mean() == pytest.approx(BRIGHT, abs=5)
    assert found.image[~inside].mean() == pytest.approx(DARK, abs=5)


def test_a_file_elsewhere_may_be_named_by_its_whole_path(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    converted("RGB")(tmp_path / "there" / "one.png")
    images = opened(tmp_path / "here", str(tmp_path / "there" / "one.png"))
    assert images.where(0) == str(tmp_path / "there" / "one.png")
    assert len(images.read(0)[0].class_ids) == 1


def test_a_picture_annotated_as_it_lies_is_refused_with_the_reason(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(scene()).save(tmp_path / "lying.jpg", exif=exif)
    with pytest.raises(InvalidDataset, match=r"lying\.jpg") as caught:
        opened(tmp_path, "lying.jpg").read(0)
    assert "EXIF" in str(caught.value)
