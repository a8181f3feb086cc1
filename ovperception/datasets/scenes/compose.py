"""Scenes: things on stuff, with the exact truth of every pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.scenes import naming
from ovperception.datasets.scenes.atlas import UInt8
from ovperception.datasets.scenes.categories import (
    STUFF_NAMES,
    StuffName,
    load_categories,
    stuff_category,
    thing,
)
from ovperception.datasets.scenes.colours import COLOURS, Colour
from ovperception.datasets.scenes.drawing import DrawnObject, cast_shadow, draw_object, lay_down
from ovperception.datasets.scenes.layout import Arrangement, stuff_regions
from ovperception.datasets.scenes.sample import Int32, SceneSample, SegmentTruth
from ovperception.datasets.scenes.textures import paint_stuff
from ovperception.errors import InvalidParameter

MIN_OBJECT_PIXELS = 20
MAX_OBJECT_FRACTION = 0.45
MIN_SCENE_SIDE = 32
_PLACE_ATTEMPTS = 12
_CAPTIONED_OBJECTS = 4


def render_scene(
    rng: np.random.Generator | int,
    size: tuple[int, int] = (512, 512),
    *,
    categories: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
    count: tuple[int, int] = (3, 12),
    colour_probability: float = 0.3,
    degrade: bool = True,
) -> SceneSample:
    """Makes one scene.

    Args:
        rng: a generator, or the seed of one; the same seed gives the same scene.
        size: (height, width), each at least 32.
        categories: ids of the things to draw from; all things by default.
        weights: how often each of them is drawn, in proportion; evenly by default.
        count: (least, most) objects tried; crowded scenes may end with fewer.
        colour_probability: share of objects with a colour attribute.
        degrade: now and then blur, add noise or compress a little.

    Raises:
        InvalidParameter: a bad size, count, category or weight.
    """
    ids, shares = _choices(categories, weights)
    _check(size, count, colour_probability)
    if not isinstance(rng, np.random.Generator):
        rng = np.random.Generator(np.random.PCG64(rng))
    regions, stuffs = stuff_regions(rng, size, int(rng.choice(3, p=(0.35, 0.45, 0.2))) + 1)
    image = _ground(rng, regions, stuffs)
    arrangement = Arrangement(top_object=np.zeros(size, np.int32))
    objects: list[tuple[int, Colour | None]] = []
    shadows = rng.random() < 0.5
    for _ in range(int(rng.integers(count[0], count[1] + 1))):
        category_id = int(ids[int(np.searchsorted(shares, rng.random(), side="right"))])
        colour = COLOURS[int(rng.integers(len(COLOURS)))] if rng.random() < colour_probability else None
        if _add_object(rng, image, arrangement, category_id, colour, shadows=shadows):
            objects.append((category_id, colour))
    panoptic, segments = _truth(arrangement, objects, regions, stuffs)
    captions = _captions(rng, segments, panoptic, regions, stuffs)
    return SceneSample(
        image=_degraded(rng, image) if degrade else image,
        panoptic=panoptic,
        segments=segments,
        captions=captions,
    )


def _check(size: tuple[int, int], count: tuple[int, int], colour_probability: float) -> None:
    if min(size) < MIN_SCENE_SIDE:
        raise InvalidParameter(
            "The scene is too small",
            field="size",
            expected=f"(height, width), each at least {MIN_SCENE_SIDE}",
            got=size,
        )
    if not 0 <= count[0] <= count[1]:
        raise InvalidParameter(
            "The count of objects is impossible",
            field="count",
            expected="(least, most) with 0 <= least <= most",
            got=count,
        )
    if not 0 <= colour_probability <= 1:
        raise InvalidParameter(
            "This is no probability",
            field="colour_probability",
            expected="a number from 0 to 1",
            got=colour_probability,
        )


def _choices(
    categories: Sequence[int] | None, weights: Sequence[float] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Gives the ids to draw from and their cumulated shares."""
    things = len(load_categories()) - len(STUFF_NAMES)
    ids = np.arange(1, things + 1) if categories is None else np.array([thing(i).id for i in categories])
    if not len(ids):
        raise InvalidParameter(
            "There is nothing to draw from",
            field="categories",
            expected="at least one thing's id, or None for all",
        )
    raw = np.ones(len(ids)) if weights is None else np.array(weights, np.float64)
    if raw.shape != ids.shape or not np.isfinite(raw).all() or raw.min() < 0 or raw.sum() <= 0:
        raise InvalidParameter(
            "The weights do not fit the categories",
            field="weights",
            expected=f"{len(ids)} finite numbers of at least 0, not all 0",
        )
    shares = np.cumsum(raw) / raw.sum()
    shares[-1] = 1.0
    return ids, shares


def _ground(rng: np.random.Generator, regions: NDArray[np.uint8], stuffs: tuple[StuffName, ...]) -> UInt8:
    size = (regions.shape[0], regions.shape[1])
    image = paint_stuff(rng, stuffs[0], size)
    for index, stuff in enumerate(stuffs[1:], start=1):
        inside = regions == index
        image[inside] = paint_stuff(rng, stuff, size)[inside]
    return image


