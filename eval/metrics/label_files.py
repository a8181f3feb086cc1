"""mIoU of a folder of label pictures against the folder of the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.metrics.confusion import ConfusionMatrix
from eval.metrics.label_images import LabelCoding, read_label_map
from eval.metrics.scores import Category, SemanticScores
from eval.metrics.semantic import AveragingRule, score_semantic
from eval.metrics.semantic_boundary import BoundaryIoU, BoundaryRule, with_boundary
from ovperception.errors import InvalidDataset, InvalidRegions, MissingFile

__all__ = ["count_label_files", "score_label_files"]


def score_label_files(
    truth: str | Path,
    results: str | Path,
    categories: Sequence[Category],
    *,
    rule: AveragingRule = "detectron2",
    truth_coding: LabelCoding | None = None,
    results_coding: LabelCoding | None = None,
    truth_suffix: str = ".png",
    results_suffix: str = ".png",
    names: Collection[str] | None = None,
    boundary: BoundaryRule | None = None,
) -> SemanticScores:
    """Judge label maps.

    Args:
        truth: folder of the annotated maps; sub-folders are looked into.
        results: folder of the answers, of the same relative names.
        categories: (K,) the classes in the order of the labels.
        rule: what means are taken over.
        truth_coding: how the truth is written; pixels without a class are not judged.
        results_coding: how the answers are written; pixels without a class count as missed.
        truth_suffix: what follows a name, such as "_gtFine_labelTrainIds.png".
        results_suffix: the same of the answers.
        names: of the images to judge, without suffix; None for all of the truth.
        boundary: whose boundary IoU is told as well.

    Raises:
        MissingFile: a folder, or the answer to an image, does not exist.
        InvalidDataset: a picture cannot be read, is of another size than its truth, or holds a value that
            is no class.
    """
    confusion = ConfusionMatrix(len(categories))
    edges = BoundaryIoU(len(categories), boundary) if boundary else None
    wanted = sorted(_names(Path(truth), truth_suffix) if names is None else names)
    given = _names(Path(results), results_suffix)
    missing = [name for name in wanted if name not in given]
    if missing:
        raise MissingFile(
            f"There is no answer to {len(missing)} of {len(wanted)} images",
            field=str(results),
            got=", ".join(f"{name}{results_suffix}" for name in missing[:5]),
            mend="Every annotated image has to be answered; names have to be the same.",
        )
    count_label_files(
        confusion,
        [
            (Path(truth) / f"{name}{truth_suffix}", Path(results) / f"{name}{results_suffix}")
            for name in wanted
        ],
        truth_coding or LabelCoding(),
        results_coding or LabelCoding(),
        edges,
    )
    special = sorted((truth_coding or LabelCoding()).special)
    scores = score_semantic(
        confusion,
        categories,
        rule=rule,
        ignore_rule=f"values {', '.join(map(str, special))} of the annotation are not judged",
        warnings=Counter({"unlisted_file": len(given - set(wanted))}),
    )
    return with_boundary(scores, edges) if edges else scores


def count_label_files(
    confusion: ConfusionMatrix,
    pairs: Sequence[tuple[Path, Path]],
    truth_coding: LabelCoding,
    results_coding: LabelCoding,
    edges: BoundaryIoU | None = None,
) -> None:
    """Counts pairs of pictures, truth and answer: one process' share, to be merged with the others'."""
    for truth, result in pairs:
        expected = _decoded(truth, truth_coding)
        found = _decoded(result, results_coding)
        try:
            confusion.add(expected, found)
            if edges is not None:
                edges.add(expected, found)
        except InvalidRegions as error:
            raise InvalidDataset(
                f"{result.name}: {error.what[0].lower()}{error.what[1:]}",
                field=error.field,
                expected=error.expected,
                got=error.got or None,
            ) from error


def _decoded(path: Path, coding: LabelCoding) -> NDArray[np.int32]:
    values = read_label_map(path)
    try:
        return coding.decode(values)
    except InvalidDataset as error:
        raise InvalidDataset(
            f"{path.name}: {error.what[0].lower()}{error.what[1:]}",
            field=error.field,
            expected=error.expected,
            got=error.got or None,
            mend=error.mend,
        ) from error


def _names(folder: Path, suffix: str) -> set[str]:
    if not folder.is_dir():
        raise MissingFile("This folder does not exist", got=folder)
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob(f"*{suffix}"))
    names = {path.removesuffix(suffix) for path in paths}
    if not names:
        raise InvalidDataset("There is no label map in this folder", expected=f"*{suffix}", got=folder)
    return names
