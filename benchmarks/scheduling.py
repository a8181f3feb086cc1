"""How well the server's queue uses the device: a stub of a model with a fixed cost a pass, and no wire.

    python -m benchmarks.scheduling --rounds 5 --seconds 4 --out scheduling.json

What is measured goes through admission, decoding, the queue and the model's thread as served calls do. The
variants of a comparison take turns, round by round, so that a change of the machine's speed meets them alike:

- 16 clients with a vocabulary each, over 16 clients with the same one (calls a second);
- pictures of four shapes, over pictures of one, of as many pixels (calls a second);
- three times as many calls as can be answered, over as many as can: answered in time a second, until the last
  answer; how long a refusal takes; memory before and after. The peak is what a closed loop of six full
  batches gets out of the device, and how full its batches were is told: well below one it was no peak;
- calls whose callers leave at random times: what is still held when all have ended.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import cv2
import grpc
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.fcclip import environment
from ovperception.errors import DeadlineExceeded, ResourceExhausted
from ovperception.structures import Detections
from ovperception.v1.image_pb2 import Image
from ovperception.v1.vocabulary_pb2 import VocabularyInfo
from ovperception.vocabulary import Vocabulary
from serving.config import ServerConfig
from serving.engine import Engine
from serving.models import ModelSet, ServedModel, ServedScene
from serving.presence import CallCancelled
from serving.stub_model import StubModel

CLIENTS = 16
SHAPES = ((256, 256), (192, 320), (320, 192), (128, 512))  # of 65,536 or 61,440 pixels
ONE_SHAPE = SHAPES[:1]


class Context:
    """A caller without a wire."""

    def __init__(self, client: int, timeout_s: float) -> None:
        self._client = client
        self._deadline_s = time.monotonic() + timeout_s
        self._callbacks: list[Callable[[], None]] = []
        self._active = True

    def time_remaining(self) -> float:
        """Seconds it still waits."""
        return self._deadline_s - time.monotonic()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Be told when it leaves."""
        self._callbacks.append(callback)
        return True

    def is_active(self) -> bool:
        """Whether it waits."""
        return self._active

    def peer(self) -> str:
        """Each client is a machine."""
        return f"ipv4:10.0.0.{self._client}:1"

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Nothing."""
        return ()

    def end(self) -> None:
        """Let go of what was to be told, as gRPC does when a call has ended."""
        self._callbacks = []

    def leave(self) -> None:
        """Stop waiting."""
        self._active = False
        for callback in self._callbacks:
            callback()


@dataclass(kw_only=True)
class Outcome:
    """What came of calls; seconds each."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    late: int = 0
    left: int = 0
    seconds: float = 0.0

    @property
    def goodput(self) -> float:
        """Answers a second."""
        return len(self.answered) / self.seconds


@dataclass(frozen=True)
class _Detection:
    model: ServedModel
    words: Vocabulary

    def ask(self, scene: ServedScene) -> Callable[[], Detections]:
        return scene.draft_detections(self.words, masks=False)

    def fits(self, size: tuple[int, int]) -> None:
        """Any picture will do."""


class Load:
    """Calls on an engine.

    Args:
        engine: What is measured.
        shapes: (height, width) of the pictures, in turn.
        vocabularies: How many different ones, in turn.
    """

    def __init__(self, engine: Engine, shapes: Sequence[tuple[int, int]], vocabularies: int) -> None:
        self.engine = engine
        self._model = engine.models.get("")
        self._images = [Image(encoded=_jpeg(shape)) for shape in shapes]
        self._words = [
            Vocabulary.from_words([f"thing {v} {i}" for i in range(16)]) for v in range(vocabularies)
        ]

    def call(self, number: int, context: Context, outcome: Outcome) -> None:
        """One call, noted in `outcome`."""
        image, words = self._images[number % len(self._images)], self._words[number % len(self._words)]
        begun = time.monotonic()
        try:
            with self.engine.call(self._model, "", 10_000, cast(grpc.ServicerContext, context)) as call:
                call.ask_about(image, [_Detection(self._model, words)])[0]()
                call.info(VocabularyInfo(name=words.name, content_hash=words.content_hash))
            outcome.answered.append(time.monotonic() - begun)
        except ResourceExhausted:
            outcome.refused.append(time.monotonic() - begun)
        except DeadlineExceeded:
            outcome.late += 1
        except CallCancelled:
            outcome.left += 1
        finally:
            context.end()

    def closed(self, clients: int, seconds: float) -> Outcome:
        """`clients` that call again as soon as they are answered."""
        outcome, begun = Outcome(), time.monotonic()

        def client(number: int) -> None:
            while time.monotonic() - begun < seconds:
                self.call(number, Context(number, 60.0), outcome)

        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(client, range(clients)))
        outcome.seconds = time.monotonic() - begun
        return outcome

    def open(self, rate: float, seconds: float, timeout_s: float) -> Outcome:
        """Calls that come at a rate, whatever becomes of them."""
        outcome, begun = Outcome(), time.monotonic()
        count = int(rate * seconds)
        with ThreadPoolExecutor(256) as pool:
            for number in range(count):
                time.sleep(max(0.0, begun + number / rate - time.monotonic()))
                pool.submit(self.call, number, Context(number % CLIENTS, timeout_s), outcome)
        outcome.seconds = time.monotonic() - begun  # what still waited counts, and so does the time it took
        return outcome

    def storm(self, count: int) -> Outcome:
        """`count` calls, of which many leave at a random time."""
        outcome, rng = Outcome(), random.Random(0)
        timers = _Leaving()

        def one(number: int) -> None:
            context = Context(number % CLIENTS, 60.0)
            if rng.random() < 0.7:
                timers.later(context, rng.random() * 0.05)
            self.call(number, context, outcome)

        begun = time.monotonic()
        with ThreadPoolExecutor(48) as pool:
            list(pool.map(one, range(count)))
        outcome.seconds = time.monotonic() - begun
        timers.end()
        return outcome


