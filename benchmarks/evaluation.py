"""CPU time and peak memory of the evaluators beside the reference tools, on sets made for the purpose.

    python -m benchmarks.evaluation --rounds 3 --out evaluation.json
    python -m benchmarks.evaluation --rounds 1 --images 100 --lvis-images 50 --maps 4

Every measurement is a process of its own: read the files, match, sum up; the imports before are not timed.
Candidates take turns, round by round. Ours is `score_coco` / `score_lvis` with all their checks of the
input; the peers are pycocotools' `COCOeval` as its users call it, lvis-api where it can be imported
(otherwise our federated rules on pycocotools' matching, with the same checks, and the table says so), and for
PQ and mIoU the published per-image algorithms written out: panopticapi's (`np.unique` of paired ids, dicts
and loops), detectron2's (`np.bincount` over all pairs of classes) and CSAILVision's (three `np.histogram`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_tools
from rich.console import Console
from rich.table import Table

SIZES = [(480, 640), (640, 480), (427, 640), (375, 500), (640, 640)]


def star(rng: np.random.Generator, height: int, width: int, side: float) -> list[float]:
    """A polygon of 8 to 24 corners around a random place: x, y, x, y, ..."""
    corners = int(rng.integers(8, 25))
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = side / 2 * rng.uniform(0.55, 1, corners)
    x = rng.uniform(0, width) + radius * np.cos(angle)
    y = rng.uniform(0, height) + radius * np.sin(angle)
    return np.round(np.stack([np.clip(x, 0, width), np.clip(y, 0, height)], 1).ravel(), 2).tolist()


def make_detections(
    folder: Path, images: int, classes: int, per_image: int, *, masks: bool, seed: int
) -> None:
    """`truth.json` and `results.json`: objects, their copies moved a little, and false alarms."""
    rng = np.random.default_rng(seed)
    popular = 1 / np.arange(1, classes + 1) ** 0.7
    popular /= popular.sum()
    rows: dict[str, list[Any]] = {"images": [], "annotations": [], "results": []}

    def shape(corners: list[float], size: tuple[int, int]) -> dict[str, Any] | None:
        rle = mask_tools.merge(mask_tools.frPyObjects([corners], *size))
        area = float(mask_tools.area(rle))
        counts = {"size": list(size), "counts": rle["counts"].decode()}
        return {"bbox": mask_tools.toBbox(rle).tolist(), "area": area, "rle": counts} if area >= 1 else None

    def found(image: int, category: int, of: dict[str, Any], score: float) -> None:
        row = {
            "image_id": image,
            "category_id": category,
            "score": round(float(np.clip(score, 0.001, 0.999)), 3),
        }
        rows["results"].append(row | ({"segmentation": of["rle"]} if masks else {"bbox": of["bbox"]}))

    for image in range(1, images + 1):
        size = SIZES[image % len(SIZES)]
        seen = rng.choice(classes, 6, p=popular) + 1
        row = {"id": image, "height": size[0], "width": size[1]}
        row["neg_category_ids"] = (rng.choice(classes, 8, p=popular) + 1).tolist()
        row["not_exhaustive_category_ids"] = seen[:1].tolist()
        rows["images"].append(row)
        made = 0
        for _ in range(int(min(rng.gamma(1.3, 5.8) + 1, 40))):
            corners = star(rng, *size, float(np.exp(rng.uniform(2, np.log(0.9 * min(size))))))
            of = shape(corners, size)
            if of is None:
                continue
            category = int(rng.choice(seen))
            rows["annotations"].append(
                {"id": len(rows["annotations"]) + 1, "image_id": image, "category_id": category, "iscrowd": 0}
                | {"bbox": of["bbox"], "area": of["area"], "segmentation": [corners]}
            )
            for again in range(int(rng.integers(0, 3))):
                moved = np.array(corners) + rng.normal(0, 0.04 * of["bbox"][2], len(corners))
                near = shape(
                    np.clip(moved, 0, [size[1], size[0]] * (len(corners) // 2)).round(2).tolist(), size
                )
                if near:
                    found(image, category, near, rng.beta(5, 2) - 0.2 * again)
                    made += 1
        while made < per_image:
            alarm = shape(star(rng, *size, float(np.exp(rng.uniform(2, 5.5)))), size)
            if alarm:
                found(image, int(rng.choice(classes, p=popular)) + 1, alarm, rng.beta(1.2, 5))
            made += 1
    categories = [{"id": i, "name": str(i), "frequency": "rcf"[i % 3]} for i in range(1, classes + 1)]
    truth = {"images": rows["images"], "annotations": rows["annotations"], "categories": categories}
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(rows["results"]))


def make_maps(folder: Path, count: int, classes: int, seed: int) -> None:
    """`maps.npz`: segment ids and classes of truth and answer, rectangles over a background."""
    rng = np.random.default_rng(seed)
    pairs = np.zeros((count, 2, 640, 640), np.int32)
    category = rng.integers(0, classes, 64).astype(np.int32)
    for pair in pairs:
        for i in range(1, 41):
            (y, x), (h, w) = rng.integers(0, 600, 2), rng.integers(10, 240, 2)
            dy, dx = rng.integers(-9, 9, 2)
            pair[0, y : y + h, x : x + w] = i
            pair[1, max(y + dy, 0) : y + dy + h, max(x + dx, 0) : x + dx + w] = i
    np.savez(folder / "maps.npz", pairs=pairs, category=category)


def ours_coco(folder: Path, iou: str) -> float | None:
    from eval.metrics import score_coco

    return timed(lambda: score_coco(folder / "truth.json", folder / "results.json", iou=iou).metrics["AP"])


def peer_coco(folder: Path, iou: str) -> float | None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def call() -> float:
        truth = COCO(str(folder / "truth.json"))
        judge = COCOeval(truth, truth.loadRes(str(folder / "results.json")), iou)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        return float(judge.stats[0])

    return timed(call)


def ours_lvis(folder: Path, iou: str, engine: str = "hotcoco") -> float | None:
    from eval.metrics import score_lvis

    truth, results = folder / "truth.json", folder / "results.json"
    return timed(lambda: score_lvis(truth, results, iou=iou, engine=engine).metrics["AP"])


def peer_lvis(folder: Path, iou: str) -> float | None:
    if not importlib.util.find_spec("lvis"):
        return ours_lvis(folder, iou, "pycocotools")
    np.float = float  # type: ignore[attr-defined]  # lvis 0.5.3 asks for it, numpy 1.24 dropped it
    from lvis import LVIS, LVISEval, LVISResults

    def call() -> float:
        truth = LVIS(str(folder / "truth.json"))
        judge = LVISEval(truth, LVISResults(truth, str(folder / "results.json")), iou)
        judge.run()
        return float(judge.results["AP"])

    return timed(call)


def ours_pq(folder: Path, _: str) -> float | None:
    from eval.metrics import Category, PanopticQuality, PanopticSegment

    pairs, category, segments = maps(folder)
    quality = PanopticQuality([Category(id=i, name="") for i in range(int(category.max()) + 1)])

    def call() -> float | None:
        for (truth, found), (true, predicted) in zip(pairs, segments, strict=True):
            quality.add(
                truth,
                [PanopticSegment(i, int(category[i])) for i in true],
                found,
                [PanopticSegment(i, int(category[i])) for i in predicted],
            )
        return quality.scores().metrics["PQ"]

    return timed(call)


def peer_pq(folder: Path, _: str) -> float | None:
    """panopticapi `pq_compute_single_core`, without crowds: the maps have none."""
    pairs, category, segments = maps(folder)
    counts = np.zeros((int(category.max()) + 1, 4))

    def call() -> float:
        for (truth, found), (true, predicted) in zip(pairs, segments, strict=True):
            areas = [
                dict(zip(*(v.tolist() for v in np.unique(m, return_counts=True)), strict=True))
                for m in (truth, found)
            ]
            both = truth.astype(np.uint64) * 256**3 + found.astype(np.uint64)
            shared = {
                divmod(pair, 256**3): pixels
                for pair, pixels in zip(
                    *(v.tolist() for v in np.unique(both, return_counts=True)), strict=True
                )
            }
            matched: list[set[int]] = [set(), set()]
            for (i, j), pixels in shared.items():
                if i and j and category[i] == category[j]:
                    iou = pixels / (areas[0][i] + areas[1][j] - pixels - shared.get((0, j), 0))
                    if iou > 0.5:
                        counts[category[i]] += (1, 0, 0, iou)
                        matched[0].add(i)
                        matched[1].add(j)
            for i in set(true) - matched[0]:
                counts[category[i], 2] += 1
            for j in set(predicted) - matched[1]:
                counts[category[j], 1] += shared.get((0, j), 0) / areas[1][j] <= 0.5
        weight = counts @ (1, 0.5, 0.5, 0)
        return float(np.mean(counts[weight > 0, 3] / weight[weight > 0]))

    return timed(call)


def maps(folder: Path) -> tuple[Any, Any, list[list[list[int]]]]:
    stored = np.load(folder / "maps.npz")
    pairs, category = stored["pairs"], stored["category"]
    return pairs, category, [[[i for i in np.unique(m).tolist() if i] for m in pair] for pair in pairs]


def label_maps(folder: Path) -> tuple[Any, int]:
    pairs, category, _ = maps(folder)
    count = int(category.max()) + 1
    return category[pairs].astype(np.uint8 if count < 255 else np.uint16), count


def ours_miou(folder: Path, _: str) -> float | None:
    from eval.metrics import ConfusionMatrix, miou

    pairs, count = label_maps(folder)
    confusion = ConfusionMatrix(count)

    def call() -> float | None:
        for truth, found in pairs:
            confusion.add(truth, found, ignore_label=65535)
        return miou(confusion)

    return timed(call)


def detectron2_miou(folder: Path, _: str) -> float | None:
    pairs, count = label_maps(folder)
    side = count + 1
    matrix = np.zeros((side, side), np.int64)

    def call() -> float:
        nonlocal matrix
        for truth, found in pairs:
            cells = side * np.array(found, int).reshape(-1) + np.array(truth, int).reshape(-1)
            matrix += np.bincount(cells, minlength=matrix.size).reshape(matrix.shape)
        hits = np.diagonal(matrix).astype(float)
        there, predicted = matrix.sum(0), matrix.sum(1)
        return float(np.mean((hits / np.maximum(there + predicted - hits, 1))[there > 0]))

    return timed(call)


def csail_miou(folder: Path, _: str) -> float | None:
    pairs, count = label_maps(folder)
    sums = np.zeros((3, count))

    def call() -> float:
        for truth, found in pairs:
            true, predicted = truth.astype(int) + 1, found.astype(int) + 1
            hits = predicted * (predicted == true)
            for row, values in zip(sums, (hits, predicted, true), strict=True):
                row += np.histogram(values, bins=count, range=(1, count))[0]
        union = sums[1] + sums[2] - sums[0]
        return float(np.mean((sums[0] / np.maximum(union, 1))[sums[2] > 0]))

    return timed(call)


def timed(call: Callable[[], float | None]) -> float | None:
    """Runs it in this process, which was started for it, and prints what it took."""
    import contextlib
    import io

    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, cpu = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        answer = call()
    took = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(took | {"peak_mib": peak, "peak_above_imports_mib": peak - base, "answer": answer}))
    return answer


CANDIDATES: dict[str, Callable[[Path, str], float | None]] = {
    "ours coco": ours_coco,
    "pycocotools": peer_coco,
    "ours lvis": ours_lvis,
    "lvis": peer_lvis,
    "ours pq": ours_pq,
    "panopticapi's algorithm": peer_pq,
    "ours miou": ours_miou,
    "detectron2's algorithm": detectron2_miou,
    "CSAILVision's algorithm": csail_miou,
}


def cases(arguments: argparse.Namespace, folder: Path) -> dict[str, tuple[Path, str, list[str]]]:
    """Name -> folder of the data, IoU kind, candidates with ours first; makes the data."""
    made: dict[str, tuple[Path, str, list[str]]] = {}
    for iou in ("bbox", "segm"):
        place = folder / f"coco_{iou}"
        place.mkdir()
        make_detections(place, arguments.images, 80, 30, masks=iou == "segm", seed=7)
        made[f"COCO {iou}, {arguments.images} images"] = (place, iou, ["ours coco", "pycocotools"])
    place = folder / "lvis"
    place.mkdir()
    make_detections(place, arguments.lvis_images, 1203, 300, masks=False, seed=7)
    made[f"LVIS bbox, {arguments.lvis_images} images"] = (place, "bbox", ["ours lvis", "lvis"])
    for classes in (150, 847):
        place = folder / f"maps_{classes}"
        place.mkdir()
        make_maps(place, arguments.maps, classes, seed=7)
        rivals = ["ours miou", "detectron2's algorithm", "CSAILVision's algorithm"]
        made[f"mIoU, {classes} classes, {arguments.maps} maps"] = (place, "", rivals)
    made[f"PQ, {arguments.maps} maps"] = (folder / "maps_150", "", ["ours pq", "panopticapi's algorithm"])
    return made


def main() -> None:
    """Make the sets, measure, print a table, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000, help="of the COCO sets")
    parser.add_argument("--lvis-images", type=int, default=1000, help="of 300 detections each")
    parser.add_argument("--maps", type=int, default=100, help="of 640 x 640 pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--measure", nargs=3, metavar=("NAME", "FOLDER", "IOU"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, place, iou = arguments.measure
        CANDIDATES[name](Path(place), iou)
        return
    report: dict[str, Any] = {"arguments": {k: v for k, v in vars(arguments).items() if k != "out"}}
    report["lvis peer"] = "lvis-api" if importlib.util.find_spec("lvis") else "pycocotools, federated rules"
    with tempfile.TemporaryDirectory() as folder:
        report["cases"] = {
            case: compare(*parts, rounds=arguments.rounds)
            for case, parts in cases(arguments, Path(folder)).items()
        }
    show(report)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1))


