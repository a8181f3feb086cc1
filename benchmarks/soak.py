"""Minutes of mixed, hostile traffic on one server, and what it leaves behind: memory, files, threads, slots.

    python benchmarks/soak.py --minutes 10 --out out/bench/soak.json

Beside good calls with pictures of four sizes, whose answers are checked by their words, come fuzzed messages,
decompression bombs, truncated pictures, calls that are cancelled or have no time, streams that are dropped,
and readers who do not read. Fails (status 1) on a wrong answer, a bug's answer, a slot that is not given back
or growth beyond the limits. The model is a stub, so that what is measured is the server.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import random
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np

from ovperception.v1 import image_pb2 as im
from ovperception.v1 import perceive_pb2 as pp
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.v1.vocabulary_pb2 import Vocabulary, VocabularySpec
from serving import Server, ServerConfig
from serving.memory import allocator_trim
from serving.stub_model import StubModel, expected_score

DETECT = "/ovperception.v1.PerceptionService/DetectObjects"
SIZES = ((96, 128), (240, 320), (480, 640), (720, 1280))  # (height, width)
SAMPLE_S = 5.0
MAX_GROWTH_MB, MAX_GROWTH_OF_FILES, MAX_GROWTH_OF_THREADS = 64, 8, 8


class Soak:
    """One client of every bad habit.

    Args:
        address: Of the server.
        seed: Of all that is random.
    """

    def __init__(self, address: str, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self._random = random.Random(seed)
        options = [("grpc.max_receive_message_length", 32 * 2**20), ("ovp.channel", seed)]
        self._channel = grpc.insecure_channel(address, options)
        self._stub = PerceptionServiceStub(self._channel)
        self._jpegs = [jpeg_of(size, seed) for size in SIZES]
        self._jpeg = self._jpegs[0]
        self._turn = itertools.count()

    def run(self, until_s: float) -> None:
        """Misbehave until `until_s` on the monotonic clock."""
        habits: list[Callable[[], None]] = [
            *[self.good] * 6,
            self.fuzzed,
            self.bomb,
            self.truncated,
            self.cancelled,
            self.hurried,
            self.dropped_stream,
            self.slow_reader,
        ]
        while time.monotonic() < until_s:
            habit = self._random.choice(habits)
            try:
                habit()
            except grpc.RpcError as error:
                self._note(habit.__name__, error.code().name, error.details() or "")
            except Exception as error:
                self.problems.append(f"{habit.__name__}: {type(error).__name__}: {error}")
        self._channel.close()

    def _note(self, habit: str, code: str, details: str = "") -> None:
        self.counts[f"{habit} {code}"] += 1
        if code in {"INTERNAL", "UNKNOWN"}:
            self.problems.append(f"{habit}: {code}: {details}")

    def _request(self, *words: str, image: bytes | None = None) -> pb.DetectObjectsRequest:
        inline = Vocabulary(classes=[{"name": word} for word in words or ("cat",)])
        picture = im.Image(encoded=self._jpeg if image is None else image)
        return pb.DetectObjectsRequest(image=picture, vocabulary=VocabularySpec(inline=inline))

    def good(self) -> None:
        words = [f"word {self._random.randrange(1000)}.{i}" for i in range(self._random.randint(1, 8))]
        image = self._random.choice(self._jpegs)
        reply = self._stub.DetectObjects(self._request(*words, image=image), timeout=60)
        scores = [round(found.score, 5) for found in reply.objects.detections]
        if scores != [round(expected_score(word), 5) for word in words]:
            self.problems.append(f"a wrong answer: {words} -> {scores}")
        self._note("good", "OK")

    def fuzzed(self) -> None:
        data = bytearray(self._request("cat", "dog").SerializeToString())
        for _ in range(self._random.randint(1, 40)):
            data[self._random.randrange(len(data))] = self._random.randrange(256)
        cut = data[: self._random.randint(1, len(data))] if self._random.random() < 0.3 else data
        self._channel.unary_unary(DETECT)(bytes(cut), timeout=60)
        self._note("fuzzed", "OK")

    def bomb(self) -> None:
        self._stub.DetectObjects(self._request(image=png_of(30_000, 30_000)), timeout=60)
        self.problems.append("a picture of 900 megapixels was taken")

    def truncated(self) -> None:
        cut = self._jpeg[: self._random.randint(4, len(self._jpeg) // 2)]
        self._stub.DetectObjects(self._request(image=cut), timeout=60)
        self._note("truncated", "OK")

    def cancelled(self) -> None:
        call = self._stub.DetectObjects.future(self._request(), timeout=60)
        time.sleep(self._random.random() * 0.02)
        call.cancel()
        self._note("cancelled", "CANCELLED")

    def hurried(self) -> None:
        self._stub.DetectObjects(self._request(), timeout=self._random.random() * 0.02)
        self._note("hurried", "OK")

    def _frames(self, word: str, policy: int) -> Iterator[pp.StreamPerceiveRequest]:
        vocabulary = VocabularySpec(inline=Vocabulary(classes=[{"name": word}]))
        outputs = [pp.PerceiveOutput(detect=pp.DetectOutput())]
        config = pp.StreamConfig(vocabulary=vocabulary, outputs=outputs, overload_policy=policy)
        yield pp.StreamPerceiveRequest(config=config)
        for sequence in range(1, 200):
            frame = pp.StreamFrame(sequence=sequence, image=im.Image(encoded=self._jpeg))
            yield pp.StreamPerceiveRequest(frame=frame)

    def _follow(self, habit: str, policy: int, pause_s: float) -> None:
        word = f"word {self._random.randrange(1000)}"
        call = self._stub.StreamPerceive(self._frames(word, policy), timeout=60)
        for reply in itertools.islice(call, self._random.randint(1, 12)):
            if reply.WhichOneof("message") == "result":
                found = reply.result.answers[0].objects.detections
                if [round(one.score, 5) for one in found] != [round(expected_score(word), 5)]:
                    self.problems.append(f"a wrong answer on a stream: {word}")
            time.sleep(pause_s)
        call.cancel()
        self._note(habit, "CANCELLED")

    def dropped_stream(self) -> None:
        self._follow("dropped_stream", pp.OVERLOAD_POLICY_BLOCK, 0)

    def slow_reader(self) -> None:
        self._follow("slow_reader", pp.OVERLOAD_POLICY_DROP_OLDEST, 0.05)


def jpeg_of(size: tuple[int, int], seed: int) -> bytes:
    """A picture of a (height, width) that does not pack well."""
    noise = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", noise)[1])


def png_of(width: int, height: int) -> bytes:
    """The head of a PNG that says it is very large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def rss_mb() -> float:
    """Memory of this process."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


@contextmanager
def sampled() -> Iterator[list[float]]:
    """The memory of this process every few seconds, in MB."""
    samples, ended = [round(rss_mb(), 1)], threading.Event()

    def run() -> None:
        while not ended.wait(SAMPLE_S):
            samples.append(round(rss_mb(), 1))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield samples
    ended.set()
    thread.join()


def held(server: Server) -> dict[str, Any]:
    """What this process and its server hold when it is quiet."""
    gc.collect()
    # As the server does by itself some seconds later: what glibc keeps in its arenas is no leak.
    if (trim := allocator_trim()) is not None:
        trim()
    return {
        "rss_mb": rss_mb(),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "slots": dict(server.engine.admission.used),
        "queues": server.engine.worker.depths(),
    }


def soak(duration_s: float, *, clients: int = 8, pass_ms: float = 2.0) -> dict[str, Any]:
    """Run it.

    Returns:
        The report: what was held before and after, calls by habit and code, problems.
    """
    config = ServerConfig(
        port=0,
        max_requests=32,
        max_client_requests=32,
        max_live_streams=8,
        max_vocabulary_bytes=2**19,  # which the words of the first seconds fill
    )
    with Server([StubModel(pass_ms=pass_ms)], config) as server:
        warm = min(5.0, duration_s / 3)
        run_clients(server, clients, warm, seed=1000)  # what is made only once is made
        settle(server)
        before = held(server)
        with sampled() as samples:
            habits = run_clients(server, clients, duration_s - warm, seed=0)
        settle(server)
        after = held(server)
        counts: Counter[str] = Counter()
        for habit in habits:
            counts += habit.counts
        problems = [problem for habit in habits for problem in habit.problems] + grown(before, after)
    return {
        "seconds": duration_s,
        "clients": clients,
        "calls": sum(counts.values()),
        "by_habit": dict(sorted(counts.items())),
        "before": before,
        "after": after,
        "rss_mb_by_time": samples,
        "problems": problems,
    }


def run_clients(server: Server, count: int, duration_s: float, *, seed: int) -> list[Soak]:
    """Let `count` clients run for a while."""
    habits = [Soak(server.address, seed + number) for number in range(count)]
    until = time.monotonic() + duration_s
    threads = [threading.Thread(target=habit.run, args=(until,)) for habit in habits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return habits


def settle(server: Server, timeout_s: float = 20.0) -> None:
    """Wait until nothing is in work any more, as long as that may take."""
    end = time.monotonic() + timeout_s
    while any(server.engine.admission.used.values()) and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)


def grown(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What has grown that should not have."""
    problems = [f"{count} {name} not given back" for name, count in after["slots"].items() if count]
    problems += [f"{depth} {name} still wait" for name, depth in after["queues"].items() if depth]
    limits = {"rss_mb": MAX_GROWTH_MB, "files": MAX_GROWTH_OF_FILES, "threads": MAX_GROWTH_OF_THREADS}
    for name, limit in limits.items():
        if after[name] - before[name] > limit:
            problems.append(f"{name} has grown from {before[name]:.0f} to {after[name]:.0f}")
    return problems


def told(report: dict[str, Any], out: Path | None) -> int:
    """Prints a report, and writes it where one is wanted; returns the exit status."""
    text = json.dumps(report, indent=1)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
    print(text)
    return 1 if report["problems"] else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    report = soak(60 * arguments.minutes, clients=arguments.clients)
    return told(report, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
