"""Where the time of FC-CLIP goes, stage by stage, beside the least its arithmetic can take.

    python -m benchmarks.fcclip --variant r50 --size 640 --rounds 5 --out fcclip.json

The weights are synthetic and by name, as in the parity tests, so anybody's run does the same work; with them
hardly a mask is "void" and none is small, which is the worst case for all that comes after the network.
CPU seconds are of all threads together, and moved far less than wall time by other work on the machine. The
floor of a stage is what its matrix products and convolutions would take at the speed of one large matrix
product, measured in the same run: CPU seconds again, wall seconds on a GPU.

    python -m benchmarks.fcclip --variant r50 --size 640 --rounds 5 --official FOLDER

times the official code beside ours instead, answer by answer; `benchmarks.official_fcclip` tells what FOLDER
holds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import official_fcclip
from heads.fcclip import FCCLIP
from heads.fcclip.convert import convert_state
from ovperception.backbones import ClipBackbone, build_open_clip, from_open_clip
from ovperception.images import Geometry
from ovperception.postprocess import instances, panoptic, semantic
from ovperception.preprocess import Preprocessing
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.text import TextClassifier
from ovperception.vocabulary import Vocabulary, VocabularyClass
from tests import synth

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "tests" / "data" / "fcclip"
# The literal values of the official configuration.
MEAN, STD = (122.7709383, 116.7460125, 104.09373615), (68.5005327, 66.6321579, 70.32316305)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    name: str
    wall_s: float
    wall_min_s: float
    wall_max_s: float
    cpu_s: float
    gflop: float
    floor_s: float


class Pipeline:
    """All stages, each a function of what the ones before it left in `self.state`."""

    def __init__(
        self,
        variant: str,
        size: int,
        original: tuple[int, int],
        vocabulary: Vocabulary,
        device: str,
        *,
        seen_words: tuple[str, ...] = (),
    ) -> None:
        entries = json.loads((MANIFESTS / f"manifest_{variant}.json").read_text())
        checkpoint = convert_state(synth.state_dict(entries), seen_words=seen_words)
        self.head = FCCLIP(checkpoint.config).eval().requires_grad_(False).to(device)
        self.head.load_state_dict(checkpoint.head_state)
        self.backbone = _backbone(checkpoint.backbone_arch, checkpoint.backbone_state).to(device)
        self.geometry = Geometry(original=original, resized=(size, size), padded=(size, size))
        self.images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
        self.vocabulary = vocabulary
        rows = text_rows(len(vocabulary.texts), checkpoint.config.embed_dim)
        self.text = TextClassifier(embeddings=rows.to(device), vocabulary=vocabulary, text_digest="")
        self.state: dict[str, Any] = {}

    def stages(self) -> dict[str, Callable[[], Any]]:
        head, backbone, state = self.head, self.backbone, self.state
        where = (self.geometry, self.vocabulary)
        return {
            "backbone": lambda: backbone.features(self.images),
            "pixel decoder": lambda: head.pixel_decoder(state["backbone"].maps),
            "mask decoder": lambda: head.mask_decoder(*state["pixel decoder"]),
            "embeddings": lambda: self._embed(),
            "classify": lambda: head.classify(state["embeddings"], self.text),
            "semantic": lambda: semantic(state["classify"], *where),
            "panoptic": lambda: panoptic(state["classify"], *where),
            "instances": lambda: instances(state["classify"], *where, things_only=True),
        }

    def _embed(self) -> Any:
        """The last part of `FCCLIP.encode`, whose first parts were timed on their own."""
        features, (mask_features, _) = self.state["backbone"], self.state["pixel decoder"]
        return self.head.embed(self.backbone, features, mask_features, *self.state["mask decoder"])


class Ours:
    """Our side of the comparison with the official code."""

    def __init__(self, variant: str, picture: NDArray[np.uint8], vocabulary: Vocabulary) -> None:
        size = (picture.shape[0], picture.shape[1])
        words = tuple(dict.fromkeys(vocabulary.texts))
        self.pipeline = Pipeline(variant, size[0], size, vocabulary, "cpu", seen_words=words)
        self.preprocessing = Preprocessing(mean=MEAN, std=STD)
        self.vocabulary = vocabulary
        self.picture = picture

    @torch.inference_mode()
    def answer(self) -> tuple[SemanticMap, PanopticMap, Detections]:
        pipeline = self.pipeline
        network, geometry = self.preprocessing.apply(self.picture)
        features = pipeline.backbone.features(network[None])
        scores = pipeline.head.classify(pipeline.head.encode(pipeline.backbone, features), pipeline.text)
        where = (geometry, self.vocabulary)
        return (
            semantic(scores, *where),
            panoptic(scores, *where),
            instances(scores, *where, things_only=True),
        )

    def plain(self, raw: tuple[SemanticMap, PanopticMap, Detections]) -> official_fcclip.Answer:
        labels, parts, objects = raw
        classes = np.full(len(parts.segments) + 1, -1)
        for segment in parts.segments:
            classes[segment.id] = segment.class_id
        masks = [mask.decode().ravel() for mask in objects.masks or ()]
        return official_fcclip.Answer(
            semantic=labels.labels,
            panoptic=classes[parts.ids],
            segments=len(parts.segments),
            masks=np.array(masks, np.bool_).reshape(len(masks), self.picture[..., 0].size),
            labels=objects.class_ids,
        )


def photograph(size: int) -> NDArray[np.uint8]:
    """(size, size, 3) the parity tests' picture, stretched."""
    with np.load(MANIFESTS / "input_s1.npz") as arrays:
        picture: NDArray[np.uint8] = cv2.resize(arrays["rgb"], (size, size))
    return picture


