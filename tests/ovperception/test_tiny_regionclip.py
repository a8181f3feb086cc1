"""The built-in region model: boxes of its own and given ones, from the command line and behind a server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ovperception
from ovperception import Model, cli
from ovperception.bundle import read_card
from ovperception.catalogue import BUILT_IN, built_in_path
from ovperception.client import Client
from ovperception.datasets import scenes
from ovperception.datasets.scenes.sample import SceneSample
from ovperception.datasets.scenes.vocabulary import scenes_vocabulary
from serving import Server, ServerConfig

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "scene.png"


@pytest.fixture(scope="module")
def model() -> Model:
    return ovperception.load("tiny-regionclip")


@pytest.fixture(scope="module")
def truth() -> SceneSample:
    return scenes.scene("val", 3)


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, 4) and (M, 4) xyxy -> (N, M)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    return shared / ((a[:, 2:] - a[:, :2]).prod(1)[:, None] + (b[:, 2:] - b[:, :2]).prod(1) - shared)


def test_it_is_built_in_and_small() -> None:
    assert "tiny-regionclip" in BUILT_IN
    card = read_card(built_in_path("tiny-regionclip"))
    assert card.backbone.lender == "tiny"
    assert built_in_path("tiny-regionclip").stat().st_size < 4_000_000


def test_it_proposes_boxes_around_most_things(model: Model) -> None:
    found = []
    for index in range(6):
        sample = scenes.scene("val", index)
        boxes = model.encode(sample.image).proposals()
        found += (overlap(np.array([s.box for s in sample.things]), boxes[:100]).max(1) > 0.5).tolist()
    assert np.mean(found) > 0.8


def test_true_boxes_get_their_names(model: Model) -> None:
    right = []
    for index in range(6):
        sample = scenes.scene("val", index)
        scene = model.encode(sample.image)
        words = scenes_vocabulary(stuff=False)
        text = model.classifier(words)
        embeddings = scene.embed_regions([s.box for s in sample.things])
        chosen = text.reduce(text.embeddings.new_tensor(embeddings) @ text.embeddings.T).argmax(1)
        right += [int(c) == s.category_id - 1 for c, s in zip(chosen, sample.things, strict=True)]
    assert np.mean(right) > 0.3  # 659 names to choose from


def test_scores_are_probabilities(model: Model, truth: SceneSample) -> None:
    found = model.encode(truth.image).detect(["rooster", "cat", "grass"], score_threshold=0)
    assert found.masks is None
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_it_answers_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["predict", str(PICTURE), "--model", "tiny-regionclip", "--classes", "rooster,snowman", "--json"]
    assert cli.main(argv) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["model"], answer["task"]) == ("tiny-regionclip", "detect")
    assert cli.main([*argv, "--task", "panoptic"]) != 0
    assert "cannot answer" in capsys.readouterr().err


def test_it_is_served_beside_tiny(model: Model, truth: SceneSample) -> None:
    words = ["rooster", "toolbox", "snowman|snow man"]
    local = model.encode(truth.image)
    both = [ovperception.load("tiny"), model]
    with (
        Server(both, ServerConfig(port=0)) as server,
        Client(server.address, model="tiny-regionclip", timeout_s=120) as client,
        client.encode(truth.image) as scene,
    ):
        for boxes in (None, [[10, 10, 100, 100]]):
            served = scene.detect(words, boxes=boxes, score_threshold=0)
            assert served.to_json() == local.detect(words, boxes=boxes, score_threshold=0).to_json()
