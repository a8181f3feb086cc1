"""The wheel holds everything: built, unpacked in a clean environment, every module imported from there."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ovperception", "heads", "serving", "eval")

IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys, warnings
from importlib.metadata import entry_points

warnings.simplefilter("ignore")  # those of libraries; the tests of each module turn ours into errors
imported = {}
for package in sys.argv[1:]:
    root = importlib.import_module(package)
    imported[package] = root.__file__
    for module in pkgutil.walk_packages(root.__path__, f"{package}."):
        if not module.name.endswith(".__main__"):
            imported[module.name] = importlib.import_module(module.name).__file__
for group in ("heads", "commands", "converters", "recipes", "training_evaluators"):
    points = entry_points(group=f"ovperception.{group}")
    assert points, group
    for point in points:
        point.load()
print(json.dumps(imported))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as anyone would build it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert not [name for name in names if name.endswith((".pyc", ".log")) or "__pycache__" in name]


def test_the_wheel_holds_every_tracked_file(wheel: Path) -> None:
    done = subprocess.run(
        ["git", "ls-files", "--", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode or not done.stdout:
        pytest.skip("not a git checkout")
    tracked = {name for name in done.stdout.splitlines() if (ROOT / name).exists()}
    with zipfile.ZipFile(wheel) as archive:
        assert tracked - set(archive.namelist()) == set()


def test_every_module_imports_from_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """In a fresh environment, away from the checkout, with only our dependencies borrowed from this one."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=60)
    (site,) = environment.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)  # what installing a pure wheel does, but for its scripts
    # After our own folder; a plain path, so that the editable install's .pth file there is not followed.
    borrowed = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "borrowed.pth").write_text(borrowed + "\n")
    done = subprocess.run(
        [str(environment / "bin" / "python"), "-c", IMPORT_EVERYTHING, *PACKAGES],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    imported: dict[str, str | None] = json.loads(done.stdout.splitlines()[-1])
    assert {"ovperception.errors", "heads", "serving", "eval"} <= set(imported)
    elsewhere = {
        name: file for name, file in imported.items() if file and not Path(file).is_relative_to(site)
    }
    assert elsewhere == {}
