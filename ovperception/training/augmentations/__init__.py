"""Pictures with their truth, seen anew each epoch: jitter of scale, crops, flips, colour."""

from ovperception.training.augmentations.colour import ColourJitter
from ovperception.training.augmentations.labelled_image import VOID, LabelledImage, tight_boxes
from ovperception.training.augmentations.placement import Placement
from ovperception.training.augmentations.policy import (
    Augmentation,
    LargeScaleJitter,
    ShortestEdge,
    view_seed,
)

__all__ = [
    "VOID",
    "Augmentation",
    "ColourJitter",
    "LabelledImage",
    "LargeScaleJitter",
    "Placement",
    "ShortestEdge",
    "tight_boxes",
    "view_seed",
]
