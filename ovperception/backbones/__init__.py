"""Frozen CLIP towers: one file a family, one contract (`base.Backbone`)."""

from ovperception.backbones.base import Backbone, BackboneSpec, Features, FeatureSpec
from ovperception.backbones.clip import ClipBackbone
from ovperception.backbones.loading import build_open_clip, from_open_clip, load_backbone

__all__ = [
    "Backbone",
    "BackboneSpec",
    "ClipBackbone",
    "FeatureSpec",
    "Features",
    "build_open_clip",
    "from_open_clip",
    "load_backbone",
]
