"""The files in deploy/ say what the server understands."""

import tomllib

from serving.settings import resolve
from tests.conftest import ROOT


def test_the_example_is_a_file_of_settings():
    file = ROOT / "deploy" / "ovp.toml"
    resolved = resolve({}, file=file, environment={})
    assert {name for name, origin in resolved.origins.items() if origin == "file"} == set(
        tomllib.loads(file.read_text())
    )
    assert resolved.config.tokens_file == ROOT / "deploy" / "tokens"


def test_an_image_has_nothing_that_git_ignores():
    """What tools leave behind, and gigabytes of runs."""
    ignored, left_out = (
        {
            line.strip("/").removeprefix("**/")
            for line in (ROOT / name).read_text().splitlines()
            if line[:1] != "#"
        }
        for name in (".gitignore", ".dockerignore")
    )
    assert ignored
    assert ignored <= left_out


def test_the_unit_gives_calls_the_time_that_the_settings_do():
    unit = (ROOT / "deploy" / "ovp.service").read_text()
    stop_s = int(unit.split("TimeoutStopSec=")[1].split()[0])
    assert stop_s > resolve({}, file=ROOT / "deploy" / "ovp.toml", environment={}).config.grace_s
