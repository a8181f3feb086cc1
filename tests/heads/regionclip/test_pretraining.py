"""The two trainings of RegionCLIP, put together of their losses, with gradients into a small image tower."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heads.regionclip import RegionCLIP
from heads.regionclip.losses import (
    LossSettings,
    SampledRegions,
    classification_loss,
    concept_contrastive_loss,
    image_text_loss,
    region_distillation_loss,
    sample_regions,
)
from heads.regionclip.pretraining import PretrainingSettings, detection_losses, pretraining_losses
from ovperception.backbones import build_open_clip
from ovperception.backbones.loading import from_open_clip
from ovperception.backbones.resnet import resnet_maps, roi_embeddings
from ovperception.errors import InvalidParameter
from ovperception.text import TextClassifier
from ovperception.training.targets import Targets
from ovperception.vocabulary import Vocabulary
from tests.ovperception.backbones.conftest import small_config

BOXES = [torch.tensor([[0.0, 0, 40, 60], [20, 10, 64, 64]]), torch.tensor([[4.0, 4, 60, 30]])]


def tower() -> tuple[Any, RegionCLIP]:
    config = small_config("resnet")
    torch.manual_seed(3)
    model, tokenizer = build_open_clip(config)
    backbone = from_open_clip(copy.deepcopy(model), "open_clip:small", tokenizer=tokenizer, config=config)
    head = RegionCLIP.from_settings({"box_deltas": True, "temperature": 0.1}, backbone.spec)
    visual: Any = model.visual
    return visual.eval().requires_grad_(True), head


def words(count: int, dim: int = 24) -> TextClassifier:
    rows = F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(5)), dim=1)
    vocabulary = Vocabulary.from_words([f"word {i}" for i in range(count)])
    return TextClassifier(embeddings=rows, vocabulary=vocabulary, text_digest="")


def test_the_terms_are_the_losses_of_the_kept_regions() -> None:
    torch.manual_seed(0)
    student, teacher, concepts = torch.randn(5, 8), torch.randn(5, 8), torch.randn(4, 8)
    images, captions = torch.randn(3, 8), torch.randn(3, 8)
    settings = PretrainingSettings(
        distillation_weight=2, concept_weight=3, caption_weight=0.5, temperature=0.2, threshold=0.6
    )
    found = pretraining_losses(
        student, teacher, concepts, images=images, captions=captions, settings=settings
    )
    sure = (F.normalize(teacher, dim=1) @ F.normalize(concepts, dim=1).T / 0.2).softmax(1)
    kept = sure.amax(1) > 0.6
    assert 0 < int(kept.sum()) < 5
    expected = {
        "distillation": 2 * region_distillation_loss(student[kept], concepts, sure[kept], temperature=0.2),
        "concept": 3
        * concept_contrastive_loss(student[kept], concepts, sure[kept].argmax(1), temperature=0.2),
        "caption": 0.5 * image_text_loss(images, captions, temperature=0.2),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert set(pretraining_losses(student, teacher, concepts)) == {"distillation", "concept"}
    nothing = pretraining_losses(student[:0].requires_grad_(), teacher[:0], concepts)
    assert [float(v.detach()) for v in nothing.values()] == [0, 0]


def test_a_student_comes_to_name_regions_as_its_teacher() -> None:
    visual, _ = tower()
    teacher = copy.deepcopy(visual).requires_grad_(False)
    with torch.no_grad():
        for parameter in teacher.attnpool.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    before = [p.clone() for p in teacher.parameters()]
    images, concepts = torch.randn(2, 3, 64, 64), words(6).embeddings
    captions = torch.randn(2, 24)
    optimiser = torch.optim.AdamW(visual.parameters(), lr=2e-3)
    history: list[dict[str, float]] = []
    for _ in range(12):
        maps = resnet_maps(visual, images)
        with torch.no_grad():
            told = roi_embeddings(teacher, resnet_maps(teacher, images)["res4"], BOXES)
        losses = pretraining_losses(
            roi_embeddings(visual, maps["res4"], BOXES),
            told,
            concepts,
            images=visual(F.interpolate(images, visual.image_size)),
            captions=captions,
            settings=PretrainingSettings(temperature=0.1),
        )
        optimiser.zero_grad()
        torch.stack([*losses.values()]).sum().backward()
        optimiser.step()
        history.append({k: float(v.detach()) for k, v in losses.items()})
    assert history[-1]["distillation"] < 0.5 * history[0]["distillation"]
    assert history[-1]["caption"] < history[0]["caption"]
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))


def truths() -> list[Targets]:
    masks = torch.zeros(0, 64, 64, dtype=torch.bool)
    first = Targets(class_ids=torch.tensor([1, -1]), masks=masks, boxes=BOXES[0])
    return [first, Targets(class_ids=torch.tensor([0]), masks=masks, boxes=BOXES[1])]


def test_fine_tuning_by_hand() -> None:
    """Base objects have their word, the rest is background, and an object without a class is neither."""
    _, head = tower()
    text, targets = words(3), truths()
    regions = [
        SampledRegions(
            boxes=torch.cat((BOXES[0], torch.tensor([[0.0, 0, 5, 5]]))), objects=torch.tensor([0, 1, -1])
        ),
        SampledRegions(boxes=BOXES[1], objects=torch.tensor([0])),
    ]
    embeddings = torch.randn(4, 24)
    settings = LossSettings(background_weight=0.3, focal_gamma=0.5, box_weight=2.0)
    found = detection_losses(head, embeddings, regions, targets, text, settings)
    judged, labels = [0, 2, 3], torch.tensor([1, 3, 0])
    logits = head.class_logits(embeddings[judged], text)
    expected = classification_loss(logits, labels, background_weight=0.3, focal_gamma=0.5)
    torch.testing.assert_close(found["class"], expected)
    # Three of the four regions lie on an object, exactly, so that every wanted delta is 0.
    assert head.bbox_pred is not None
    deltas = head.bbox_pred(embeddings[[0, 1, 3]])
    torch.testing.assert_close(found["box"], 2 * deltas.abs().sum() / 4)
    head.loss_settings = settings
    torch.testing.assert_close(detection_losses(head, embeddings, regions, targets, text), found)


def test_a_tower_is_tuned_as_a_detector_and_its_words_stay() -> None:
    visual, head = tower()
    text, targets, images = words(3), truths(), torch.randn(2, 3, 64, 64)
    rows = text.embeddings.clone()
    settings = LossSettings(regions=16, foreground_share=0.5)
    proposals = torch.rand(30, 2) * 40
    every = torch.cat((proposals, proposals + 20), dim=1)
    parameters = [*visual.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    regions = [sample_regions(every, t.boxes, settings, generator=generator) for t in targets]
    history = []
    for _ in range(10):
        found = roi_embeddings(visual, resnet_maps(visual, images)["res4"], [r.boxes for r in regions])
        losses = detection_losses(head, found, regions, targets, text, settings)
        optimiser.zero_grad()
        torch.stack([*losses.values()]).sum().backward()
        optimiser.step()
        history.append(float(losses["class"].detach()))
    assert history[-1] < 0.6 * history[0]
    assert torch.equal(rows, text.embeddings)


def test_what_does_not_belong_together_is_refused() -> None:
    some: Tensor = torch.randn(2, 8)
    for wrong in (
        {"teacher": torch.randn(3, 8)},
        {"images": some},
        {"images": some, "captions": torch.randn(3, 8)},
    ):
        arguments: dict[str, Any] = {"student": some, "teacher": some, "concepts": some} | wrong
        with pytest.raises(InvalidParameter):
            pretraining_losses(**arguments)
    _, head = tower()
    with pytest.raises(InvalidParameter, match="these regions"):
        detection_losses(head, torch.randn(3, 24), [], [], words(2))
    for bad in ({"temperature": 0}, {"concept_weight": -1}, {"threshold": float("nan")}):
        with pytest.raises(InvalidParameter):
            PretrainingSettings(**bad)
