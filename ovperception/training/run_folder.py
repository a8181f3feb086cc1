"""What a run's folder tells besides its numbers: the recipe, what it ran on, and what it saw.

recipe.toml          the resolved recipe; `ovp train FOLDER/recipe.toml` runs it again
environment.jsonl    a line a sitting: versions, device, processes, commit
data.json            hashes of the files and the vocabulary
log.jsonl            the numbers; tensorboard/ has them too
wandb.id             which run of Weights & Biases it is, where one is asked for
wrong_data.json      what the last sitting left out of its data, by kind
problems.jsonl       batches whose losses or gradients were not finite
last.pt  best.pt     the state to go on from; the best that was evaluated
lock                 of the process that is at it
*.safetensors        what came of it
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from ovperception.errors import ResourceExhausted
from ovperception.training.changed_recipe import changed_facts, changed_settings
from ovperception.training.checkpoint import write_whole
from ovperception.training.devices import faults_of_devices
from ovperception.training.distributed import World, joined_world
from ovperception.training.folder_lock import locked
from ovperception.training.recipe_files import to_toml

__all__ = ["data_hashes", "describe_data", "environment", "sitting"]

_PACKAGES = (
    "ovperception",
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "numpy",
    "opencv-python-headless",
)


@contextmanager
def sitting(recipe: Any) -> Iterator[World]:
    """One sitting of a run: processes joined, generators seeded, the folder told.

    Args:
        recipe: a recipe with ``out``, ``seed``, ``device`` and ``loop``.

    Raises:
        InvalidParameter: there is no such device.
        ResourceExhausted: the folder cannot be written to, or the memory of the device is full.
        Unsupported: a deterministic run meets a step that has no such form.
    """
    with joined_world(recipe.device) as world:
        torch.manual_seed(recipe.seed)
        torch.set_flush_denormal(True)
        deterministic = torch.are_deterministic_algorithms_enabled()
        if recipe.loop.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        try:
            with _folder_of(recipe, world), faults_of_devices():
                yield world
        finally:
            torch.use_deterministic_algorithms(deterministic)
            torch.set_flush_denormal(False)  # of the whole thread: what comes after may count on them


@contextmanager
def _folder_of(recipe: Any, world: World) -> Iterator[None]:
    """The folder, described and held by the process that writes."""
    with ExitStack() as held:

        def take() -> None:
            try:
                recipe.out.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(recipe.out))
                _describe(recipe, world)
            except OSError as error:
                raise ResourceExhausted(
                    f"{recipe.out} cannot be written to",
                    field="out",
                    got=error,
                    mend="Make room on the disk, or give another out=FOLDER",
                ) from error

        world.told_by_writer(take)
        yield


def _describe(recipe: Any, world: World) -> None:
    out: Path = recipe.out
    text = to_toml(recipe, recipe=recipe.name)
    kept = out / "recipe.toml"
    facts = environment(world)
    if kept.is_file() and kept.read_text(encoding="utf-8") != text:
        before = kept.read_text(encoding="utf-8")
        facts["recipe_before"] = hashlib.sha256(before.encode()).hexdigest()
        facts["changed"] = changed_settings(before, text)
        if (out / "last.pt").is_file():
            _tell(f"{out} goes on with another recipe", facts["changed"].items())
    write_whole(kept, lambda file: file.write(text.encode()))
    with (out / "environment.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(facts) + "\n")


def _tell(what: str, changes: Iterable[tuple[str, str]]) -> None:
    listed = "; ".join(f"{name}: {change}" if change else name for name, change in changes)
    Console(stderr=True).print(f"[yellow]{escape(what)}:[/] {escape(listed)}", highlight=False)


def environment(world: World) -> dict[str, Any]:
    """Versions, device, processes and commit, as they are now."""
    on_gpu = world.device.startswith("cuda") and torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "device": torch.cuda.get_device_name(world.device) if on_gpu else platform.machine(),
        "cuda": torch.version.cuda if on_gpu else None,
        "processes": world.size,
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        "command": sys.argv,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """Of the tree that this package is read from, with ``+`` where files differ; empty without a tree."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return ""
    try:
        told = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stdout.strip()


def data_hashes(settings: Any, prefix: str = "") -> dict[str, str]:
    """SHA-256 of every file that a recipe names; of a folder that of its names and sizes.

    Args:
        settings: a dataclass, with others inside it; ``out`` is no data.
        prefix: of the keys.
    """
    found: dict[str, str] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        key = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            found |= data_hashes(value, f"{key}.")
        elif isinstance(value, Path) and field.name != "out":
            if value.is_file():
                found[key] = _file_hash(value)
            elif value.is_dir():
                found[key] = _listing_hash(value)
    return found


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listing_hash(folder: Path) -> str:
    listing = hashlib.sha256()
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(root, name)
            listing.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\n".encode())
    return listing.hexdigest()


def describe_data(recipe: Any, facts: Mapping[str, Any]) -> None:
    """Write ``data.json``: hashes of what the recipe names, and further facts such as the vocabulary's."""
    found = {**facts, "files": data_hashes(recipe)}
    kept: Path = recipe.out / "data.json"
    if (recipe.out / "last.pt").is_file() and kept.is_file():
        changed = changed_facts(kept.read_text(encoding="utf-8"), found)
        if changed:
            _tell(f"{recipe.out} goes on with other data", ((name, "") for name in changed))
    write_whole(kept, lambda file: file.write(json.dumps(found, indent=2).encode()))
