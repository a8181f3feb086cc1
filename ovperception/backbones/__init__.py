"""Frozen CLIP backbones."""
