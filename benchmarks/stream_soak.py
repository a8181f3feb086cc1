"""Minutes of a camera on a stream whose words change: a reply for each frame, by its words, in flat memory.

    python -m benchmarks.stream_soak --minutes 10 --swaps 100 --out out/bench/stream.json

The server is a process of its own with a stub for a model, so that what is measured is the server. Each frame
must get one reply, in order, about the words that hold from the frame named by the change before it. Fails
(status 1) if one does not, or if the memory of server or client has grown beyond the limit.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.soak import told
from ovperception.client import Client, Stream, StreamReply
from serving import Server, ServerConfig
from serving.stub_model import StubModel, expected_score

SIZE = (480, 640)  # (height, width) of a frame
SAMPLE_S = 5.0
SHARE = 0.1  # of the samples at each end that are held against each other
MAX_GROWTH_MB = 16.0


class Camera:
    """Sends frames at a steady pace, and other words now and then.

    Args:
        stream: Where to.
        frames: How many.
        fps: How many a second.
        swaps: How often the words change.
    """

    def __init__(self, stream: Stream, first: list[str], *, frames: int, fps: float, swaps: int) -> None:
        self.words_from = {1: first}  # the number of a frame -> the words from there on
        self.late_s = 0.0  # how far it fell behind its pace at most
        self._stream = stream
        self._frames, self._fps, self._swaps = frames, fps, swaps
        random = np.random.default_rng(0)
        noise = (random.integers(0, 255, (*SIZE, 3), np.uint8) for _ in range(8))
        self._pictures = [bytes(cv2.imencode(".jpg", picture)[1]) for picture in noise]

    def run(self) -> None:
        """Send all frames, then end the stream."""
        begun, changes = time.monotonic(), 0
        try:
            for frame in range(self._frames):
                due_s = begun + frame / self._fps
                time.sleep(max(0.0, due_s - time.monotonic()))
                self.late_s = max(self.late_s, time.monotonic() - due_s)
                if changes < frame * (self._swaps + 1) // self._frames:
                    changes += 1
                    words = words_of(changes)
                    self.words_from[self._stream.set_words(words)] = words
                self._stream.send(self._pictures[frame % len(self._pictures)])
        finally:
            self._stream.end()


class Checks:
    """Holds replies against what was sent."""

    def __init__(self, camera: Camera) -> None:
        self.replies = 0
        self.problems: list[str] = []
        self.latencies_ms: list[float] = []
        self._camera = camera
        self._words = camera.words_from[1]

    def take(self, reply: StreamReply) -> None:
        """The next reply."""
        self.replies += 1
        if reply.sequence != self.replies:
            self.problems.append(f"reply {self.replies} is of frame {reply.sequence}")
        self._words = self._camera.words_from.get(reply.sequence, self._words)
        if reply.perception is None:
            self.problems.append(f"frame {reply.sequence}: no answer: {reply.error or reply.dropped}")
            return
        found = reply.perception.detections
        scores = [round(float(score), 5) for score in found.scores]
        if (list(found.classes), scores) != (self._words, [round(expected_score(w), 5) for w in self._words]):
            self.problems.append(f"frame {reply.sequence}: {found.classes} {scores} instead of {self._words}")
        self.latencies_ms.append(reply.perception.reply.timing["round_trip"])


def words_of(change: int) -> list[str]:
    """The words of the camera after so many changes: one to seven."""
    return [f"word {change}.{index}" for index in range(1 + change % 7)]


def rss_mb(process: int | str) -> float:
    """Memory of a process, in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextmanager
def sampled(processes: dict[str, int | str]) -> Iterator[dict[str, list[float]]]:
    """The memory of some processes by name, every few seconds."""
    samples: dict[str, list[float]] = {name: [] for name in processes}
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(SAMPLE_S):
            for name, process in processes.items():
                samples[name].append(round(rss_mb(process), 1))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield samples
    ended.set()
    thread.join()


@contextmanager
def server_process() -> Iterator[tuple[str, int]]:
    """A server of a stub: its address, and the number of its process."""
    command = [sys.executable, "-m", "benchmarks.stream_soak", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.kill()


def serve() -> None:
    """Be that process, until it is killed or its parent ends."""
    with Server([StubModel(pass_ms=5.0)], ServerConfig(port=0)) as server:
        print(server.address, flush=True)
        sys.stdin.read()


def soak(duration_s: float, *, fps: float = 30.0, swaps: int = 100) -> dict[str, Any]:
    """Run it.

    Returns:
        The report: frames, replies, changes of words, latencies, memory by time, problems.
    """
    frames = max(1, round(duration_s * fps))
    with (
        server_process() as (address, server),
        Client(address, timeout_s=60) as client,
        client.stream(words_of(0), policy="block") as stream,
    ):
        camera = Camera(stream, words_of(0), frames=frames, fps=fps, swaps=swaps)
        checks = Checks(camera)
        thread = threading.Thread(target=camera.run)
        thread.start()
        with sampled({"server": server, "client": "self"}) as samples:
            for reply in stream:
                checks.take(reply)
        thread.join()
    problems = checks.problems + grown(samples)
    if checks.replies != frames:
        problems.append(f"{frames} frames, {checks.replies} replies")
    if len(camera.words_from) != swaps + 1:
        problems.append(f"the words changed {len(camera.words_from) - 1} times, not {swaps}")
    return {
        "seconds": duration_s,
        "fps": fps,
        "frames": frames,
        "replies": checks.replies,
        "swaps": len(camera.words_from) - 1,
        "latency_ms": percentiles(checks.latencies_ms),
        "behind_its_pace_s": round(camera.late_s, 2),
        "rss_mb": {name: ends(values) for name, values in samples.items()},
        "rss_mb_by_time": samples,
        "problems": problems,
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """The middle, and what one in a hundred exceeds."""
    if not values:
        return {}
    return {
        "p50": round(float(np.percentile(values, 50)), 2),
        "p99": round(float(np.percentile(values, 99)), 2),
    }


def ends(values: list[float]) -> list[float]:
    """The middle of the first samples, and of the last."""
    count = max(1, int(SHARE * len(values)))
    return [statistics.median(values[:count]), statistics.median(values[-count:])] if values else []


def grown(samples: dict[str, list[float]]) -> list[str]:
    """Whose memory has grown that should not have."""
    found = {name: ends(values) for name, values in samples.items() if values}
    return [
        f"the memory of the {name} has grown from {first:.0f} to {last:.0f} MB"
        for name, (first, last) in found.items()
        if last - first > MAX_GROWTH_MB
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return 0
    report = soak(60 * arguments.minutes, fps=arguments.fps, swaps=arguments.swaps)
    return told(report, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
