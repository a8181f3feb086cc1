"""Where the time of RegionCLIP goes, and how it grows with regions and with words.

    python -m benchmarks.regionclip --arch RN50 --size 800 1067 --regions 10 100 1000 --out regionclip.json

The weights are random, the regions are random boxes: neither changes the work, except that random scores
make more candidates for suppression than a trained model does. Times are the best of all rounds, CPU seconds
are of all threads together; what takes longer than `--budget` is not run again. The floor of a stage is what
its matrix products and convolutions would take at the speed of one large matrix product, measured in the same
run. Up to `--plain` regions the plain way stands beside ours, in parts and as a whole: torchvision's ROIAlign
of every region, the whole last stage on each, and CLIP's own attention pool.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import roi_align

from benchmarks.fcclip import environment, matrix_speed
from heads.regionclip import PRESETS, RegionCLIP
from ovperception.backbones import ClipBackbone, Features, build_open_clip, from_open_clip
from ovperception.head import BoxScores, RegionEncoding
from ovperception.images import Geometry
from ovperception.postprocess import boxes as box_detections
from ovperception.text import TextClassifier
from ovperception.vocabulary import Vocabulary, VocabularyClass

CHUNK = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    name: str
    regions: int
    classes: int
    wall_s: float
    wall_median_s: float
    cpu_s: float
    gmac: float
    floor_s: float


class Bench:
    """One picture, one backbone, one head; regions and words as asked."""

    def __init__(
        self, arch: str, size: tuple[int, int], preset: str, device: str, rounds: int, budget: float
    ) -> None:
        self.size, self.device, self.rounds, self.preset = size, device, rounds, preset
        self.budget = budget
        self.backbone = _backbone(arch).to(device)
        published = PRESETS[preset]
        settings = {**published.head_settings(), "proposer": published.proposer_settings()}
        self.head = RegionCLIP.from_settings(settings, self.backbone.spec).eval().requires_grad_(False)
        self.head.to(device)
        pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        self.images = pixels.to(device)
        self.speed = matrix_speed(device)

    def measure(self, name: str, regions: int, classes: int, run: Callable[[], Any]) -> tuple[Stage, Any]:
        """Once to warm up and to count, then `rounds` times, of which those that the budget allows."""
        wall, cpu = [], []
        start, used = time.perf_counter(), time.process_time()
        with FlopCounterMode(display=False) as counter:
            result = run()
        self._synchronize()
        gmac = counter.get_total_flops() / 2e9
        wall_s, cpu_s = time.perf_counter() - start, time.process_time() - used
        for _ in range(self.rounds):
            if wall_s + sum(wall) > self.budget:
                break
            start, used = time.perf_counter(), time.process_time()
            run()
            self._synchronize()
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - used)
        wall, cpu = wall or [wall_s], cpu or [cpu_s]
        stage = Stage(
            name=name,
            regions=regions,
            classes=classes,
            wall_s=min(wall),
            wall_median_s=statistics.median(wall),
            cpu_s=min(cpu),
            gmac=gmac,
            floor_s=2 * gmac / self.speed,
        )
        return stage, result

    def _synchronize(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def image(self) -> tuple[list[Stage], Features]:
        """What an image costs before any region."""
        backbone, head = self.backbone, self.head
        seen, features = self.measure("backbone", 0, 0, lambda: backbone.features(self.images))
        proposed, _ = self.measure("proposals", 0, 0, lambda: head.proposer.propose(features))  # type: ignore[union-attr,operator]
        return [seen, proposed], features

    def regions(self, features: Features, count: int, plain: int) -> tuple[list[Stage], RegionEncoding]:
        """What regions cost as the head embeds them, and up to `plain` of them the plain way."""
        boxes = self._boxes(count)
        stage, encoding = self.measure(
            "regions", count, 0, lambda: self.head.encode_boxes(self.backbone, features, [boxes])
        )
        return [*(self._plainly(features, boxes) if count <= plain else []), stage], encoding

    def _plainly(self, features: Features, boxes: Tensor) -> list[Stage]:
        visual: Any = self.backbone.model.visual
        count = len(boxes)
        rois = torch.cat((boxes.new_zeros(count, 1), boxes), dim=1)
        side = 2 * round((len(visual.attnpool.positional_embedding) - 1) ** 0.5)

        def align() -> list[Tensor]:
            return [
                roi_align(features["res4"], some, side, spatial_scale=1 / 16, aligned=True)
                for some in rois.split(CHUNK)
            ]

        aligned, crops = self.measure("plain ROI align", count, 0, align)
        staged, maps = self.measure("plain layer4", count, 0, lambda: [visual.layer4(c) for c in crops])
        pooled, _ = self.measure("plain pool", count, 0, lambda: [visual.attnpool(m) for m in maps])
        whole, _ = self.measure(
            "plain regions", count, 0, lambda: [visual.attnpool(visual.layer4(c)) for c in align()]
        )
        return [aligned, staged, pooled, whole]

    def words(self, encoding: RegionEncoding, classes: int) -> list[Stage]:
        """What a question costs."""
        count = encoding.boxes.shape[1]
        text, geometry = (
            self._text(classes),
            Geometry(original=self.size, resized=self.size, padded=self.size),
        )
        defaults = PRESETS[self.preset].defaults()
        classify, scores = self.measure(
            "classify", count, classes, lambda: self.head.classify(encoding, text)
        )

        def answer() -> Any:
            found: BoxScores = scores
            return box_detections(
                found,
                geometry,
                text.vocabulary,
                score_threshold=defaults["score_threshold"],
                iou_threshold=defaults["nms_iou_threshold"],
                max_detections=int(defaults["max_detections"]),
            )

        return [classify, self.measure("suppression", count, classes, answer)[0]]

    def _boxes(self, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(count)
        height, width = self.size
        sides = torch.tensor([width, height])
        low = torch.rand(count, 2, generator=generator) * sides * 0.7
        extent = (0.03 + 0.27 * torch.rand(count, 2, generator=generator)) * sides
        return torch.cat((low, low + extent), dim=1).to(self.device)

    def _text(self, classes: int) -> TextClassifier:
        vocabulary = Vocabulary(classes=tuple(VocabularyClass(name=f"class {i}") for i in range(classes)))
        dim = self.backbone.spec.embed_dim
        rows = F.normalize(torch.randn(classes, dim, generator=torch.Generator().manual_seed(1)), dim=-1)
        return TextClassifier(embeddings=rows.to(self.device), vocabulary=vocabulary, text_digest="")


def _backbone(arch: str) -> ClipBackbone:
    config = open_clip.get_model_config(f"{arch}-quickgelu")
    assert config is not None
    torch.manual_seed(0)
    model, tokenizer = build_open_clip(config)
    return from_open_clip(model, f"open_clip:{arch}", tokenizer=tokenizer)


@torch.inference_mode()
def run(bench: Bench, regions: list[int], classes: list[int], plain: int) -> list[Stage]:
    stages, features = bench.image()
    encodings = {}
    for count in regions:
        parts, encodings[count] = bench.regions(features, count, plain)
        stages += parts
    for count in classes:
        stages += bench.words(encodings[max(regions)], count)
    return stages


def show(stages: list[Stage], about: dict[str, Any]) -> None:
    height, width = about["size"]
    table = Table(title=f"RegionCLIP {about['arch']}, {height} x {width} (height, width), {about['preset']}")
    for column in ("stage", "regions", "classes", "wall ms", "median", "CPU ms", "GMAC", "floor ms"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for s in stages:
        table.add_row(
            s.name,
            f"{s.regions or ''}",
            f"{s.classes or ''}",
            f"{1e3 * s.wall_s:.1f}",
            f"{1e3 * s.wall_median_s:.1f}",
            f"{1e3 * s.cpu_s:.1f}",
            f"{s.gmac:.2f}",
            f"{1e3 * s.floor_s:.1f}",
        )
    console = Console()
    console.print(table)
    for count, ratio in about["plain_over_ours"].items():
        console.print(f"plain / ours, {count} regions: {ratio:.2f}")
    console.print(
        f"{about['threads']} threads, {about['matrix_gflop_per_s']:.0f} GFLOP/s in a large matrix product, "
        f"load {about['load_average'][0]:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", choices=["RN50", "RN50x4"], default="RN50")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), default=(800, 1067))
    parser.add_argument("--regions", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 10, 80, 1203])
    parser.add_argument("--preset", choices=list(PRESETS), default="lvis_zero_shot")
    parser.add_argument("--plain", type=int, default=100, help="most regions the plain way is asked for")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds after which no round is begun")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = (options.size[0], options.size[1])
    bench = Bench(options.arch, size, options.preset, options.device, options.rounds, options.budget)
    stages = run(bench, options.regions, options.classes, options.plain)
    took = {(s.name, s.regions): s.wall_s for s in stages}
    about = environment(options.threads, options.device) | {
        "arch": options.arch,
        "size": list(size),
        "preset": options.preset,
        "rounds": options.rounds,
        "matrix_gflop_per_s": bench.speed,
        "plain_over_ours": {
            n: took["plain regions", n] / took["regions", n]
            for n in options.regions
            if ("plain regions", n) in took
        },
    }
    show(stages, about)
    if options.out:
        options.out.write_text(json.dumps(about | {"stages": [asdict(s) for s in stages]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
