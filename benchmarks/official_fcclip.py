"""The official FC-CLIP code beside ours: same weights, same words, same picture, in turns.

    mkdir official && cd official
    git clone https://github.com/bytedance/fc-clip
    git clone https://github.com/facebookresearch/detectron2
    pip install --no-deps --target site fvcore iopath omegaconf antlr4-python3-runtime==4.9.3 \
        yacs termcolor tabulate cloudpickle portalocker
    cd .. && python -m benchmarks.fcclip --official official

Nothing is compiled and no line of theirs is changed. Three things are put in their way before the import: an
empty `detectron2._C`, which their model never calls; an empty `MultiScaleDeformableAttention`, on whose
failure their code falls back to its own pure torch version; and an `open_clip` that builds the architecture
without downloading weights (with QuickGELU where the weights would have been OpenAI's). Their words are
embedded once and kept; here both sides are given the same random rows instead.

Each side lives in a process of its own and waits while the other answers, so that memory is told apart and
neither meets the other's patches. An answer is all three tasks, from the uint8 picture on. With these weights
ConvNeXt-L calls every mask void, and RN50 none: the least and the most that panoptic can cost.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing
import os
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ovperception.vocabulary import Vocabulary, VocabularyClass
from tests import synth

__all__ = ["Answer", "Official", "Side", "agreement", "compare", "show"]

_CONFIGS = "configs/coco/panoptic-segmentation/fcclip"
_CONFIG = {
    "r50": "fcclip_convnext_large_eval_ade20k_r50.yaml",
    "convnext_large": "fcclip_convnext_large_eval_coco.yaml",
}
_DATASET = "openvocab_coco_2017_val_panoptic_with_sem_seg"

LEAST = {"semantic": 0.99, "panoptic": 0.99, "instances": 0.95}
"""What must agree; float32 sums in another order turn a few cells of the hard attention masks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What both sides can be compared by; masks are flat."""

    semantic: NDArray[np.integer[Any]]  # (H, W) class
    panoptic: NDArray[np.integer[Any]]  # (H, W) class, -1 for void
    segments: int
    masks: NDArray[np.bool_]  # (N, H W), none empty
    labels: NDArray[np.integer[Any]]  # (N,)


class Side(Protocol):
    """One implementation, loaded."""

    vocabulary: Vocabulary

    def answer(self) -> Any: ...

    def plain(self, raw: Any) -> Answer: ...


class Official:
    """The official code on the CPU."""

    def __init__(
        self,
        folder: Path,
        variant: str,
        picture: NDArray[np.uint8],
        rows: Rows,
        *,
        settings: Sequence[object] = (),
    ) -> None:
        warnings.simplefilter("ignore")  # of what torch deprecates
        logging.disable(logging.WARNING)
        folder = folder.resolve()
        sys.path[:0] = [str(folder / "fc-clip"), str(folder / "detectron2")]
        sys.path.append(str(folder / "site"))
        for name in ("detectron2._C", "MultiScaleDeformableAttention"):
            sys.modules[name] = types.ModuleType(name)
        with _standing_in(folder / "fc-clip"):
            self.model = _build(variant, settings)
        synth.fill(self.model)
        metadata = self.model.test_metadata
        things = set(metadata.thing_dataset_id_to_contiguous_id.values())
        names = [name.replace(", ", ",").split(",") for name in metadata.stuff_classes]
        self.vocabulary = Vocabulary(
            classes=tuple(
                VocabularyClass(name=synonyms[0], synonyms=tuple(synonyms), is_thing=index in things)
                for index, synonyms in enumerate(names)
            )
        )
        self.model.test_text_classifier = rows(
            len(self.vocabulary.texts), self.model.void_embedding.embedding_dim
        )
        height, width = picture.shape[:2]
        image = torch.from_numpy(picture).permute(2, 0, 1).contiguous()
        self.batch = [{"image": image, "height": height, "width": width}]

    @torch.no_grad()
    def answer(self) -> Any:
        return self.model(self.batch)[0]

    def plain(self, raw: Any) -> Answer:
        ids, segments = raw["panoptic_seg"]
        classes = np.full(len(segments) + 1, -1)
        for segment in segments:
            classes[segment["id"]] = segment["category_id"]
        found = raw["instances"]
        masks = found.pred_masks.flatten(1).numpy() > 0
        kept = masks.any(axis=1)
        return Answer(
            semantic=raw["sem_seg"].argmax(dim=0).numpy(),
            panoptic=classes[ids.numpy()],
            segments=len(segments),
            masks=masks[kept],
            labels=found.pred_classes.numpy()[kept],
        )


Rows = Callable[[int, int], Tensor]
"""(T, D) embeddings in place of embedded words."""


@contextmanager
def _standing_in(folder: Path) -> Iterator[None]:
    """Their repository is the working directory, and open_clip downloads nothing."""
    import open_clip

    genuine, before = open_clip.create_model_and_transforms, Path.cwd()

    def without_weights(name: str, pretrained: str) -> Any:
        return genuine(name, pretrained=None, force_quick_gelu=pretrained == "openai")

    open_clip.create_model_and_transforms = without_weights
    os.chdir(folder)
    try:
        yield
    finally:
        open_clip.create_model_and_transforms = genuine
        os.chdir(before)


def _build(variant: str, settings: Sequence[object]) -> Any:
    import fcclip
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model
    from detectron2.projects.deeplab import add_deeplab_config

    config = get_cfg()
    add_deeplab_config(config)
    fcclip.add_maskformer2_config(config)
    fcclip.add_fcclip_config(config)
    config.merge_from_file(f"{_CONFIGS}/{_CONFIG[variant]}")
    config.merge_from_list(["MODEL.DEVICE", "cpu", "DATASETS.TEST", (_DATASET,), *settings])
    return build_model(config).eval().requires_grad_(False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    wall_s: float
    cpu_s: float


class _Process:
    """A side in a process of its own."""

    def __init__(self, build: Callable[[], Side], threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, threads), daemon=True)
        self._process.start()
        theirs.close()
        self.vocabulary: Vocabulary = self._receive()
        self.answer: Answer = self._ask("warm up")

    def cost(self) -> Cost:
        cost: Cost = self._ask("answer")
        return cost

    def peak_gib(self) -> float:
        """Most memory held at once since the warm-up began, weights included."""
        peak: float = self._ask("peak")
        return peak

    def end(self) -> None:
        self._pipe.send("end")
        self._process.join()

    def _ask(self, order: str) -> Any:
        self._pipe.send(order)
        return self._receive()

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise SystemExit("a side ended early; what it said is above") from None


def _serve(pipe: Connection, build: Callable[[], Side], threads: int) -> None:
    torch.set_num_threads(threads)
    side = build()
    pipe.send(side.vocabulary)
    while (order := pipe.recv()) != "end":
        if order == "warm up":
            _forget_peak()
            pipe.send(side.plain(side.answer()))
            _forget_peak()
        elif order == "answer":
            begun, used = time.perf_counter(), time.process_time()
            raw = side.answer()
            cost = Cost(wall_s=time.perf_counter() - begun, cpu_s=time.process_time() - used)
            del raw
            pipe.send(cost)
        else:
            pipe.send(_peak_gib())


def _forget_peak() -> None:
    """Give back what building left over, and begin to watch the peak anew (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _peak_gib() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**20 for line in status if line.startswith("VmHWM"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Costs of every round, by side; and what share of the answers agrees."""

    costs: Mapping[str, list[Cost]]
    peak_gib: Mapping[str, float]
    agreement: Mapping[str, float]
    segments: Mapping[str, int]
    instances: Mapping[str, int]

    def median(self, side: str, field: str) -> float:
        return statistics.median(getattr(cost, field) for cost in self.costs[side])

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        sides = {
            side: {
                "wall_s": [cost.wall_s for cost in costs],
                "cpu_s": [cost.cpu_s for cost in costs],
                "peak_gib": self.peak_gib[side],
                "segments": self.segments[side],
                "instances": self.instances[side],
            }
            for side, costs in self.costs.items()
        }
        ratios = {
            field: self.median("ours", field) / self.median("official", field)
            for field in ("wall_s", "cpu_s")
        }
        ratios["peak_gib"] = self.peak_gib["ours"] / self.peak_gib["official"]
        return sides | {"ratios": ratios, "agreement": dict(self.agreement)}


def compare(
    folder: Path,
    variant: str,
    picture: NDArray[np.uint8],
    rows: Rows,
    ours: Callable[[Vocabulary], Side],
    *,
    rounds: int,
    threads: int,
) -> Comparison:
    """Answers in turns, after one of each that is not timed but compared.

    Args:
        folder: See the head of this file.
        variant: "r50" or "convnext_large".
        picture: (H, W, 3) uint8 RGB; both sides use it at its size.
        rows: The words' embeddings.
        ours: Builds our side for the official vocabulary; must be picklable.
        rounds: How often each side answers.
        threads: Of each side.
    """
    for name in ("fc-clip", "detectron2", "site"):
        if not (folder / name).is_dir():
            raise SystemExit(f"{folder} holds no {name}; the head of {__file__} tells how to get it")
    official = _Process(partial(Official, folder, variant, picture, rows), threads)
    sides = {"official": official, "ours": _Process(partial(ours, official.vocabulary), threads)}
    costs: dict[str, list[Cost]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            costs[name].append(side.cost())
    comparison = Comparison(
        costs=costs,
        peak_gib={name: side.peak_gib() for name, side in sides.items()},
        agreement=agreement(official.answer, sides["ours"].answer),
        segments={name: side.answer.segments for name, side in sides.items()},
        instances={name: len(side.answer.labels) for name, side in sides.items()},
    )
    for side in sides.values():
        side.end()
    return comparison


def agreement(official: Answer, ours: Answer) -> dict[str, float]:
    """Shares, 0-1: of pixels with the same class; of official instances that ours have too.

    The same instance is of the same class, and its mask overlaps by an IoU of 0.9.
    """
    theirs, found = (answer.masks.astype(np.float32) for answer in (official, ours))
    common = theirs @ found.T
    union = theirs.sum(axis=1)[:, None] + found.sum(axis=1) - common
    same = (common >= 0.9 * union) & (official.labels[:, None] == ours.labels)
    return {
        "semantic": float((official.semantic == ours.semantic).mean()),
        "panoptic": float((official.panoptic == ours.panoptic).mean()),
        "instances": float(same.any(axis=1).mean()) if len(theirs) else float(len(found) == 0),
    }


def show(comparison: Comparison, title: str) -> None:
    """Print both sides, their ratio, and how far they agree."""
    table = Table(title=title)
    for column in ("all three tasks", "wall s", "spread", "CPU s", "spread", "peak GiB"):
        table.add_column(column, justify="left" if column == "all three tasks" else "right")
    for name, costs in comparison.costs.items():
        cells = []
        for field in ("wall_s", "cpu_s"):
            values = [getattr(cost, field) for cost in costs]
            cells += [f"{statistics.median(values):.2f}", f"{min(values):.2f}-{max(values):.2f}"]
        table.add_row(name, *cells, f"{comparison.peak_gib[name]:.2f}")
    table.add_section()
    ratios = comparison.to_dict()["ratios"]
    table.add_row(
        "ours / official",
        f"{ratios['wall_s']:.2f}",
        "",
        f"{ratios['cpu_s']:.2f}",
        "",
        f"{ratios['peak_gib']:.2f}",
    )
    console = Console()
    console.print(table)
    agreed = ", ".join(f"{task} {100 * share:.2f} %" for task, share in comparison.agreement.items())
    found = ", ".join(
        f"{name} {comparison.segments[name]} segments and {comparison.instances[name]} instances"
        for name in comparison.costs
    )
    console.print(f"agreement: {agreed}; found: {found}")