def compare(place: Path, iou: str, names: list[str], *, rounds: int) -> dict[str, Any]:
    """Rounds of every candidate, each in its own process."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            command = [sys.executable, "-m", "benchmarks.evaluation", "--measure", name, str(place), iou]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            taken[name].append(json.loads(printed.splitlines()[-1]))
    medians = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in taken.items()
    }
    ours = medians[names[0]]
    return {
        "runs": taken,
        "median": medians,
        "ratio of CPU": {name: medians[name]["cpu_s"] / ours["cpu_s"] for name in names[1:]},
        "largest difference": max(abs(row["answer"] - ours["answer"]) for row in medians.values()),
    }


def show(report: dict[str, Any]) -> None:
    """The table; ratios are of CPU seconds, medians of the rounds."""
    table = Table("set", "who", "CPU s", "min - max", "ratio", "peak MiB", "above imports", "answer")
    for case, found in report["cases"].items():
        for name, median in found["median"].items():
            spread = [run["cpu_s"] for run in found["runs"][name]]
            table.add_row(
                case,
                report["lvis peer"] if name == "lvis" else name,
                f"{median['cpu_s']:.3f}",
                f"{min(spread):.3f} - {max(spread):.3f}",
                f"{found['ratio of CPU'].get(name, 1):.1f}",
                f"{median['peak_mib']:.0f}",
                f"{median['peak_above_imports_mib']:.0f}",
                f"{median['answer']:.12f}",
            )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
