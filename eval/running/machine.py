"""The machine, libraries and checkout of a run."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["commit", "installed", "machine", "tree", "versions"]

_LIBRARIES = ("ovperception", "torch", "open-clip-torch", "hotcoco", "pycocotools", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Library -> version."""
    import cv2

    return {name: installed(name) for name in _LIBRARIES} | {
        "opencv": cv2.__version__,  # one library, several distributions
        "python": platform.python_version(),
    }


@cache
def machine() -> str:
    """Processor, cores, accelerator, system."""
    parts = [_processor(), f"{os.cpu_count()} cores"]
    try:
        import torch

        if torch.cuda.is_available():
            parts.append(f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    except ModuleNotFoundError:
        pass
    return ", ".join([*parts, platform.platform()])


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def tree() -> str:
    """The commit of the checkout, marked if it was changed since; "" outside of one."""
    return commit() or ""


def installed(name: str) -> str:
    """Version of a library; says so if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str | None:
    """The commit of the checkout this code runs from, marked if it was changed since; None elsewhere."""
    here = Path(__file__).resolve()
    try:
        # An installed copy may lie inside a checkout of something else.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        head = _git(here.parent, "rev-parse", "HEAD")
        changed = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head} with changes" if changed else head


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