def _add_object(
    rng: np.random.Generator,
    image: UInt8,
    arrangement: Arrangement,
    category_id: int,
    colour: Colour | None,
    *,
    shadows: bool,
) -> bool:
    """Draws a thing and looks for a place for it; says whether it found one."""
    height, width = image.shape[:2]
    largest = MAX_OBJECT_FRACTION * min(height, width)
    smallest = min(MIN_OBJECT_PIXELS, largest)
    for attempt in range(_PLACE_ATTEMPTS):
        if attempt % 4 == 0:
            drawn = _draw(rng, category_id, colour, smallest, largest)
        rows, columns = drawn.mask.shape
        top = int(rng.integers(-rows // 4, max(height - rows * 3 // 4, -rows // 4 + 1)))
        left = int(rng.integers(-columns // 4, max(width - columns * 3 // 4, -columns // 4 + 1)))
        if arrangement.try_place(drawn, top, left):
            if shadows:
                shift = max(1, rows // 16)
                cast_shadow(image, drawn, top + shift, left + shift // 2, rng.uniform(0.2, 0.5))
            lay_down(image, drawn, top, left)
            return True
    return False


def _draw(
    rng: np.random.Generator, category_id: int, colour: Colour | None, smallest: float, largest: float
) -> DrawnObject:
    span = math.exp(rng.uniform(math.log(smallest), math.log(largest)))
    angle = rng.uniform(-math.pi, math.pi) if rng.random() < 0.07 else rng.normal(0, math.radians(12))
    return draw_object(
        category_id,
        span=round(span, 3),
        angle=angle,
        mirrored=bool(rng.random() < 0.5),
        colour=colour,
        gain=rng.uniform(0.85, 1.1),
        offset=rng.uniform(-14, 14),
    )


def _box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def _truth(
    arrangement: Arrangement,
    objects: list[tuple[int, Colour | None]],
    regions: NDArray[np.uint8],
    stuffs: tuple[StuffName, ...],
) -> tuple[Int32, tuple[SegmentTruth, ...]]:
    panoptic = np.where(arrangement.top_object > 0, arrangement.top_object, regions + len(objects) + 1)
    panoptic = panoptic.astype(np.int32)
    segments: list[SegmentTruth] = []
    for number, (category_id, colour) in enumerate(objects, start=1):
        area = arrangement.visible[number]
        segments.append(
            SegmentTruth(
                id=number,
                category_id=category_id,
                is_thing=True,
                colour=colour,
                box=_box(panoptic == number),
                area=area,
                occluded=1 - area / arrangement.totals[number],
            )
        )
    for index, stuff in enumerate(stuffs):
        mask = panoptic == index + len(objects) + 1
        if mask.any():
            segments.append(
                SegmentTruth(
                    id=index + len(objects) + 1,
                    category_id=stuff_category(stuff).id,
                    is_thing=False,
                    colour=None,
                    box=_box(mask),
                    area=int(mask.sum()),
                    occluded=0.0,
                )
            )
    return panoptic, tuple(segments)


def _captions(
    rng: np.random.Generator,
    segments: tuple[SegmentTruth, ...],
    panoptic: Int32,
    regions: NDArray[np.uint8],
    stuffs: tuple[StuffName, ...],
) -> tuple[str, ...]:
    """Says the scene (its largest objects and main stuff), then each object with what it stands on."""
    categories = load_categories()
    things = [segment for segment in segments if segment.is_thing]
    main_stuff = stuffs[int(np.bincount(regions.ravel()).argmax())]
    phrases: list[str] = []
    for segment in sorted(things, key=lambda segment: -segment.area)[:_CAPTIONED_OBJECTS]:
        name = naming.pick_name(rng, categories[segment.category_id - 1], 0.25)
        phrase = naming.with_article(f"{segment.colour} {name}" if segment.colour else name, name=name)
        if phrase not in phrases:
            phrases.append(phrase)
    where = naming.place(main_stuff, naming.pick_name(rng, stuff_category(main_stuff), 0.2))
    scene = (
        naming.join_phrases(phrases) + " " + where
        if phrases
        else naming.pick_name(rng, stuff_category(main_stuff))
    )
    captions = [f"a photo of {scene}."]
    for segment in things:
        under = np.bincount(regions[panoptic == segment.id], minlength=len(stuffs))
        stuff = stuffs[int(under.argmax())]
        captions.append(naming.crop_caption(rng, categories[segment.category_id - 1], segment.colour, stuff))
    return tuple(captions)


def _degraded(rng: np.random.Generator, image: UInt8) -> UInt8:
    draw = rng.random()
    if draw < 0.12:
        return cv2.GaussianBlur(image, (3, 3), 0).astype(np.uint8, copy=False)
    if draw < 0.24:
        amount = int(rng.integers(4, 13))
        grain = rng.integers(-amount, amount + 1, image.shape, dtype=np.int16)
        grainy: UInt8 = np.clip(image + grain, 0, 255).astype(np.uint8)
        return grainy
    if draw < 0.36:
        quality = int(rng.integers(60, 96))
        _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        assert decoded is not None
        return np.ascontiguousarray(decoded[..., ::-1]).astype(np.uint8, copy=False)
    return image
