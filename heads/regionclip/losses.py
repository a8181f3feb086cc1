"""The losses of RegionCLIP: pretraining on pseudo concepts, and fine-tuning as a detector.

Sources: Zhong et al. 2022, sections 3.2 and 3.3; microsoft/RegionCLIP
`detectron2/modeling/meta_arch/clip_rcnn.py` (pretraining) and
`detectron2/modeling/roi_heads/{fast_rcnn,roi_heads}.py` (fine-tuning). Two things differ, both where the
official arithmetic fails: the distillation takes the log of a softmax in one step (the official one is
infinite where a probability underflows), and the focal factor of a region that is named with certainty has no
gradient (the official one is NaN where 1 - p rounds to 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from ovperception.proposals.anchors import encode_deltas

__all__ = [
    "LossSettings",
    "PseudoConcepts",
    "SampledRegions",
    "box_regression_loss",
    "classification_loss",
    "concept_contrastive_loss",
    "image_text_loss",
    "pseudo_concepts",
    "region_distillation_loss",
    "sample_regions",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """Weights and sampling of detection fine-tuning; the defaults are the published ones for COCO.

    Attributes:
        background_weight: of regions with nothing in them, in the class loss; 0.8 for LVIS.
        focal_gamma: exponent of the class loss's factor (1 - p); None for LVIS: a weighted mean without it.
        box_weight: of the box loss.
        regions: sampled of an image.
        foreground_share: at most this share of them has an object.
        foreground_iou: a region has the object that it overlaps at least this much.
    """

    background_weight: float = 0.2
    focal_gamma: float | None = 0.5
    box_weight: float = 1.0
    regions: int = 512
    foreground_share: float = 0.25
    foreground_iou: float = 0.5


@dataclass(frozen=True)
class PseudoConcepts:
    """What a teacher takes the regions of a batch for.

    Attributes:
        kept: (R,) bool, the M regions that it is sure enough of.
        probabilities: (M, K) of these.
        labels: (M,) int64, their likeliest concepts.
    """

    kept: Tensor
    probabilities: Tensor
    labels: Tensor


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    return F.normalize(a.float(), dim=-1) @ F.normalize(b.float(), dim=-1).T


@torch.no_grad()
def pseudo_concepts(
    teacher: Tensor, concepts: Tensor, *, temperature: float = 0.01, threshold: float = 0.1
) -> PseudoConcepts:
    """Name regions by a teacher's embeddings.

    Args:
        teacher: (R, D), of any length.
        concepts: (K, D), of any length.
        temperature: cosines are divided by it.
        threshold: regions whose likeliest concept is not above it are left out; if that is every region, all
            are kept.
    """
    probabilities = (_cosines(teacher, concepts) / temperature).softmax(dim=1)
    best, labels = probabilities.max(dim=1)
    kept = best > threshold
    if not kept.any():
        kept = torch.ones_like(kept)
    return PseudoConcepts(kept=kept, probabilities=probabilities[kept], labels=labels[kept])


def region_distillation_loss(
    student: Tensor, concepts: Tensor, probabilities: Tensor, *, temperature: float = 0.01
) -> Tensor:
    """Kullback-Leibler divergence of the student's concepts from the teacher's, a mean over regions.

    Args:
        student: (M, D) embeddings of the kept regions, of any length.
        concepts: (K, D), of any length.
        probabilities: (M, K) of the teacher.
        temperature: cosines are divided by it.

    Returns:
        A scalar; 0 without regions.
    """
    if not len(student):
        return student.sum() * 0
    found = (_cosines(student, concepts) / temperature).log_softmax(dim=1)
    return F.kl_div(found, probabilities.float(), reduction="batchmean")


def concept_contrastive_loss(
    student: Tensor, concepts: Tensor, labels: Tensor, *, temperature: float = 0.01
) -> Tensor:
    """Each region against the concepts of all regions of the batch; all that equal its own are right.

    Args:
        student: (M, D) embeddings of the kept regions, of any length.
        concepts: (K, D), of any length.
        labels: (M,) int64, their concepts.
        temperature: cosines are divided by it.

    Returns:
        The mean of -log of the probability that falls on the right ones; 0 without regions.
    """
    if not len(student):
        return student.sum() * 0
    found = (_cosines(student, concepts[labels]) / temperature).log_softmax(dim=1)  # (M, M)
    right = labels[:, None] == labels
    return -found.masked_fill(~right, -torch.inf).logsumexp(dim=1).mean()


def image_text_loss(images: Tensor, texts: Tensor, *, temperature: float = 0.01) -> Tensor:
    """Cross entropy of each image over the texts and of each text over the images, their mean.

    Args:
        images: (B, D), of any length.
        texts: (B, D), of any length; text i belongs to image i.
        temperature: cosines are divided by it.
    """
    logits = _cosines(images, texts) / temperature
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def classification_loss(
    logits: Tensor, labels: Tensor, *, background_weight: float = 0.2, focal_gamma: float | None = 0.5
) -> Tensor:
    """Cross entropy over classes and background.

    Args:
        logits: (R, K + 1), the background last.
        labels: (R,) int64, 0 to K.
        background_weight: of the regions labelled K.
        focal_gamma: each region's term is scaled by (1 - p) ** gamma, p being the probability of its label,
            and the mean is plain. None: no such factor, and the mean is divided by the sum of the weights.

    Returns:
        A scalar; 0 without regions.
    """
    if not len(labels):
        return logits.sum() * 0
    logits = logits.float()
    background = logits.shape[1] - 1
    weights = torch.where(labels == background, background_weight, 1.0)
    entropy = F.cross_entropy(logits, labels, reduction="none")
    if focal_gamma is None:
        return (weights * entropy).sum() / weights.sum().clamp(min=1e-12)
    missing = -torch.expm1(-entropy)  # 1 - p
    # Where it rounds to 0 the root has no finite slope; the product's limit is 0.
    factor = missing.clamp(min=torch.finfo(missing.dtype).tiny) ** focal_gamma
    return (weights * entropy * factor).mean()


def box_regression_loss(
    deltas: Tensor,
    boxes: Tensor,
    targets: Tensor,
    foreground: Tensor,
    *,
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
) -> Tensor:
    """Absolute errors of the deltas of regions with an object, over the number of all regions.

    Args:
        deltas: (R, 4) predicted, the same for all classes.
        boxes: (R, 4) xyxy, what they move.
        targets: (R, 4) xyxy, where to; of any value where there is no object.
        foreground: (R,) bool.
        weights: of the deltas.

    Returns:
        A scalar; 0 without regions. Dividing by all of them gives each region with an object the same say,
        however many there are.
    """
    wanted = encode_deltas(boxes[foreground].float(), targets[foreground].float(), weights)
    return (deltas[foreground].float() - wanted).abs().sum() / max(len(deltas), 1)


@dataclass(frozen=True)
class SampledRegions:
    """Regions of one image to learn from.

    Attributes:
        boxes: (R, 4) xyxy, those with an object first.
        objects: (R,) int64, index of the object in each, -1 for none.
    """

    boxes: Tensor
    objects: Tensor


@torch.no_grad()
def sample_regions(
    proposals: Tensor, truth: Tensor, settings: LossSettings, *, generator: torch.Generator | None = None
) -> SampledRegions:
    """Draw regions from the proposals and the true boxes.

    Args:
        proposals: (P, 4) xyxy.
        truth: (N, 4) xyxy.
        settings: how many, and which.
        generator: of the draw.

    Returns:
        At most ``settings.regions``, of which at most ``foreground_share`` have an object.
    """
    boxes = torch.cat((proposals, truth))
    if len(truth):
        overlap, owner = box_iou(boxes, truth).max(dim=1)
        owner = torch.where(overlap >= settings.foreground_iou, owner, -1)
    else:
        owner = torch.full((len(boxes),), -1, dtype=torch.long, device=boxes.device)
    most = int(settings.regions * settings.foreground_share)
    inside = _drawn((owner >= 0).nonzero()[:, 0], most, generator)
    outside = _drawn((owner < 0).nonzero()[:, 0], settings.regions - len(inside), generator)
    chosen = torch.cat((inside, outside))
    return SampledRegions(boxes=boxes[chosen], objects=owner[chosen])


def _drawn(indices: Tensor, most: int, generator: torch.Generator | None) -> Tensor:
    order: Sequence[int] | Tensor = torch.randperm(len(indices), generator=generator)
    return indices[torch.as_tensor(order, device=indices.device)[:most]]
