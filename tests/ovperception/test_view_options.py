"""Views as a command line spells them, and on a model that is loaded."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import ovperception
from ovperception.cli import main
from ovperception.errors import InvalidParameter, Unsupported
from ovperception.images import load_image, save_image
from ovperception.sliding import Views
from ovperception.view_options import set_views, views_of
from tests.heads.lseg.small import image, write_small_bundle

WORDS = ["cat", "dog|hound", "taxi"]
TEXT = "base=96 crop=64 scales=0.5,1 overlap=1/4 pad_value=-1 max_cells=2000"
VIEWS = Views(base=96, crop=64, scales=(0.5, 1.0), overlap=0.25, pad_value=-1.0, max_cells=2000)


def test_the_words() -> None:
    assert views_of(TEXT) == VIEWS
    assert views_of("crop=8 base=9 flip=false") == Views(base=9, crop=8, flip=False)
    told = "windows of 64 at scales 0.5, 1 of 96, mirrored as well"
    assert str(VIEWS) == f"{told}, overlapping by 0.25, padded with -1, on 2000 cells"
    assert str(Views(base=9, crop=8, flip=False)) == "windows of 8 at scales 1 of 9"


@pytest.mark.parametrize(
    "text",
    [
        *("base=96", "crop", "base=96 crop=64 base=96", "base=96 crop=64 size=3", "base=9.5 crop=8"),
        *(
            "base=9 crop=8 scales=",
            "base=9 crop=8 scales=1,,2",
            "base=9 crop=8 scales=0",
            "base=9 crop=8 flip=1",
        ),
        *(
            "base=9 crop=8 overlap=1/0",
            "base=9 crop=8 overlap=1",
            "base=9 crop=8 pad_value=nan",
            "base=-9 crop=8",
        ),
    ],
)
def test_what_is_no_view_is_said(text: str) -> None:
    with pytest.raises(InvalidParameter):
        views_of(text)


def test_a_head_that_looks_once() -> None:
    model = SimpleNamespace(name="once", head_for=lambda task: ("plain", SimpleNamespace(config=None)))
    with pytest.raises(Unsupported, match="'plain' of 'once' does not look several times"):
        set_views(model, "semantic", VIEWS)  # type: ignore[arg-type]


def test_a_loaded_model_looks_as_its_bundle_would_say(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = write_small_bundle(tmp_path / "plain.safetensors")
    said = ovperception.load(write_small_bundle(tmp_path / "said.safetensors", views=VIEWS.to_dict()))
    expected = said.encode(image()).semantic(WORDS)
    once = ovperception.load(plain)
    assert (once.encode(image()).semantic(WORDS).labels != expected.labels).any()
    set_views(once, "semantic", VIEWS)
    found = once.encode(image()).semantic(WORDS)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.scores, expected.scores)
    other = dataclasses.replace(VIEWS, flip=False)
    set_views(once, "semantic", other)
    assert (once.encode(image()).semantic(WORDS).scores != expected.scores).any()

    save_image(tmp_path / "a.png", image())
    asked = ["predict", str(tmp_path / "a.png"), "--task", "semantic", "--classes", ",".join(WORDS), "--json"]
    asked += ["--model", str(plain), "--views", TEXT, "--out", str(tmp_path)]
    assert main(asked) == 0
    drawn = load_image(json.loads(capfd.readouterr().out)["label_map"])
    np.testing.assert_array_equal(drawn[..., 0], expected.labels)
    assert main([*asked, "--server", "localhost:1"]) == 2
    assert "leave them out" in capfd.readouterr().err
