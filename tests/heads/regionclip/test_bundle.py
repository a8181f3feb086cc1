"""A bundle with the head: loaded, asked, by the command line and behind a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ovperception
from ovperception import Model, Scene, errors
from ovperception.boxes import MAX_BOXES
from ovperception.cli import main
from ovperception.client import Client
from ovperception.images import save_image
from serving import Server, ServerConfig
from tests.heads.regionclip.conftest import GivenProposals
from tests.heads.regionclip.small import picture, write_small_bundle

WORDS = ["cat", "dog|hound", "taxi"]
BOXES = [[10.0, 5.0, 60.0, 70.0], [50.5, 20.0, 133.0, 90.0], [-20.0, -9.0, 40.0, 33.0]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("bundle") / "small.safetensors")


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return ovperception.load(bundle)


@pytest.fixture(scope="module")
def finder(bundle: Path) -> Model:
    """The same head with proposals."""
    model = ovperception.load(bundle)
    boxes = torch.tensor([[5.0, 5, 40, 50], [30, 20, 90, 80], [0, 0, 2, 2], [60, 10, 130, 90]])
    model.heads["regionclip"].proposer = GivenProposals(boxes, torch.tensor([3.0, -1, 0.5, 2]))
    return model


@pytest.fixture(scope="module")
def scene(model: Model) -> Scene:
    return model.encode(picture())


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    with Server([ovperception.load(bundle)], ServerConfig(port=0)) as server:
        yield server


def test_given_boxes_are_named_without_the_backbone(
    model: Model, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(*_: Any) -> None:
        raise AssertionError("the backbone ran again")

    monkeypatch.setattr(model.backbone.trunk, "maps", look)
    found = scene.detect(WORDS, boxes=BOXES, nms_iou_threshold=1)
    assert len(found) == len(BOXES) * len(WORDS)
    inside = np.clip(BOXES, 0, [133, 90, 133, 90])
    for box in found.boxes:
        assert np.abs(inside - box).max(axis=1).min() < 1e-3
    assert found.masks is not None
    assert all(mask.size == (90, 133) for mask in found.masks)
    assert len(scene.detect(WORDS, boxes=BOXES, max_detections=2)) == 2
    assert scene.detect(WORDS, boxes=BOXES, masks=False).masks is None


def test_what_is_kept_holds_no_pixels(model: Model) -> None:
    single = model.encode(picture())
    batched = model.encode_batch([picture(), picture(1)])
    assert [s._features.images for s in (single, *batched)] == [None] * 3


def test_a_batch_of_sizes_is_its_images(model: Model, finder: Model) -> None:
    pictures = [picture(0), picture(1), picture(2, (120, 77)), picture(3, (41, 300))]
    for asked, boxes in ((model, BOXES[:2]), (finder, None)):
        for one, together in zip(pictures, asked.encode_batch(pictures), strict=True):
            given = None if boxes is None else [[5, 5, 40, 33], [1, 2, 30, 40]]
            assert together.size == one.shape[:2]
            alone = asked.encode(one).detect(WORDS, boxes=given)
            found = together.detect(WORDS, boxes=given)
            assert found.class_ids.tolist() == alone.class_ids.tolist()
            np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-3)
            np.testing.assert_allclose(found.scores, alone.scores, rtol=1e-3, atol=1e-6)


def test_boxes_of_its_own(finder: Model) -> None:
    scene = finder.encode(picture())
    found = scene.detect(WORDS)
    assert len(found) > 3
    assert found.masks is not None
    assert (found.scores <= 1).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    proposed = scene.proposals()
    assert proposed.shape == (4, 4)
    again = scene.detect(WORDS, boxes=proposed, nms_iou_threshold=1)
    assert len(again) == 4 * len(WORDS)


def test_without_proposals_boxes_are_asked_for(scene: Scene) -> None:
    with pytest.raises(errors.Unsupported, match="Give boxes") as caught:
        scene.detect(WORDS)
    assert caught.value.field == "boxes"
    assert len(scene.proposals()) == 0


def test_no_boxes_find_nothing(scene: Scene) -> None:
    found = scene.detect(WORDS, boxes=[])
    assert len(found) == 0
    assert found.classes == ("cat", "dog", "taxi")


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 7), (33, 31)])
def test_pictures_of_any_size_are_answered(finder: Model, size: tuple[int, int]) -> None:
    scene = finder.encode(picture(0, size))
    assert scene.size == size
    found = scene.detect(WORDS)
    assert (found.boxes <= [size[1], size[0]] * 2).all()
    assert len(scene.detect(WORDS, boxes=[[0, 0, size[1], size[0]]], nms_iou_threshold=1)) == len(WORDS)


@pytest.mark.parametrize(
    "boxes",
    [
        [[0, 0, 0, 0]],
        [[5, 5, 1, 9]],
        [[0, 0, np.nan, 9]],
        [[0, 0, np.inf, 9]],
        [[400, 0, 500, 9]],
        [[1, 2, 3]],
        "boxes",
        np.tile(np.float32([1, 1, 9, 9]), (100_000, 1)),
    ],
)
def test_bad_boxes_are_refused(scene: Scene, boxes: Any) -> None:
    for ask in (lambda: scene.detect(WORDS, boxes=boxes), lambda: scene.embed_regions(boxes)):
        with pytest.raises(errors.InvalidRegions) as caught:
            ask()
        assert (caught.value.field or "").startswith("boxes")
    assert MAX_BOXES < 100_000


def test_a_mask_head_s_boxes_are_named_by_the_region_head(model: Model) -> None:
    """FC-CLIP proposes, RegionCLIP names: two models' heads on one picture, or one model with both."""
    tiny = ovperception.load("tiny")
    image = picture(5, (64, 96))
    boxes = tiny.encode(image).proposals("fcclip")
    assert boxes.ndim == 2
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes >= 0).all()
    assert (boxes <= [96, 64, 96, 64]).all()
    found = model.encode(image).detect(WORDS, boxes=boxes[:5])
    assert set(map(tuple, found.boxes.round(2).tolist())) <= set(map(tuple, boxes[:5].round(2).tolist()))
    with pytest.raises(errors.InvalidParameter, match="fcclip"):
        tiny.encode(image).proposals("regionclip")
    with pytest.raises(errors.Unsupported) as caught:
        tiny.encode(image).detect(WORDS, boxes=boxes)
    assert caught.value.field == "boxes"


