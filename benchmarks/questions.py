"""What a question costs once an image was looked at, what words cost, and what the wire adds.

    python -m benchmarks.questions --model tiny --rounds 15 --out questions.json

All variants take turns, round by round, so that a change of the machine's speed meets them alike; the ratios
are of medians of one run:

- a second question on a kept scene over the first (look and ask);
- look and ask with 1,203 warm classes over the same with one;
- the same question served over gRPC on loopback over asking in this process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import ovperception
from benchmarks.fcclip import environment
from ovperception.client import Client
from ovperception.images import load_image
from ovperception.vocabulary import Vocabulary
from serving import Server, ServerConfig

WORDS = ["rooster", "toolbox", "snowman", "grass", "sky"]


def variants(model: Any, client: Client) -> dict[str, Callable[[], object]]:
    """Name -> what is timed; every question is for boxes and masks."""
    image = load_image(files("ovperception").joinpath("data/demo/scene.png").read_bytes())
    one = Vocabulary.from_words(["toolbox"], background=())
    many = Vocabulary.from_words(Vocabulary.builtin("lvis_v1_1203"), background=())
    kept = model.encode(image)
    return {
        "look and ask": lambda: model.encode(image).detect(WORDS),
        "ask again": lambda: kept.detect(WORDS),
        "look and ask, 1 class": lambda: model.encode(image).detect(one),
        "look and ask, 1203 classes": lambda: model.encode(image).detect(many),
        "served": lambda: client.detect(image, WORDS),
    }


RATIOS = {
    "second question / first": ("ask again", "look and ask"),
    "1203 classes / 1 class": ("look and ask, 1203 classes", "look and ask, 1 class"),
    "served / in process": ("served", "look and ask"),
}


def measure(timed: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every round after two that are not counted."""
    times: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(rounds + 2):
        for name, call in timed.items():
            begun = time.perf_counter()
            call()
            if number >= 2:
                times[name].append(1e3 * (time.perf_counter() - begun))
    return times


def main() -> None:
    """Measure, print a table, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="name or bundle")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = ovperception.load(arguments.model, device=arguments.device)
    with Server([model], ServerConfig(port=0)) as server, Client(server.address) as client:
        times = measure(variants(model, client), arguments.rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    table = Table("what", "median ms", "min", "max", title=f"{model.name}, one scene of 512 x 512")
    for name, values in times.items():
        table.add_row(name, f"{medians[name]:.1f}", f"{min(values):.1f}", f"{max(values):.1f}")
    ratios = {name: medians[a] / medians[b] for name, (a, b) in RATIOS.items()}
    for name, value in ratios.items():
        table.add_row(name, f"{value:.3f}", "", "")
    Console().print(table)
    if arguments.out:
        about = environment(arguments.threads, arguments.device)
        arguments.out.write_text(json.dumps({"about": about, "times_ms": times, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
