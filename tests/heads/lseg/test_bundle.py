"""A bundle with the head: asked here, by the command line, and behind a server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ovperception
from ovperception import Model, errors
from ovperception.cli import main
from ovperception.client import Client
from ovperception.images import load_image, save_image
from serving import Server, ServerConfig
from tests.heads.lseg.small import image, write_small_bundle

WORDS = ["cat", "dog|hound", "taxi"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("bundle") / "small.safetensors")


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return ovperception.load(bundle)


@pytest.mark.parametrize("size", [(90, 133), (1, 1), (7, 300), (128, 64)])
def test_pictures_of_any_size(model: Model, size: tuple[int, int]) -> None:
    scene = model.encode(image(0, size))
    found = scene.semantic(WORDS)
    assert found.labels.shape == size
    assert found.classes == ("cat", "dog", "taxi")
    assert ((found.scores > 1 / 3 - 1e-3) & (found.scores <= 1)).all()
    heat = scene.heatmap("a cat")
    assert heat.shape == size
    assert np.abs(heat).max() <= 1 + 1e-5


def test_a_batch_is_its_images(model: Model) -> None:
    pictures = [image(0), image(1), image(2, (40, 60))]
    for one, together in zip(pictures, model.encode_batch(pictures), strict=True):
        alone = model.encode(one).semantic(WORDS)
        found = together.semantic(WORDS)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-4)
        assert (found.labels == alone.labels).mean() > 0.999


def test_what_it_cannot_do_is_said(model: Model) -> None:
    scene = model.encode(image())
    assert model.tasks == {"semantic"}
    for ask in (
        lambda: scene.detect(WORDS),
        lambda: scene.panoptic(WORDS),
        lambda: scene.embed_regions([[0, 0, 9, 9]]),
        lambda: model.embed_image(image()),
    ):
        with pytest.raises(errors.Unsupported):
            ask()


@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_on_a_frozen_clip(family: str, tmp_path: Path) -> None:
    model = ovperception.load(write_small_bundle(tmp_path / "clip.safetensors", family))
    scene = model.encode(image())
    assert scene.semantic(WORDS).labels.shape == (90, 133)
    assert scene.embed_regions([[0, 0, 50, 50]]).shape == (1, 24)


def test_with_views(tmp_path: Path) -> None:
    views = {"base": 96, "crop": 64, "scales": [0.5, 1.0], "pad_value": -1.0, "max_cells": 2000}
    model = ovperception.load(write_small_bundle(tmp_path / "views.safetensors", views=views))
    scene = model.encode(image())
    assert scene.nbytes <= 2000 * 24 * 4
    assert scene.semantic(WORDS).labels.shape == (90, 133)


def test_predict_here_and_on_a_server(
    bundle: Path, model: Model, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.png"
    save_image(file, image())
    arguments = ["predict", str(file), "--task", "semantic", "--classes", ",".join(WORDS), "--json"]
    maps = []
    with Server([ovperception.load(bundle)], ServerConfig(port=0)) as server:
        for name, where in (("here", ["--model", str(bundle)]), ("there", ["--server", server.address])):
            assert main([*arguments, *where, "--out", str(tmp_path / name)]) == 0
            row = json.loads(capfd.readouterr().out)
            assert row["classes"] == ["cat", "dog", "taxi"]
            maps.append(load_image(row["label_map"]))
        with Client(server.address, timeout_s=60) as client, client.encode(image()) as scene:
            local = model.encode(image())
            np.testing.assert_array_equal(scene.semantic(WORDS).labels, local.semantic(WORDS).labels)
            np.testing.assert_allclose(scene.heatmap("taxi"), local.heatmap("taxi"), atol=1e-2)
    np.testing.assert_array_equal(maps[0], maps[1])


def test_a_reading_head_here_and_on_a_server(tmp_path: Path) -> None:
    """It reads the frozen CLIP and weighs what it learned: maps and heat, through the wire too."""
    read = {"read": {"key_dim": 8, "hidden": 16}, "grow": 1, "seen_words": ["cat"], "unseen_weight": 0.0}
    path = write_small_bundle(tmp_path / "reading.safetensors", "resnet", **read)
    model = ovperception.load(path)
    scene = model.encode(image())
    labels, heat = scene.semantic(WORDS).labels, scene.heatmap("a cat")
    assert heat.shape == labels.shape == (90, 133)
    assert np.abs(heat).max() <= 1 + 1e-5
    with (
        Server([model], ServerConfig(port=0)) as server,
        Client(server.address, timeout_s=60) as client,
        client.encode(image()) as served,
    ):
        np.testing.assert_array_equal(served.semantic(WORDS).labels, labels)
        np.testing.assert_allclose(served.heatmap("a cat"), heat, atol=1e-2)
