"""Writes scenes to disk in the layouts that the field's readers and evaluators know.

::

    OUT/images/000000000001.jpg ...
    OUT/instances.json                COCO instances, masks as compressed RLE
    OUT/panoptic.json, panoptic/*.png COCO panoptic, id = R + 256 G + 65536 B
    OUT/lvis.json                     LVIS v1, frequencies and negatives
    OUT/captions.json                 COCO captions
    OUT/ade/annotations/*.png         ADE-style labels, 16 bit: the Idx of OUT/ade/objectInfo.txt
    OUT/splits.json                   base and novel names, and what to repeat to get the same files
    OUT/ATTRIBUTION.md                whose pictures these are made of
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.scenes import annotation_files
from ovperception.datasets.scenes.annotation_files import ImageRecord, Record, image_record
from ovperception.datasets.scenes.categories import load_categories
from ovperception.datasets.scenes.compose import MIN_SCENE_SIDE
from ovperception.datasets.scenes.splits import SPLITS, VERSION, Split, scene, scene_seed
from ovperception.errors import InvalidParameter, ResourceExhausted

ImageFormat = Literal["jpg", "png"]

_JPEG_QUALITY = 95
_ATTRIBUTION = Path(__file__).parent / "data" / "ATTRIBUTION.md"
_FOLDERS = ("images", "panoptic", "ade/annotations")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """What to write.

    Attributes:
        split: "train", "val" or "test".
        images: how many scenes.
        first: index of the first scene in the split.
        size: (height, width) of each.
        base_only: draw no novel class.
        image_format: "jpg" (quality 95) or "png" (the exact pixels).
    """

    split: Split = "val"
    images: int = 500
    first: int = 0
    size: tuple[int, int] = (512, 512)
    base_only: bool = False
    image_format: ImageFormat = "jpg"

    def __post_init__(self) -> None:
        """Checks the settings before anything is written.

        Raises:
            InvalidParameter: one of them is impossible.
        """
        if self.split not in SPLITS:
            raise InvalidParameter(
                "This split is not known",
                field="split",
                expected=f"one of {', '.join(SPLITS)}",
                got=self.split,
            )
        if self.images < 1:
            raise InvalidParameter(
                "There is nothing to write", field="images", expected="at least 1", got=self.images
            )
        if min(self.size) < MIN_SCENE_SIDE:
            raise InvalidParameter(
                "The scenes are too small",
                field="size",
                expected=f"at least {MIN_SCENE_SIDE} pixels",
                got=min(self.size),
            )
        if self.image_format not in ("jpg", "png"):
            raise InvalidParameter(
                "This image format is not known",
                field="image_format",
                expected="jpg or png",
                got=self.image_format,
            )
        scene_seed(self.split, self.first)
        scene_seed(self.split, self.first + self.images - 1)


def export_scenes(
    out: Path,
    settings: ExportSettings,
    *,
    workers: int = 1,
    on_image: Callable[[], object] = lambda: None,
) -> None:
    """Writes scenes into a new folder; on any failure no folder is left.

    Args:
        out: the folder, absent or empty.
        settings: what to write.
        workers: processes that draw.
        on_image: called after each scene.

    Raises:
        InvalidParameter: ``out`` is not empty, no folder or not writable, or ``workers`` is under 1.
        ResourceExhausted: the disk is full.
    """
    if workers < 1:
        raise InvalidParameter("Somebody must draw", field="workers", expected="at least 1", got=workers)
    with _new_folder(out) as folder:
        for name in _FOLDERS:
            (folder / name).mkdir(parents=True)
        records = []
        for record in _drawn(folder, settings, workers):
            records.append(record)
            on_image()
        _write_annotations(folder, settings, records)


def _drawn(folder: Path, settings: ExportSettings, workers: int) -> Iterator[ImageRecord]:
    indices = range(settings.first, settings.first + settings.images)
    if workers == 1:
        for index in indices:
            yield _draw(folder, settings, index)
        return
    # "spawn": a forked OpenCV may wait for threads that were not copied
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,))
    try:
        futures = [pool.submit(_draw, folder, settings, index) for index in indices]
        for future in futures:
            yield future.result()
    except BrokenProcessPool as error:
        raise ResourceExhausted(
            "A drawing process was killed, most likely for want of memory", mend="Ask for fewer workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _draw(folder: Path, settings: ExportSettings, index: int) -> ImageRecord:
    """Draws one scene, writes its three pictures and gives what the annotation files need."""
    sample = scene(settings.split, index, settings.size, base_only=settings.base_only)
    image_id = index + 1
    record = image_record(sample, image_id, f"{image_id:012d}.{settings.image_format}")
    _write_image(folder / "images" / record.file_name, sample.image[..., ::-1])
    ids = sample.panoptic
    bgr = np.stack([ids >> 16, ids >> 8, ids], axis=2).astype(np.uint8)
    _write_image(folder / "panoptic" / f"{record.stem}.png", bgr)
    _write_image(folder / "ade" / "annotations" / f"{record.stem}.png", sample.labels.astype(np.uint16))
    return record


def _write_image(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if path.suffix == ".jpg" else []
    # not cv2.imwrite, which hides why it failed
    done, encoded = cv2.imencode(path.suffix, np.ascontiguousarray(pixels), options)
    assert done
    path.write_bytes(encoded.tobytes())


def _write_annotations(folder: Path, settings: ExportSettings, records: list[ImageRecord]) -> None:
    _write_json(folder / "instances.json", annotation_files.coco_instances(records))
    _write_json(folder / "panoptic.json", annotation_files.coco_panoptic(records))
    seed = scene_seed(settings.split, settings.first)
    _write_json(folder / "lvis.json", annotation_files.lvis(records, seed))
    _write_json(folder / "captions.json", annotation_files.coco_captions(records))
    table = annotation_files.ade_object_info(records, training=settings.split == "train")
    (folder / "ade" / "objectInfo.txt").write_text(table, encoding="utf-8")
    categories = load_categories()
    splits = {
        "dataset": "scenes",
        "version": VERSION,
        "split": settings.split,
        "first": settings.first,
        "images": settings.images,
        "size": list(settings.size),
        "base_only": settings.base_only,
        "first_seed": seed,
        "base": [category.name for category in categories if not category.is_novel],
        "novel": [category.name for category in categories if category.is_novel],
    }
    _write_json(folder / "splits.json", splits)
    shutil.copyfile(_ATTRIBUTION, folder / "ATTRIBUTION.md")


def _write_json(path: Path, content: Record) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, separators=(",", ":"))


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Gives a folder beside ``out`` that becomes ``out`` if all goes well and is removed if not."""
    partial: Path | None = None
    try:
        if out.is_symlink() or os.path.ismount(out) or (out.exists() and not out.is_dir()):
            raise _unusable(out, "is not a plain folder")
        if out.is_dir() and any(out.iterdir()):
            raise _unusable(out, "is not empty")
        target = out.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
        partial.mkdir()
        yield partial
        partial.rename(target)
        partial = None
    except OSError as error:
        raise _explained(error, out) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _unusable(out: Path, why: str) -> InvalidParameter:
    return InvalidParameter(
        f"The output folder {why}",
        field="out",
        expected="a folder that does not exist yet, or an empty one",
        got=out,
        mend="Name another folder, or remove this one first",
    )


def _explained(error: OSError, out: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(
            "The disk is full; what was written has been removed",
            got=out,
            mend="Free some space, or ask for fewer or smaller images",
        )
    return _unusable(out, f"cannot be written ({error.strerror or error})")


def summary(out: Path, settings: ExportSettings) -> dict[str, Any]:
    """Says in a few JSON-ready words what was written where."""
    return {"out": str(out), "split": settings.split, "images": settings.images, "size": list(settings.size)}
