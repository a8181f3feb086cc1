"""RegionCLIP's losses: hand-worked values, the official arithmetic written out, and where that fails."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.regionclip import RegionCLIP, RegionCLIPConfig
from heads.regionclip.losses import (
    LossSettings,
    box_regression_loss,
    classification_loss,
    concept_contrastive_loss,
    image_text_loss,
    pseudo_concepts,
    region_distillation_loss,
    sample_regions,
)
from ovperception.backbones.base import Features
from ovperception.errors import Unsupported
from ovperception.proposals import Proposals
from ovperception.text import TextClassifier
from ovperception.training.targets import Targets, TrainableHead
from ovperception.vocabulary import Vocabulary, VocabularyClass

AXES = torch.eye(3)


def directions(*degrees: float) -> Tensor:
    """Unit vectors in a plane, of different lengths: only their direction may count."""
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    lengths = torch.arange(1, len(degrees) + 1)[:, None]
    return (torch.stack((angles.cos(), angles.sin()), dim=1) * lengths).float()


def test_a_teacher_keeps_what_it_is_sure_of() -> None:
    teacher = torch.tensor([[3.0, 0, 0], [1, 1, 1], [0, 0, 0.5]])
    found = pseudo_concepts(teacher, AXES, temperature=0.1, threshold=0.5)
    assert found.kept.tolist() == [True, False, True]
    assert found.labels.tolist() == [0, 2]
    assert found.probabilities[0].tolist() == pytest.approx(
        [1 / (1 + 2 * math.exp(-10)), *2 * [math.exp(-10) / (1 + 2 * math.exp(-10))]], rel=1e-5
    )


def test_a_teacher_that_is_sure_of_nothing_keeps_everything() -> None:
    found = pseudo_concepts(torch.ones(2, 3), AXES, threshold=0.5)
    assert found.kept.tolist() == [True, True]
    assert found.probabilities.shape == (2, 3)


def test_distillation_is_the_divergence_a_region() -> None:
    student, concepts = directions(0, 60), directions(0, 90)
    teacher = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    logits = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(3) / 2]]) / 0.5
    expected = F.kl_div(logits.softmax(1).log(), teacher, reduction="batchmean")  # the official line
    loss = region_distillation_loss(student, concepts, teacher, temperature=0.5)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    own = logits.softmax(1)
    assert float(region_distillation_loss(student, concepts, own, temperature=0.5)) == pytest.approx(
        0, abs=1e-6
    )


def test_distillation_stays_finite_where_a_probability_underflows() -> None:
    student = torch.tensor([[1.0, 0.0]], requires_grad=True)
    concepts, teacher = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
    assert (F.cosine_similarity(student, concepts) / 0.01).softmax(0).log().isinf().any()
    loss = region_distillation_loss(student, concepts, teacher)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(100 - math.log(2), rel=1e-4)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_regions_of_one_concept_are_right_together() -> None:
    student, concepts = directions(10, 20, 80), directions(0, 90, 45)
    labels = torch.tensor([0, 0, 1])
    loss = concept_contrastive_loss(student, concepts, labels, temperature=0.2)
    cosines = [
        [math.cos(math.radians(d - t)) / 0.2 for t in (0, 0, 90)] for d in (10, 20, 80)
    ]  # against the concepts of all three regions
    rows = [[math.exp(c) for c in row] for row in cosines]
    rights = [(0, 1), (0, 1), (2,)]
    expected = [-math.log(sum(row[i] for i in own) / sum(row)) for row, own in zip(rows, rights, strict=True)]
    assert float(loss) == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_the_contrast_stays_finite_where_a_probability_underflows() -> None:
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    concepts = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    loss = concept_contrastive_loss(student, concepts, torch.tensor([0, 1]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(100)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_images_and_texts_find_each_other() -> None:
    images, texts = directions(0, 50), directions(10, 90)
    logits = torch.tensor([[math.cos(math.radians(d - t)) for t in (10, 90)] for d in (0, 50)]) / 0.1
    rows = (logits.logsumexp(1) - logits.diagonal()).mean()
    columns = (logits.logsumexp(0) - logits.diagonal()).mean()
    loss = image_text_loss(images, texts, temperature=0.1)
    assert float(loss) == pytest.approx(float(rows + columns) / 2, rel=1e-5)
    assert float(image_text_loss(texts, images, temperature=0.1)) == pytest.approx(float(loss), rel=1e-5)


LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 1, 2, 2])  # the last two are background


def certainties() -> list[float]:
    return LOGITS.double().softmax(1)[torch.arange(4), LABELS].tolist()


def test_coco_scales_by_focus_and_divides_by_the_number_of_regions() -> None:
    terms = [-math.log(p) * math.sqrt(1 - p) for p in certainties()]
    expected = (terms[0] + terms[1] + 0.2 * terms[2] + 0.2 * terms[3]) / 4
    assert float(classification_loss(LOGITS, LABELS)) == pytest.approx(expected, rel=1e-6)


def test_lvis_divides_by_the_sum_of_the_weights() -> None:
    terms = [-math.log(p) for p in certainties()]
    expected = (terms[0] + terms[1] + 0.8 * terms[2] + 0.8 * terms[3]) / 3.6
    loss = classification_loss(LOGITS, LABELS, background_weight=0.8, focal_gamma=None)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    official = F.cross_entropy(LOGITS, LABELS, weight=torch.tensor([1.0, 1.0, 0.8]))
    assert float(loss) == pytest.approx(float(official), rel=1e-6)


def test_a_region_named_with_certainty_has_a_gradient_of_zero() -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 1.0]], requires_grad=True)
    classification_loss(logits, torch.tensor([0, 0])).backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == [0, 0]
    assert logits.grad.isfinite().all()
    assert logits.grad[1].abs().min() > 0


def test_boxes_are_judged_where_something_is_and_divided_by_all() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 20], [5, 5, 15, 15], [0, 0, 4, 4]])
    targets = torch.tensor([[1.0, 0, 11, 20], [5, 5, 25, 15], [9, 9, 9, 9]])
    deltas = torch.tensor([[0.5, 0.0, 0.0, 0.25], [5.0, 0.0, 0.0, 0.0], [7.0, 7, 7, 7]])
    # dx = 1/10 * 10 = 1; the second: dx = 5/10 * 10 = 5, dw = ln 2 * 5
    expected = (0.5 + 0.25 + 5 * math.log(2)) / 3
    loss = box_regression_loss(deltas, boxes, targets, torch.tensor([True, True, False]))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("regions", [0, 2])
def test_nothing_to_learn_from_costs_nothing(regions: int) -> None:
    nothing = torch.zeros(regions, 4, requires_grad=True)
    loss = box_regression_loss(nothing, nothing, nothing, torch.zeros(regions, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0
    empty, none = torch.zeros(0, 3, requires_grad=True), torch.zeros(0, dtype=torch.long)
    for zero in (
        classification_loss(empty, none),
        region_distillation_loss(empty, AXES, empty.detach()),
        concept_contrastive_loss(empty, AXES, none),
    ):
        zero.backward()
        assert float(zero.detach()) == 0


def test_a_quarter_of_the_regions_have_an_object() -> None:
    truth = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    near = truth[0] + torch.rand(40, 4)
    far = torch.tensor([20.0, 20, 30, 30]) + torch.rand(40, 4)
    settings = LossSettings(regions=16)
    found = sample_regions(torch.cat((near, far)), truth, settings)
    assert found.boxes.shape == (16, 4)
    assert (found.objects[:4] >= 0).all()
    assert (found.objects[4:] == -1).all()
    few = sample_regions(far, truth, settings)  # the true boxes are regions, too
    assert few.objects.tolist() == pytest.approx([*few.objects[:2].tolist(), *[-1] * 14])
    assert set(few.objects[:2].tolist()) == {0, 1}
    half = torch.tensor([[0.0, 0, 10, 5]])
    assert sample_regions(half, truth[:1], LossSettings(regions=8)).objects.tolist() == [0, 0]
    assert sample_regions(far, truth[:0], settings).objects.tolist() == [-1] * 16


class Pixels:
    """A backbone that embeds a box by its corners."""

    def embed_boxes(self, features: Features, boxes: list[Tensor]) -> Tensor:
        return torch.cat(boxes) / 64


class Whole(nn.Module):
    """Proposes the whole picture and has nothing to learn."""

    def propose(self, features: Features) -> list[Proposals]:
        return [Proposals(boxes=torch.tensor([[0.0, 0, 64, 64]]), objectness=torch.zeros(1))] * 2


class Learner(Whole):
    """The same, told what it is to find."""

    def losses(self, features: Features, boxes: list[Tensor]) -> dict[str, Tensor]:
        self.told = boxes
        return {"objectness": torch.tensor(1.0)}


TEXT = TextClassifier(
    embeddings=torch.eye(2, 4),
    vocabulary=Vocabulary(
        classes=(VocabularyClass(name="cup"), VocabularyClass(name="grass", is_thing=False))
    ),
    text_digest="",
)
TRUTH = [
    Targets(torch.tensor(ids), torch.zeros(len(ids), 64, 64, dtype=torch.bool), torch.tensor(boxes))
    for ids, boxes in (
        ([0, 1], [[4.0, 4, 60, 60], [0, 0, 64, 64]]),
        ([1], [[0.0, 0, 64, 64]]),
    )
]
FEATURES = Features(maps={"res4": torch.zeros(2, 1, 4, 4)}, image_size=(64, 64))


def head(proposer: nn.Module | None, **settings: bool) -> RegionCLIP:
    return RegionCLIP(RegionCLIPConfig(embed_dim=4, **settings), proposer)  # type: ignore[arg-type]


def test_a_head_learns_boxes_of_things_alone() -> None:
    learner = Learner()
    made = head(learner, box_deltas=True)
    assert isinstance(made, TrainableHead)
    losses = made.losses(Pixels(), FEATURES, TRUTH, TEXT)  # type: ignore[arg-type]
    assert [b.tolist() for b in learner.told] == [[[4, 4, 60, 60]], []]
    assert losses.keys() == {"objectness", "box"}
    losses["box"].backward()
    assert made.bbox_pred is not None
    assert made.bbox_pred.weight.grad is not None
    # Of three regions two have the object: one is the object, the other 64 wide and 56 when moved.
    with torch.no_grad():
        made.bbox_pred.weight.zero_()
    still = made.losses(Pixels(), FEATURES, TRUTH, TEXT)["box"]  # type: ignore[arg-type]
    assert float(still.detach()) == pytest.approx(2 * 5 * math.log(64 / 56) / 3, rel=1e-5)


def test_deltas_learn_without_a_proposer() -> None:
    losses = head(None, box_deltas=True).losses(Pixels(), FEATURES, TRUTH, TEXT)  # type: ignore[arg-type]
    assert losses.keys() == {"box"}


def test_a_head_with_nothing_to_learn_says_so() -> None:
    with pytest.raises(Unsupported, match="clip-rpn"):
        head(Whole()).losses(Pixels(), FEATURES, TRUTH, TEXT)  # type: ignore[arg-type]
