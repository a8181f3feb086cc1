"""The training-free family from end to end: PASCAL VOC in its official layout, windows, background, files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from eval.outcome_files import read_outcome
from eval.protocols import Window
from eval.running.windows import window_starts
from ovperception import cli
from tests.heads.lseg.small import write_small_bundle

SIZES = ((60, 100), (90, 60))


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("voc")
    home = root / "VOCdevkit/VOC2012"
    rng = np.random.default_rng(0)
    names = [f"2007_{n:06d}" for n in range(len(SIZES))]
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (home / folder).mkdir(parents=True)
    for n, (name, size) in enumerate(zip(names, SIZES, strict=True)):
        cv2.imwrite(str(home / f"JPEGImages/{name}.jpg"), rng.integers(0, 256, (*size, 3), np.uint8))
        labels = np.zeros(size, np.uint8)
        labels[10:30, 10:50], labels[30:32], labels[40:] = n + 1, 255, 20
        picture = Image.fromarray(labels)
        picture.putpalette(rng.integers(0, 256, 768, np.uint8).tobytes())  # VOC's are indexed
        picture.save(home / f"SegmentationClass/{name}.png")
    (home / "ImageSets/Segmentation/val.txt").write_text("".join(f"{name}\n" for name in names))
    return root


@pytest.mark.parametrize("short", ["voc21", "voc20"])
def test_windows_on_the_official_layout(short: str, voc: Path, tmp_path: Path) -> None:
    """A run's own maps, scored as files of others, give the run's numbers."""
    bundle = write_small_bundle(tmp_path / "small.safetensors", "resnet")
    protocol = ["eval", "--json", "--protocol", f"training_free_{short}"]
    ran, scored = tmp_path / "ran", tmp_path / "scored"
    assert cli.main([*protocol, "--model", str(bundle), "--root", str(voc), "--out", str(ran)]) == 0
    outcome = read_outcome(ran)
    assert "resolution shortest edge 336, window 336, stride 112" in outcome.report_line
    assert len(outcome.images) == len(SIZES)
    maps = [
        cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((ran / "predictions/labels").iterdir())
    ]
    assert [values.shape for values in maps] == list(SIZES)
    assert {int(v) for values in maps for v in np.unique(values)} <= set(range(short == "voc20", 21))
    files = ["--annotations", str(voc / "VOCdevkit/VOC2012/SegmentationClass")]
    files += ["--results", str(ran / "predictions/labels")]
    assert cli.main([*protocol, *files, "--out", str(scored)]) == 0
    assert read_outcome(scored).metrics == outcome.metrics


def test_windows_begin_as_mmsegmentations_do() -> None:
    window = Window(size=336, stride=112)
    for length, starts in ((100, [0]), (336, [0]), (337, [0, 1]), (500, [0, 112, 164]), (560, [0, 112, 224])):
        assert window_starts(length, window) == starts
