"""The machine, libraries and checkout of a run."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

from eval.report import commit, installed

__all__ = ["machine", "tree", "versions"]

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
