"""Learning to name regions, with gradients into the image tower: RegionCLIP's two trainings as losses.

Zhong et al. 2022, section 3.2: a frozen teacher names the regions of captioned pictures by a pool of
concepts, and a student's regions learn from the names (distillation, contrast) while its whole picture learns
from the caption. Section 3.3: the student is then tuned as a detector on base classes, its classifier staying
the text. Both take region embeddings from whoever made them, so that any trunk can be trained: of a
ModifiedResNet, `ovperception.backbones.resnet.roi_embeddings` keeps gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from heads.regionclip.losses import (
    LossSettings,
    SampledRegions,
    box_regression_loss,
    classification_loss,
    concept_contrastive_loss,
    image_text_loss,
    pseudo_concepts,
    region_distillation_loss,
)
from ovperception.errors import InvalidParameter

if TYPE_CHECKING:
    from heads.regionclip.model import RegionCLIP
    from ovperception.text import TextClassifier
    from ovperception.training.targets import Targets

__all__ = ["PretrainingSettings", "detection_losses", "pretraining_losses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainingSettings:
    """Weights and constants; the defaults are the published ones.

    Attributes:
        distillation_weight, concept_weight, caption_weight: of the three terms.
        temperature: cosines are divided by it, the teacher's and the student's alike.
        threshold: regions whose likeliest concept the teacher gives no more than this are left out.
    """

    distillation_weight: float = 1.0
    concept_weight: float = 1.0
    caption_weight: float = 1.0
    temperature: float = 0.01
    threshold: float = 0.1

    def __post_init__(self) -> None:
        """Refuse weights and constants that no loss can be made of."""
        for name in ("distillation_weight", "concept_weight", "caption_weight", "threshold"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise InvalidParameter(f"{name} must not be negative", field=name, got=value)
        if not math.isfinite(self.temperature) or self.temperature <= 0:
            raise InvalidParameter(
                "The temperature must be positive", field="temperature", got=self.temperature
            )


def pretraining_losses(
    student: Tensor,
    teacher: Tensor,
    concepts: Tensor,
    *,
    images: Tensor | None = None,
    captions: Tensor | None = None,
    settings: PretrainingSettings | None = None,
) -> dict[str, Tensor]:
    """Region-text alignment of a batch.

    Args:
        student: (R, D) embeddings of the batch's regions, of any length, with gradients.
        teacher: (R, D) of the same regions by the frozen teacher.
        concepts: (K, D) embeddings of the pool of concepts.
        images: (B, D) the student's embeddings of the whole pictures; None with `captions`: regions alone.
        captions: (B, D) embeddings of their captions.
        settings: Weights and constants.

    Returns:
        ``distillation`` and ``concept``, and ``caption`` where there are captions, all weighted.

    Raises:
        InvalidParameter: Teacher and student do not look at the same regions, or captions and pictures do not
            belong together.
    """
    settings = PretrainingSettings() if settings is None else settings
    if student.shape[:1] != teacher.shape[:1] or student.ndim != 2 or teacher.ndim != 2:
        raise InvalidParameter(
            "Teacher and student look at the same regions",
            field="teacher",
            expected=f"({len(student)}, D)",
            got=tuple(teacher.shape),
        )
    if (images is None) != (captions is None) or (
        images is not None and captions is not None and images.shape != captions.shape
    ):
        raise InvalidParameter(
            "Every picture has its caption",
            field="captions",
            expected="none of both" if images is None else str(tuple(images.shape)),
            got="none" if captions is None else tuple(captions.shape),
        )
    told = {"temperature": settings.temperature}
    found: dict[str, Tensor] = {}
    if len(teacher):
        named = pseudo_concepts(teacher, concepts, threshold=settings.threshold, **told)
        kept, probabilities, labels = student[named.kept], named.probabilities, named.labels
    else:
        kept, probabilities = student, teacher.new_zeros(0, len(concepts))
        labels = torch.zeros(0, dtype=torch.long, device=teacher.device)
    distilled = region_distillation_loss(kept, concepts, probabilities, **told)
    found["distillation"] = settings.distillation_weight * distilled
    found["concept"] = settings.concept_weight * concept_contrastive_loss(kept, concepts, labels, **told)
    if images is not None and captions is not None:
        found["caption"] = settings.caption_weight * image_text_loss(images, captions, **told)
    return found


def detection_losses(
    head: RegionCLIP,
    embeddings: Tensor,
    regions: Sequence[SampledRegions],
    targets: Sequence[Targets],
    text: TextClassifier,
    settings: LossSettings | None = None,
) -> dict[str, Tensor]:
    """Detection fine-tuning of a batch, on base classes: nothing but the words of `text` is pushed away from.

    A region that lies on an object without a class (-1, such as one of a novel class that a data set marks)
    is no background: it is left out of the class loss.

    Args:
        head: Its classifier, temperature and deltas.
        embeddings: (sum R_i, D) of the regions, with gradients, not normalised.
        regions: B samples (`heads.regionclip.losses.sample_regions`) of the targets' boxes.
        targets: B truths.
        text: K base classes.
        settings: Focal factor, background's weight; None: the head's own.

    Returns:
        ``class``, and ``box`` where the head moves boxes, weighted.

    Raises:
        InvalidParameter: The embeddings are not of these regions.
    """
    settings = head.loss_settings if settings is None else settings
    count = sum(len(r.boxes) for r in regions)
    if len(embeddings) != count or len(regions) != len(targets):
        raise InvalidParameter(
            "The embeddings are not of these regions",
            field="embeddings",
            expected=str(count),
            got=len(embeddings),
        )
    labels, aims = [], []
    for region, truth in zip(regions, targets, strict=True):
        owned = region.objects >= 0
        label = torch.full_like(region.objects, len(text))
        label[owned] = truth.class_ids[region.objects[owned]]
        aim = region.boxes.clone()
        aim[owned] = truth.boxes[region.objects[owned]].to(aim)
        labels.append(label)
        aims.append(aim)
    label = torch.cat(labels)
    judged = label >= 0
    found = {
        "class": classification_loss(
            head.class_logits(embeddings[judged], text),
            label[judged],
            background_weight=settings.background_weight,
            focal_gamma=settings.focal_gamma,
        )
    }
    if head.bbox_pred is not None:
        found["box"] = settings.box_weight * box_regression_loss(
            head.bbox_pred(embeddings),
            torch.cat([r.boxes for r in regions]),
            torch.cat(aims),
            torch.cat([r.objects for r in regions]) >= 0,
            weights=head.config.delta_weights,
        )
    return found
