"""What it saves to decode a large photograph at a part of its size, and how much the picture then differs.

    python -m benchmarks.scaled_decode --rounds 9 --out out/bench/scaled_decode.json

From JPEG bytes to the picture that a model of `shortest_edge` pixels sees: all pixels (the default), scaled
(`scaled_decode`), and as peers do it: Pillow's draft mode, and OpenCV's IMREAD_REDUCED. CPU milliseconds of
one thread, interleaved: the lower quartile, the median, the upper quartile.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovperception.images import Geometry, load_image, load_reduced
from ovperception.preprocess import Preprocessing

Picture = NDArray[np.uint8]
CASES = (
    ((3000, 4000), 640),
    ((3000, 4000), 800),
    ((2160, 3840), 640),
    ((1080, 1920), 512),
)  # (size, shortest)


def photograph(size: tuple[int, int], seed: int = 0) -> bytes:
    """A JPEG whose frequencies fall off as those of photographs do, with edges, colour and noise."""
    height, width = size
    random = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    slope = (np.hypot(down, across) + 1 / max(size)) ** -1.1
    planes = [np.fft.irfft2(slope * np.fft.rfft2(random.normal(size=size)), size) for _ in range(3)]
    grey = planes[0] / np.abs(planes[0]).max()
    tint = np.stack([plane / np.abs(plane).max() for plane in planes], 2)
    levels = 128 + 110 * grey[..., None] + 30 * tint + 40 * (grey > 0.15)[..., None]
    levels += random.normal(0, 3, levels.shape)
    return bytes(
        cv2.imencode(".jpg", levels.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    )


def shrunk(picture: Picture, geometry: Geometry) -> Picture:
    """As `Preprocessing` resizes, without what comes after."""
    height, width = geometry.resized
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def ways(data: bytes, preprocessing: Preprocessing) -> dict[str, Callable[[], Picture]]:
    """From the file to the network's picture, by name."""
    geometry = preprocessing.geometry(load_image(data).shape[:2])
    height, width = geometry.resized
    part = next((n for n in (8, 4, 2) if min(geometry.original) // n >= min(geometry.resized)), 1)
    reduced = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4}.get(part, 0)

    def scaled() -> Picture:
        picture, _ = load_reduced(data, lambda size: preprocessing.geometry(size).resized)
        return shrunk(picture, geometry)

    def pillow() -> Picture:
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (width, height))
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

    def opencv() -> Picture:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | reduced)
        return shrunk(np.asarray(picture, np.uint8), geometry)

    return {
        "all pixels": lambda: shrunk(load_image(data), geometry),
        "scaled": scaled,
        "Pillow, draft": pillow,
        "OpenCV, reduced": opencv,
    }


def measure(size: tuple[int, int], shortest_edge: int, rounds: int) -> dict[str, Any]:
    """One case: milliseconds and differences by way."""
    data = photograph(size)
    known = {name: (way, []) for name, way in ways(data, _preprocessing(shortest_edge)).items()}
    truth = known["all pixels"][0]().astype(np.int16)
    for _ in range(rounds):
        for way, spent in known.values():
            begun = time.thread_time()
            way()
            spent.append(1e3 * (time.thread_time() - begun))
    rows = {}
    for name, (way, spent) in known.items():
        apart = np.abs(way().astype(np.int16) - truth)
        low, middle, high = np.percentile(spent, (25, 50, 75))
        rows[name] = {
            "cpu_ms": [round(float(value), 1) for value in (low, middle, high)],
            "mean_levels_apart": round(float(apart.mean()), 2),
            "most_levels_apart": int(apart.max()),
        }
    ratio = rows["all pixels"]["cpu_ms"][1] / rows["scaled"]["cpu_ms"][1]
    return {
        "size": size,
        "shortest_edge": shortest_edge,
        "bytes": len(data),
        "times_faster": round(ratio, 2),
    } | rows


def _preprocessing(shortest_edge: int) -> Preprocessing:
    return Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), shortest_edge=shortest_edge, longest_edge=2048)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    report = [measure(size, edge, arguments.rounds) for size, edge in CASES]
    text = json.dumps(report, indent=1)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