def numbered_classes(count: int) -> Vocabulary:
    """Three things to two kinds of stuff, as in COCO, one synonym each."""
    return Vocabulary(
        classes=tuple(VocabularyClass(name=f"class {i}", is_thing=i < count * 3 // 5) for i in range(count))
    )


def text_rows(count: int, dim: int) -> Tensor:
    """(count, dim) of unit length, in place of embedded words."""
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(1)), dim=-1)


def _backbone(arch: str, state: Mapping[str, Tensor]) -> ClipBackbone:
    config = open_clip.get_model_config(arch)
    assert config is not None
    model, tokenizer = build_open_clip(config)
    model.load_state_dict(dict(state), strict=False)
    return from_open_clip(model, f"open_clip:{arch}", tokenizer=tokenizer)


def matrix_speed(device: str, side: int = 2048, rounds: int = 5) -> float:
    """GFLOP/s of the best of a few large float32 matrix products; on a CPU, GFLOP per CPU second."""
    a, b = torch.randn(side, side, device=device), torch.randn(side, side, device=device)
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    best = float("inf")
    for _ in range(rounds):
        _synchronize(device)
        start = clock()
        a @ b
        _synchronize(device)
        best = min(best, clock() - start)
    return 2 * side**3 / best / 1e9


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


@torch.inference_mode()
def measure(pipeline: Pipeline, rounds: int, device: str) -> tuple[list[Stage], float]:
    """Every stage once to warm up and to count, then `rounds` times the whole pipeline."""
    gflop: dict[str, float] = {}
    for name, run in pipeline.stages().items():
        with FlopCounterMode(display=False) as counter:
            pipeline.state[name] = run()
        gflop[name] = counter.get_total_flops() / 1e9
    wall: dict[str, list[float]] = {name: [] for name in gflop}
    cpu: dict[str, list[float]] = {name: [] for name in gflop}
    speed = 0.0
    for _ in range(rounds):
        speed = max(speed, matrix_speed(device, rounds=2))
        for name, run in pipeline.stages().items():
            _synchronize(device)
            start, used = time.perf_counter(), time.process_time()
            pipeline.state[name] = run()
            _synchronize(device)
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - used)
    return [
        Stage(
            name=name,
            wall_s=statistics.median(times),
            wall_min_s=min(times),
            wall_max_s=max(times),
            cpu_s=statistics.median(cpu[name]),
            gflop=gflop[name],
            floor_s=gflop[name] / speed,
        )
        for name, times in wall.items()
    ], speed


