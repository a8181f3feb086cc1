"""Where the time of LSeg goes, and what ten thousand words cost in time and memory.

    python -m benchmarks.lseg --network tiny --size 640 640 --words 10 1000 10000 --out lseg.json

The weights are random and so are the words: neither changes the work. `tiny` is the decoder of the recipe
`tiny-lseg` on its CLIP, `published` the network of Li et al. with its own ViT-L/16 trunk. Three things are
told:

- the time of each stage of a first answer: trunk, decoder, words, map;
- how answers of 10 to 10,000 words grow, each beside its peer in the same run, which makes every logit of the
  picture before it compares them (only up to `--peer-words`, because it takes that much memory), with the
  largest growth of the process while each ran;
- what new words on a kept scene cost, over a first answer (backbone, head and the same words): by the clock,
  and by the time of the processor, which is fair where other programs run.

Variants take turns, round by round; times are medians, with the range in brackets.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.fcclip import environment
from heads.lseg import LSeg
from heads.lseg.config import vit_large_16_384
from ovperception.backbones import ClipBackbone, Features, build_open_clip, from_open_clip
from ovperception.head import PixelEncoding
from ovperception.images import Geometry
from ovperception.postprocess import semantic
from ovperception.text import TextClassifier
from ovperception.training.contrastive import TINY_CLIP
from ovperception.training.recipes import tiny_lseg
from ovperception.vocabulary import Vocabulary, VocabularyClass

_PAGE = 4096


@dataclass(slots=True)
class Timing:
    """One variant: seconds of each round, and the largest growth of the process in bytes."""

    name: str
    words: int
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    grown: int = 0

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def median_cpu_s(self) -> float:
        return statistics.median(self.cpu_seconds)


class Bench:
    """One picture, one head; words as asked."""

    def __init__(self, network: str, size: tuple[int, int]) -> None:
        torch.manual_seed(0)
        self.backbone = _backbone(network)
        own = {"trunk": asdict(vit_large_16_384())}
        settings = dict(tiny_lseg().settings) if network == "tiny" else own
        self.head = LSeg.from_settings(settings, self.backbone.spec).eval().requires_grad_(False)
        self.images = torch.randn(1, 3, *size)
        self.geometry = Geometry(original=size, resized=size, padded=size)

    def features(self) -> Features:
        size = (int(self.images.shape[2]), int(self.images.shape[3]))
        if self.head.trunk is not None:
            return Features(maps={}, image_size=size, images=self.images)
        return self.backbone.features(self.images)

    def answer(self, encoding: PixelEncoding, text: TextClassifier) -> NDArray[np.int32]:
        return semantic(self.head.classify(encoding, text), self.geometry, text.vocabulary).labels

    def peer(self, encoding: PixelEncoding, text: TextClassifier) -> NDArray[np.int64]:
        """The same, with every logit of every pixel made first."""
        logits = self.head.classify(encoding, text).logits[None]
        size = self.geometry.original
        labels: Tensor = F.interpolate(logits, size=size, mode="bilinear", align_corners=True)[0].argmax(0)
        return labels.numpy()

    def text(self, words: int) -> TextClassifier:
        vocabulary = Vocabulary(classes=tuple(VocabularyClass(name=f"class {i}") for i in range(words)))
        rows = torch.randn(
            words, self.backbone.spec.embed_dim, generator=torch.Generator().manual_seed(words)
        )
        return TextClassifier(embeddings=F.normalize(rows, dim=1), vocabulary=vocabulary, text_digest="")


def _backbone(network: str) -> ClipBackbone:
    config: dict[str, Any] = dict(TINY_CLIP)
    if network == "published":
        config |= {"embed_dim": 512, "image_tower": False}
        del config["pyramid"]
    model, tokenizer = build_open_clip(config)
    return from_open_clip(model, "open_clip:random", tokenizer=tokenizer, config=config)


@contextlib.contextmanager
def watched(timing: Timing) -> Iterator[None]:
    """The largest growth of the process meanwhile, looked at every 2 ms."""
    before, over = _resident(), threading.Event()
    largest = before

    def watch() -> None:
        nonlocal largest
        while not over.wait(0.002):
            largest = max(largest, _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        timing.grown = max(timing.grown, largest - before)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def take_turns(variants: list[tuple[Timing, Callable[[], object]]], rounds: int) -> None:
    """Each once to warm up and to see its memory, then each in turn."""
    for timing, call in variants:
        with watched(timing):
            call()
    for _ in range(rounds):
        for timing, call in variants:
            start, busy = time.perf_counter(), time.process_time()
            call()
            timing.seconds.append(time.perf_counter() - start)
            timing.cpu_seconds.append(time.process_time() - busy)


@torch.inference_mode()
def run(bench: Bench, words: list[int], peer_words: int, rounds: int) -> tuple[list[Timing], list[Timing]]:
    """The stages of a first answer with the fewest words, and the answers of a kept scene."""
    features, few = bench.features(), bench.text(min(words))
    encoding = bench.head.encode(bench.backbone, features)
    stages: list[tuple[Timing, Callable[[], object]]] = [
        (Timing("backbone", 0), bench.features),
        (Timing("head", 0), lambda: bench.head.encode(bench.backbone, features)),
        (Timing("classify", len(few)), lambda: bench.head.classify(encoding, few)),
        (Timing("map", len(few)), lambda: bench.answer(encoding, few)),
    ]
    answers: list[tuple[Timing, Callable[[], object]]] = []
    for count in words:
        text = bench.text(count)
        answers.append((Timing("kept scene", count), lambda text=text: bench.answer(encoding, text)))  # type: ignore[misc]
        if count <= peer_words:
            answers.append((Timing("all logits", count), lambda text=text: bench.peer(encoding, text)))  # type: ignore[misc]
            assert np.mean(bench.answer(encoding, text) == bench.peer(encoding, text)) > 0.999
    take_turns(stages, rounds)
    take_turns(answers, rounds)
    return [t for t, _ in stages], [t for t, _ in answers]


def show(stages: list[Timing], answers: list[Timing], about: dict[str, Any]) -> None:
    height, width = about["size"]
    table = Table(title=f"LSeg, {about['network']}, {height} x {width} (height, width)")
    for column in ("stage", "words", "ms", "range", "CPU ms", "grown MB"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for timing in (*stages, *answers):
        low, high = min(timing.seconds), max(timing.seconds)
        table.add_row(
            timing.name,
            f"{timing.words or ''}",
            f"{1e3 * timing.median_s:.1f}",
            f"{1e3 * low:.1f}-{1e3 * high:.1f}",
            f"{1e3 * timing.median_cpu_s:.1f}",
            f"{timing.grown / 1e6:.0f}",
        )
    console = Console()
    console.print(table)
    for words, (clock, cpu) in about["new_words_over_first"].items():
        console.print(f"{words} new words / first answer: {clock:.3f}, of CPU time {cpu:.3f}")
    for words, ratio in about["peer_over_ours"].items():
        console.print(f"all logits / ours, {words} words: {ratio:.2f}")
    console.print(f"{about['threads']} threads, load {about['load_average'][0]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=["tiny", "published"], default="tiny")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), default=(640, 640))
    parser.add_argument("--words", type=int, nargs="+", default=[10, 150, 1000, 10_000])
    parser.add_argument("--peer-words", type=int, default=1000, help="most words the peer is asked for")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = (options.size[0], options.size[1])
    stages, answers = run(Bench(options.network, size), options.words, options.peer_words, options.rounds)
    looked = [t for t in stages if t.name in ("backbone", "head")]
    kept = {t.words: t for t in answers if t.name == "kept scene"}
    seen = [sum(t.median_s for t in looked), sum(t.median_cpu_s for t in looked)]
    about = environment(options.threads, "cpu") | {
        "network": options.network,
        "size": list(size),
        "rounds": options.rounds,
        "new_words_over_first": {
            n: [t.median_s / (seen[0] + t.median_s), t.median_cpu_s / (seen[1] + t.median_cpu_s)]
            for n, t in kept.items()
        },
        "peer_over_ours": {
            t.words: t.median_s / kept[t.words].median_s for t in answers if t.name == "all logits"
        },
    }
    show(stages, answers, about)
    if options.out:
        figures = {"stages": [asdict(t) for t in stages], "answers": [asdict(t) for t in answers]}
        options.out.write_text(json.dumps(about | figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
