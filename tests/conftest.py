"""What every test stands on: one thread, fixed seeds, a cache of its own, no GPU test without a GPU."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

# Before the first import of numpy or torch: workers share few cores, and two pools of threads fight for them.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the default run is offline
# As `serving.grpc_reading` has it, which a test that imports the client first would be too late for.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `gpu` tests on a machine without a CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_gpu():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # libraries under test draw from the global generator
    torch = sys.modules.get("torch")  # a test of the client must not be the one that loads torch
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test writes to the user's cache; subprocesses inherit the variable."""
    os.environ["OVPERCEPTION_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of reference goldens beside the checkout; tests that need it skip where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no reference goldens at {folder}")
    return folder