def test_two_heads_on_one_look(model: Model) -> None:
    from heads.regionclip import RegionCLIP

    tiny = ovperception.load("tiny")
    both = Model(
        tiny.card,
        tiny.backbone,
        {"regionclip": RegionCLIP.from_settings({}, tiny.spec), **tiny.heads},
        tiny.preprocessing,
    )
    scene = both.encode(picture(5, (64, 96)))
    assert both.head_for("detect")[0] == "fcclip"
    assert both.head_for("detect", given_boxes=True)[0] == "regionclip"
    boxes = scene.proposals("fcclip")
    assert len(boxes)
    assert scene.detect(WORDS, score_threshold=0).masks is not None
    assert scene.detect(WORDS, boxes=boxes, score_threshold=0).masks is None


def test_predict_here_and_on_a_server(
    bundle: Path, server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image, boxes = tmp_path / "a.png", tmp_path / "boxes.json"
    save_image(image, picture())
    boxes.write_text(json.dumps({"a.png": BOXES}))
    arguments = ["predict", str(image), "--classes", ",".join(WORDS), "--boxes", str(boxes), "--json"]
    rows = []
    for where in (["--model", str(bundle)], ["--server", server.address]):
        assert main([*arguments, *where]) == 0
        rows.append(json.loads(capfd.readouterr().out))
    assert rows[0] == rows[1]
    assert rows[0]["detections"]
    assert set(rows[0]["detections"][0]) == {"class", "score", "box", "mask"}


def test_served_answers_equal_local_ones(model: Model, server: Server) -> None:
    local = model.encode(picture())
    with Client(server.address, timeout_s=60) as client:
        with client.encode(picture()) as scene:
            for boxes in (BOXES, [], np.array(BOXES[:1])):
                found = scene.detect(WORDS, boxes=boxes)
                assert found.to_json() == local.detect(WORDS, boxes=boxes).to_json()
            with pytest.raises(errors.InvalidRegions) as caught:
                scene.detect(WORDS, boxes=[[0, 0, 5, 5], [9, 9, 1, 1]])
            assert caught.value.field == "regions.boxes[1]"
        with pytest.raises(errors.Unsupported) as unsupported:
            client.detect(picture(), WORDS)
        assert unsupported.value.field == "regions.boxes"


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["c4", "fpn", "lsj"])
def test_a_bundle_with_an_offline_rpn(tmp_path: Path, variant: str) -> None:
    settings = {"proposer": {"kind": "rpn", "variant": variant, "post_nms_top_k": 20}}
    path = write_small_bundle(tmp_path / "rpn.safetensors", settings)
    model = ovperception.load(path)
    (key, *_) = [k for k in model.heads["regionclip"].state_dict() if k.startswith("proposer.")]
    assert key
    scene = model.encode(picture())
    assert 0 < len(scene.proposals()) <= 20
    assert scene.detect(WORDS).masks is not None
