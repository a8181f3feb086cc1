"""The procedural world `scenes`: nameable things on stuff, with the exact truth of every pixel.

It needs no download. 659 things, drawn from an emoji font (see ``data/ATTRIBUTION.md``), lie on eight
procedural stuffs; a fifth of the things are novel: heads train without them and are judged on them.
"""

from ovperception.datasets.scenes.atlas import Sprite, load_atlas
from ovperception.datasets.scenes.categories import STUFF_NAMES, SceneCategory, StuffName, load_categories
from ovperception.datasets.scenes.colours import COLOURS, Colour
from ovperception.datasets.scenes.compose import render_scene
from ovperception.datasets.scenes.crops import render_crop, render_stuff_crop
from ovperception.datasets.scenes.naming import CAPTION_TEMPLATES, crop_caption
from ovperception.datasets.scenes.sample import SceneSample, SegmentTruth
from ovperception.datasets.scenes.splits import SPLITS, Split, scene, scene_seed
from ovperception.datasets.scenes.textures import paint_stuff

__all__ = [
    "CAPTION_TEMPLATES",
    "COLOURS",
    "SPLITS",
    "STUFF_NAMES",
    "Colour",
    "SceneCategory",
    "SceneSample",
    "SegmentTruth",
    "Split",
    "Sprite",
    "StuffName",
    "crop_caption",
    "load_atlas",
    "load_categories",
    "paint_stuff",
    "render_crop",
    "render_scene",
    "render_stuff_crop",
    "scene",
    "scene_seed",
]
