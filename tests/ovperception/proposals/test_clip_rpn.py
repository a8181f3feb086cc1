"""A proposer on CLIP's maps: what it promises untrained, what its anchors shall find, and that it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ovperception.backbones.base import BackboneSpec, Features, FeatureSpec
from ovperception.errors import InvalidParameter
from ovperception.proposals import Proposer, TrainableProposer, build_proposer
from ovperception.proposals.anchors import decode_deltas, encode_deltas
from ovperception.proposals.clip_rpn import IGNORED, NOTHING, ClipRPN, ClipRPNSettings, assign_anchors

STAGES = {"stem": (4, 4), "res2": (4, 4), "res3": (6, 8), "res4": (8, 16), "res5": (10, 32)}


def spec(stages: dict[str, tuple[int, int]] = STAGES) -> BackboneSpec:
    return BackboneSpec(
        name="",
        family="resnet",
        digest="",
        text_digest="",
        stages={k: FeatureSpec(channels=c, stride=s) for k, (c, s) in stages.items()},
        embed_dim=8,
        image_size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        logit_scale=100.0,
    )


def proposer(**settings: Any) -> ClipRPN:
    torch.manual_seed(0)
    built = build_proposer({"kind": "clip-rpn", "width": 16, **settings}, spec())
    assert isinstance(built, ClipRPN)
    return built


def features(count: int, size: tuple[int, int], seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    maps = {
        name: torch.rand(count, c, size[0] // s, size[1] // s, generator=generator)
        for name, (c, s) in STAGES.items()
    }
    return Features(maps=maps, image_size=size)


@pytest.mark.parametrize("size", [(64, 96), (61, 83), (33, 32)])
@pytest.mark.parametrize("stages", [("res3", "res4", "res5"), ("res2", "res3", "res4", "res5"), ("res4",)])
def test_boxes_lie_in_the_picture_likeliest_first(size: tuple[int, int], stages: tuple[str, ...]) -> None:
    made = proposer(stages=stages, post_nms_top_k=30)
    assert isinstance(made, Proposer)
    assert isinstance(made, TrainableProposer)
    for found in made.propose(features(2, size)):
        assert 0 < len(found) <= 30
        assert found.boxes.min() >= 0
        assert found.boxes[:, 0::2].max() <= size[1]
        assert found.boxes[:, 1::2].max() <= size[0]
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert (found.objectness.diff() <= 0).all()
        assert not found.objectness.requires_grad


def test_a_batch_is_its_images() -> None:
    made = proposer()
    batch = features(3, (64, 96))
    for index, together in enumerate(made.propose(batch)):
        (alone,) = made.propose(batch.image(index))
        torch.testing.assert_close(together.boxes, alone.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(together.objectness, alone.objectness, rtol=1e-4, atol=1e-4)


def test_anchors_of_a_level_follow_its_stride() -> None:
    made = proposer(scales=(2.0,))
    sides = [
        (level.anchors[:, 2:] - level.anchors[:, :2]).prod(1).sqrt()
        for level in made.outputs(features(1, (64, 64)))
    ]
    assert [len(s) for s in sides] == [3 * 64, 3 * 16, 3 * 4, 3]
    assert [float(s.min()) for s in sides] == pytest.approx([16, 32, 64, 128])
    assert [float(s.max()) for s in sides] == pytest.approx([16, 32, 64, 128])


def test_each_anchor_finds_the_object_it_fits() -> None:
    anchors = torch.tensor(
        [
            [0.0, 0, 10, 10],  # fits object 0
            [0, 0, 10, 20],  # half of it
            [40, 40, 50, 50],  # nothing
            [60, 0, 70, 4],  # the best of object 1, however bad
            [0, 0, 11, 10],  # fits object 0 as well
        ]
    )
    boxes = torch.tensor([[0.0, 0, 10, 10], [60, 0, 70, 20]])
    owner = assign_anchors(anchors, boxes, positive_iou=0.6, negative_iou=0.4, per_object=1)
    assert owner.tolist() == [0, IGNORED, NOTHING, 1, 0]
    none = assign_anchors(anchors, boxes[:0], positive_iou=0.6, negative_iou=0.4, per_object=1)
    assert none.tolist() == [NOTHING] * 5
    greedy = assign_anchors(anchors, boxes, positive_iou=0.6, negative_iou=0.4, per_object=5)
    assert greedy.tolist() == [0, 0, NOTHING, 1, 0]  # what does not touch an object is never its own


def test_an_anchor_wanted_by_two_goes_to_the_closer() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [100, 100, 110, 110]])
    boxes = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 6]])
    for order in ([0, 1], [1, 0]):
        owner = assign_anchors(anchors, boxes[order], positive_iou=0.9, negative_iou=0.3, per_object=1)
        assert owner.tolist() == [order.index(0), NOTHING]


def test_deltas_take_a_box_to_another_and_back() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 20], [5, 6, 7, 9]])
    targets = torch.tensor([[5.0, 0, 25, 20], [4, 4, 8, 8]])
    weights = (10.0, 10.0, 5.0, 5.0)
    deltas = encode_deltas(boxes, targets, weights)
    assert deltas[0].tolist() == pytest.approx([10, 0, 5 * 0.693147, 0], abs=1e-5)
    torch.testing.assert_close(decode_deltas(boxes, deltas, weights), targets)


def test_it_learns_to_find_what_the_maps_show() -> None:
    """Objects light up one channel of every stage; the boxes of unseen pictures are found after a while."""
    made = proposer(width=32, stages=("res2", "res3", "res4"))
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    first = last = 0.0
    for step in range(60):
        shown, boxes = _lit(step)
        losses = made.losses(shown, boxes)
        assert losses.keys() == {"objectness", "proposal_box"}
        loss = torch.stack([*losses.values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in made.parameters())
        optimizer.step()
        first, last = first or float(loss.detach()), float(loss.detach())
    assert last < 0.6 * first
    shown, boxes = _lit(1000)
    for found, truth in zip(made.propose(shown), boxes, strict=True):
        centre = (found.boxes[0, :2] + found.boxes[0, 2:]) / 2
        assert ((centre - (truth[0, :2] + truth[0, 2:]) / 2).abs() < 6).all()


def _lit(seed: int) -> tuple[Features, list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shown = features(2, (64, 64), seed)
    boxes = []
    for image in range(2):
        x, y = (torch.randint(0, 4, (2,), generator=generator) * 8).tolist()
        boxes.append(torch.tensor([[x, y, x + 24, y + 24]], dtype=torch.float32))
        for name, (_, stride) in STAGES.items():
            lit = slice(y // stride, -(-(y + 24) // stride)), slice(x // stride, -(-(x + 24) // stride))
            shown.maps[name][image, 0, *lit] = 5.0
    return shown, boxes


def test_a_picture_without_objects_has_objectness_to_learn() -> None:
    losses = proposer().losses(features(1, (64, 64)), [torch.zeros(0, 4)])
    assert float(losses["objectness"].detach()) > 0
    assert float(losses["proposal_box"].detach()) == 0
    torch.stack(list(losses.values())).sum().backward()


def test_settings_go_round() -> None:
    settings = ClipRPNSettings(stages=("res2", "res3"), scales=(2.5,), post_nms_top_k=7)
    assert ClipRPNSettings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": ["res3", "res5"]}, "halve one another.*res4 .stride 16."),
        ({"stages": ["layer3"]}, "halve one another"),
        ({"stages": []}, "nothing to propose on"),
        ({"scales": [0]}, "nothing to propose on"),
        ({"nms_iou": 2}, "nms_iou"),
        ({"positive_iou": "high"}, "positive_iou"),
        ({"post_nms_top_k": 0}, "post_nms_top_k"),
        ({"variant": "fpn"}, "Unknown settings.*variant"),
    ],
)
def test_what_cannot_be_built_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        proposer(**settings)
