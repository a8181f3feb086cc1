"""What serving costs: answers a second and latency over the wire, beside the same model asked in a loop.

    python -m benchmarks.served --model stub --rounds 5 --seconds 10
    python -m benchmarks.served --model tiny --rounds 3 --seconds 60 --max-batch 4 --skip-classes

The server is a process of its own and the load is `ovp bench`'s; all variants take turns within a round, so
that a change of the machine's speed meets them alike. Ratios are of one round, and their median is told:

- callers enough for four full batches, over a loop of full batches in this process: pictures that are decoded
  already are prepared, looked at, asked and answered, one batch after the other;
- one caller who asks with 1,203 classes, over one who asks with 1 (p50).

The stub waits as for a device: 20 ms a pass and 5 ms an image.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

import ovperception
from benchmarks.fcclip import environment
from ovperception.vocabulary import Vocabulary
from serving.bench import run
from serving.bench_plan import Plan, requests_of
from serving.models import ServedModel
from serving.stub_model import StubModel

PASS_MS, IMAGE_MS = 20.0, 5.0
SERVER = """
import sys, threading
from benchmarks.served import make
from serving import Server, ServerConfig
name, most = sys.argv[1], int(sys.argv[2])
config = ServerConfig(port=0, max_batch=most, max_client_requests=256, max_requests=256, max_queue_s=600)
server = Server([make(name)], config)
server.start()
print(server.address, flush=True)
threading.Event().wait()
"""


def make(name: str) -> ServedModel:
    """A model by its name, or the stub."""
    if name == "stub":
        return StubModel(pass_ms=PASS_MS, image_ms=IMAGE_MS)
    model: ServedModel = ovperception.load(name)
    return model


@contextmanager
def served(name: str, max_batch: int) -> Iterator[str]:
    """The address of a server in a process of its own."""
    command = [sys.executable, "-c", SERVER, name, str(max_batch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def loop(model: ServedModel, plan: Plan, max_batch: int) -> float:
    """Images a second of full batches, one after the other, without a server."""
    request = requests_of(plan)[0]
    picture = cv2.cvtColor(
        cv2.imdecode(np.frombuffer(request.image.encoded, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )
    words = Vocabulary.from_words([entry.name for entry in request.vocabulary.inline.classes])
    for _ in model.learn(words) or ():
        pass

    def batch() -> None:
        looks = model.look([model.prepare(np.asarray(picture, np.uint8)) for _ in range(max_batch)])
        for scene in model.scenes(looks):
            scene.draft_detections(words, masks=plan.masks)()

    batch()
    images, began = 0, time.monotonic()
    while (spent_s := time.monotonic() - began) < plan.duration_s:
        batch()
        images += max_batch
    return images / spent_s


def measure(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """All rounds: of each variant what came of it."""
    most, model = arguments.max_batch, make(arguments.model)
    full = Plan(
        sizes=((arguments.side, arguments.side),),
        masks=False,
        concurrency=4 * most,
        duration_s=arguments.seconds,
        timeout_s=600,
    )
    one = replace(full, concurrency=1, classes=1)
    with served(arguments.model, most) as address:
        variants: dict[str, Callable[[], float]] = {
            "loop, images/s": lambda: loop(model, full, most),
            "served, images/s": lambda: run(full, address, max_batch=most)["result"]["goodput_per_s"],
        }
        if not arguments.skip_classes:
            variants["1 class, p50 ms"] = lambda: p50_ms(one, address)
            variants["1,203 classes, p50 ms"] = lambda: p50_ms(replace(one, classes=1203), address)
        found: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(arguments.rounds):
            for name, variant in variants.items():
                found[name].append(variant())
    return found


def p50_ms(plan: Plan, address: str) -> float:
    """The latency that half of the answers kept."""
    return float(run(plan, address)["result"]["latency_ms"]["p50"])


def ratios(found: dict[str, list[float]]) -> dict[str, list[float]]:
    """Of each comparison the ratio of every round."""
    pairs = {
        "served / loop (target 0.90)": ("served, images/s", "loop, images/s"),
        "1,203 classes / 1 class (target 1.15)": ("1,203 classes, p50 ms", "1 class, p50 ms"),
    }
    return {
        name: [a / b for a, b in zip(found[first], found[second], strict=True)]
        for name, (first, second) in pairs.items()
        if first in found
    }


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="stub", help="stub, or a model's name")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each variant in each round")
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=512, help="of the pictures")
    parser.add_argument("--skip-classes", action="store_true", help="leave out the comparison of classes")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    found = measure(arguments)
    compared = ratios(found)
    for name, values in {**found, **compared}.items():
        print(f"{name:40} {statistics.median(values):8.3f} ({min(values):.3f} to {max(values):.3f})")
    print("load average:", os.getloadavg())
    if arguments.out:
        report = {"about": environment(1, "cpu"), "found": found, "ratios": compared}
        arguments.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