class _Leaving:
    """Lets callers leave when their time has come."""

    def __init__(self) -> None:
        self._due: list[tuple[float, Context]] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def later(self, context: Context, delay_s: float) -> None:
        with self._lock:
            self._due.append((time.monotonic() + delay_s, context))

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.001):
            with self._lock:
                now = time.monotonic()
                leaving = [context for at, context in self._due if at <= now]
                self._due = [pair for pair in self._due if pair[0] > now]
            for context in leaving:
                context.leave()


def _jpeg(shape: tuple[int, int]) -> bytes:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (shape[0] // 16, shape[1] // 16, 3), np.uint8)
    picture = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return bytes(cv2.imencode(".jpg", picture)[1])


def compare(loads: dict[str, Load], clients: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Goodput of each load, round by round."""
    found: dict[str, list[float]] = {name: [] for name in loads}
    for _ in range(rounds):
        for name, load in loads.items():
            found[name].append(load.closed(clients, seconds).goodput)
    return found


def overload(load: Load, rounds: int, seconds: float) -> dict[str, Any]:
    """Peak, three times the peak, how long refusals take, and memory."""
    peaks, goodputs, fills, refusals, late = [], [], [], [], 0
    counters, most = load.engine.worker.counters, load.engine.config.max_batch
    callers = 6 * most
    load.open(3 * load.closed(callers, seconds).goodput, seconds, timeout_s=2.0)  # all memory it ever takes
    resident = [_resident_kib()]
    for _ in range(rounds):
        passes, images = counters.passes, counters.images
        peaks.append(load.closed(callers, seconds).goodput)
        fills.append((counters.images - images) / (counters.passes - passes) / most)
        outcome = load.open(3 * peaks[-1], seconds, timeout_s=2.0)
        goodputs.append(outcome.goodput)
        refusals += outcome.refused
        late += outcome.late
        resident.append(_resident_kib())
    refusals.sort()
    return {
        "peak": peaks,
        "at 3 x peak": goodputs,
        "batch_fill": fills,
        "refused": len(refusals),
        "late": late,
        "refusal_p50_ms": 1e3 * refusals[len(refusals) // 2],
        "refusal_p99_ms": 1e3 * refusals[int(0.99 * len(refusals))],
        "resident_kib": resident,
        "grown_kib": resident[-1] - resident[0],
    }


def _resident_kib() -> int:
    """Memory now; the peak that `getrusage` tells could only grow."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def main() -> None:
    """Measure, print a table, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each variant in each round")
    parser.add_argument("--calls", type=int, default=10_000, help="of the storm")
    parser.add_argument("--pass-ms", type=float, default=20.0, help="what a pass costs")
    parser.add_argument("--image-ms", type=float, default=5.0, help="what each image of it adds")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    model = StubModel(pass_ms=arguments.pass_ms, image_ms=arguments.image_ms)
    engine = Engine(ModelSet([model]), ServerConfig(max_requests=64))
    engine.warm_up()
    one, many = Load(engine, ONE_SHAPE, 1), Load(engine, ONE_SHAPE, CLIENTS)
    rounds, seconds = arguments.rounds, arguments.seconds
    words = compare({"one vocabulary": one, "16 vocabularies": many}, CLIENTS, rounds, seconds)
    shapes = compare({"one shape": one, "four shapes": Load(engine, SHAPES, 1)}, 32, rounds, seconds)
    pressed = overload(one, rounds, seconds)
    storm = one.storm(arguments.calls)
    held = {**engine.admission.used, **engine.worker.depths()}
    engine.close()
    rates = {**words, **shapes, "peak": pressed["peak"], "at 3 x peak": pressed["at 3 x peak"]}
    ratios = {
        "16 vocabularies / one": _ratio(words["16 vocabularies"], words["one vocabulary"]),
        "four shapes / one": _ratio(shapes["four shapes"], shapes["one shape"]),
        "3 x peak / peak": _ratio(pressed["at 3 x peak"], pressed["peak"]),
    }
    table = Table("what", "median", "min", "max", title="calls answered a second")
    for name, values in rates.items():
        table.add_row(name, f"{statistics.median(values):.1f}", f"{min(values):.1f}", f"{max(values):.1f}")
    for name, value in ratios.items():
        table.add_row(name, f"{value:.3f}", "", "")
    console = Console()
    console.print(table)
    console.print({key: value for key, value in pressed.items() if key not in rates})
    console.print({"answered": len(storm.answered), "left": storm.left, "refused": len(storm.refused)})
    console.print("held after the storm:", held)
    console.print("load average:", os.getloadavg())
    if arguments.out:
        report = {"about": environment(1, "cpu"), "rates": rates, "ratios": ratios, "overload": pressed}
        report |= {"storm": asdict(storm), "held": held}
        arguments.out.write_text(json.dumps(report, indent=1))


def _ratio(first: Sequence[float], second: Sequence[float]) -> float:
    return statistics.median(first) / statistics.median(second)


if __name__ == "__main__":
    main()