def environment(threads: int, device: str) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "commit": commit,
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "load_average": os.getloadavg(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def show(stages: list[Stage], speed: float, about: Mapping[str, Any]) -> None:
    table = Table(title=f"FC-CLIP {about['variant']}, {about['size']} px, {about['classes']} classes")
    for column in ("stage", "wall ms", "spread", "CPU ms", "GFLOP", "floor ms"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for s in stages:
        table.add_row(
            s.name,
            f"{1e3 * s.wall_s:.0f}",
            f"{1e3 * s.wall_min_s:.0f}-{1e3 * s.wall_max_s:.0f}",
            f"{1e3 * s.cpu_s:.0f}",
            f"{s.gflop:.1f}",
            f"{1e3 * s.floor_s:.0f}",
        )
    table.add_section()
    table.add_row(
        "total",
        f"{1e3 * sum(s.wall_s for s in stages):.0f}",
        "",
        f"{1e3 * sum(s.cpu_s for s in stages):.0f}",
        f"{sum(s.gflop for s in stages):.1f}",
        f"{1e3 * sum(s.floor_s for s in stages):.0f}",
    )
    console = Console()
    console.print(table)
    console.print(
        f"{about['threads']} threads, {speed:.0f} GFLOP/s (a CPU second) in a large matrix product, "
        f"load {about['load_average'][0]:.1f}, {about['found']}"
    )


def compare(options: argparse.Namespace) -> None:
    """The official code beside ours; ends with an error if their answers differ."""
    picture = photograph(options.size)
    about = environment(options.threads, "cpu")
    comparison = official_fcclip.compare(
        options.official,
        options.variant,
        picture,
        text_rows,
        partial(Ours, options.variant, picture),
        rounds=options.rounds,
        threads=options.threads,
    )
    official_fcclip.show(
        comparison,
        f"FC-CLIP {options.variant}, {options.size} px, {options.threads} threads, "
        f"load {about['load_average'][0]:.1f}",
    )
    if options.out:
        about |= {"variant": options.variant, "size": options.size, "rounds": options.rounds}
        options.out.write_text(json.dumps(about | comparison.to_dict(), indent=2) + "\n")
    short = [task for task, least in official_fcclip.LEAST.items() if comparison.agreement[task] < least]
    if short:
        raise SystemExit(f"the answers differ: {', '.join(short)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", choices=["r50", "convnext_large"], default="r50")
    parser.add_argument("--size", type=int, default=640, help="side of the network input, a multiple of 32")
    parser.add_argument("--output-size", type=int, nargs=2, metavar=("H", "W"), help="of the presented image")
    parser.add_argument("--classes", type=int, default=133)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--official", type=Path, metavar="FOLDER", help="time the official code beside ours")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.official:
        compare(options)
        return
    original = tuple(options.output_size or (options.size, options.size))
    vocabulary = numbered_classes(options.classes)
    pipeline = Pipeline(options.variant, options.size, original, vocabulary, options.device)
    stages, speed = measure(pipeline, options.rounds, options.device)
    about = environment(options.threads, options.device) | {
        "variant": options.variant,
        "size": options.size,
        "output_size": list(original),
        "classes": options.classes,
        "rounds": options.rounds,
        "matrix_gflop_per_s": speed,
        "found": f"{len(pipeline.state['panoptic'].segments)} segments, "
        f"{len(pipeline.state['instances'].scores)} instances",
    }
    show(stages, speed, about)
    if options.out:
        options.out.write_text(json.dumps(about | {"stages": [asdict(s) for s in stages]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
