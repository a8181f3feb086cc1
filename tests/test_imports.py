"""Importing costs nothing: the client runs on a robot that has no torch."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

import ovperception
from ovperception.dependencies import missing
from ovperception.errors import MissingDependency

HEAVY = ("torch", "torchvision", "open_clip", "timm", "scipy")


def loaded_after(code: str) -> set[str]:
    """The heavy libraries that a fresh interpreter has loaded after running `code`."""
    report = f"import sys; print(*[name for name in {(*HEAVY, 'cv2', 'grpc')!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_package_loads_no_library() -> None:
    assert loaded_after("import ovperception; ovperception.__version__; ovperception.OVPError") == set()


def test_results_load_no_torch() -> None:
    assert not loaded_after("from ovperception import Detections, PanopticMap, SemanticMap") & set(HEAVY)


def test_the_client_loads_no_torch() -> None:
    assert not loaded_after("from ovperception import Client, Vocabulary") & set(HEAVY)


def test_the_command_line_loads_no_library() -> None:
    assert loaded_after("from ovperception.cli import main; main(['--help'])") == set()


def test_every_public_name_is_there() -> None:
    assert {name for name in ovperception.__all__ if not hasattr(ovperception, name)} == set()


def test_public_names_are_listed() -> None:
    assert set(ovperception.__all__) <= set(dir(ovperception))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ovperception.nothing


def test_a_library_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.delitem(vars(ovperception), "load", raising=False)
    with pytest.raises(MissingDependency, match=re.escape("pip install 'ovperception[server]'")):
        _ = ovperception.load


@pytest.mark.parametrize("name", ["ovperception.nothing", "serving"])
def test_a_module_of_ours_that_is_missing_is_not_an_extra(name: str) -> None:
    error = ModuleNotFoundError(name=name)
    assert missing(error, "ovp serve") is error
