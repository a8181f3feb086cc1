"""Views of a picture: what holds for any draw, whatever the picture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovperception.errors import InvalidDataset, InvalidParameter
from ovperception.training.augmentations import (
    VOID,
    Augmentation,
    ColourJitter,
    LabelledImage,
    LargeScaleJitter,
    Placement,
    ShortestEdge,
    tight_boxes,
)

few = settings(max_examples=60, deadline=None)


@st.composite
def pictures(draw: st.DrawFn, kind: str = "any") -> LabelledImage:
    """A picture of 8 to 60 pixels a side with up to five objects: masks, a panoptic map, or boxes alone."""
    height, width = draw(st.integers(8, 60)), draw(st.integers(8, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    count = draw(st.integers(0, 5))
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        y, x = rng.integers(height - 3), rng.integers(width - 3)
        mask[y : y + rng.integers(3, height), x : x + rng.integers(3, width)] = True
        if kind == "any" and rng.random() < 0.5:
            mask &= rng.random((height, width)) < 0.8
    shown = draw(st.sampled_from(["masks", "panoptic", "boxes"])) if kind == "any" else "masks"
    ids = rng.choice(np.arange(1, 1 << 20), count, replace=False).astype(np.int32)
    panoptic = np.zeros((height, width), np.int32)
    if shown == "panoptic":
        for segment, mask in zip(ids, masks, strict=True):
            panoptic[mask] = segment
        masks = panoptic == ids[:, None, None]
    return LabelledImage(
        image=rng.integers(0, 256, (height, width, 3)).astype(np.uint8),
        class_ids=rng.integers(0, 9, count),
        boxes=tight_boxes(masks),
        masks=masks if shown == "masks" else None,
        panoptic=panoptic if shown == "panoptic" else None,
        segment_ids=ids if shown == "panoptic" else None,
    )


policies = st.builds(
    Augmentation,
    resize=st.one_of(
        st.none(),
        st.builds(LargeScaleJitter, size=st.just((48, 40)), scales=st.just((0.1, 2.0))),
        st.builds(ShortestEdge, edges=st.just((16, 24, 70)), longest=st.just(90)),
    ),
    crop=st.one_of(st.none(), st.just((48, 40)), st.just((13, 9))),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    colour=st.one_of(st.none(), st.just(ColourJitter())),
)


def _flip(size: tuple[int, int]) -> Placement:
    return Placement(source=size, resized=size, window=size, flip=True)


def _differences(a: LabelledImage, b: LabelledImage) -> list[str]:
    """The fields in which two labelled images differ."""
    names = [field.name for field in dataclasses.fields(LabelledImage)]
    return [name for name in names if not _same(getattr(a, name), getattr(b, name))]


def _same(one: object, other: object) -> bool:
    return one is other if one is None or other is None else np.array_equal(one, other)


@given(pictures())
@few
def test_flipping_twice_changes_nothing(sample: LabelledImage) -> None:
    flip = _flip(sample.size)
    seen = dataclasses.replace(
        sample, class_ids=np.arange(len(sample.class_ids))
    )  # to see which are kept: an empty mask is dropped
    once = flip.apply(seen)
    kept = once.class_ids
    assert _differences(flip.apply(once), _chosen(seen, kept)) == []
    assert np.array_equal(once.image, sample.image[:, ::-1])


def _chosen(sample: LabelledImage, kept: np.ndarray) -> LabelledImage:
    return dataclasses.replace(
        sample,
        class_ids=sample.class_ids[kept],
        boxes=sample.boxes[kept],
        masks=None if sample.masks is None else sample.masks[kept],
        segment_ids=None if sample.segment_ids is None else sample.segment_ids[kept],
    )


@given(pictures(), policies, st.integers(0, 2**31))
@few
def test_nothing_lies_outside_and_every_id_is_conserved(
    sample: LabelledImage, policy: Augmentation, seed: int
) -> None:
    seen = policy.view(sample, seed=seed, index=3, epoch=1)
    height, width = seen.size
    assert seen.image.dtype == np.uint8
    if policy.crop is not None:
        assert height <= policy.crop[0]
        assert width <= policy.crop[1]
    assert (seen.boxes >= 0).all()
    assert (seen.boxes <= np.tile([width, height], 2)).all()
    assert (seen.boxes[:, 2:] > seen.boxes[:, :2]).all()
    stack = seen.mask_stack()
    if stack is not None:
        assert stack.any(axis=(1, 2)).all()
        assert np.array_equal(seen.boxes, tight_boxes(stack))
    if seen.panoptic is not None and sample.panoptic is not None and seen.segment_ids is not None:
        left = set(np.unique(seen.panoptic)) - {VOID}
        assert left == set(seen.segment_ids)  # none invented, and those that are seen are told
        told = dict(zip(sample.segment_ids, sample.class_ids, strict=True))
        assert [told[i] for i in seen.segment_ids] == list(seen.class_ids)


@given(pictures(kind="rectangles"), policies, st.integers(0, 2**31))
@few
def test_boxes_alone_go_where_the_masks_go_within_a_pixel(
    sample: LabelledImage, policy: Augmentation, seed: int
) -> None:
    placement = policy.placement(sample.size, np.random.default_rng(seed))
    assert sample.masks is not None
    masks = placement.map(sample.masks)
    seen = masks.any(axis=(1, 2))
    apart = np.abs(placement.boxes(sample.boxes)[seen] - tight_boxes(masks)[seen])
    assert apart.max(initial=0) <= 1


@given(pictures(kind="rectangles"), st.floats(0.5, 3.0), st.booleans())
@few
def test_areas_scale_with_the_picture(sample: LabelledImage, factor: float, flip: bool) -> None:
    resized = round(sample.size[0] * factor), round(sample.size[1] * factor)
    placement = Placement(source=sample.size, resized=resized, window=resized, flip=flip)
    assert sample.masks is not None
    before = sample.masks.sum(axis=(1, 2)) * (resized[0] * resized[1]) / np.prod(sample.size)
    after = placement.map(sample.masks).sum(axis=(1, 2))
    boxes = tight_boxes(sample.masks)
    perimeter = 2 * (boxes[:, 2:] - boxes[:, :2]).sum(1) * factor + 4
    assert (np.abs(after - before) <= perimeter).all()  # off by less than a pixel along the border


@given(pictures(), policies, st.integers(0, 100), st.integers(0, 3))
@few
def test_a_view_is_a_function_of_seed_index_and_epoch(
    sample: LabelledImage, policy: Augmentation, index: int, epoch: int
) -> None:
    np.random.seed(index)
    one = policy.view(sample, seed=5, index=index, epoch=epoch)
    np.random.seed(1)
    assert _differences(one, policy.view(sample, seed=5, index=index, epoch=epoch)) == []


def test_views_differ_between_seeds_indices_and_epochs() -> None:
    policy = Augmentation.large_scale_jitter((64, 64))
    drawn = {
        policy.placement((90, 70), np.random.Generator(np.random.PCG64([*key])))
        for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    }
    assert len(drawn) == 4


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("factor", [2, 3])
def test_picture_and_truth_stay_in_register(flip: bool, factor: int) -> None:
    """A bright square, enlarged and cut: where the mask says, the picture is bright."""
    image = np.zeros((40, 50, 3), np.uint8)
    image[10:22, 5:31] = 255
    mask = image[..., 0] > 0
    resized = (40 * factor, 50 * factor)
    placement = Placement(source=(40, 50), resized=resized, top=7, left=11, window=(60, 70), flip=flip)
    bright = placement.picture(image)[..., 0] > 127
    assert bright.any()
    assert (bright != placement.map(mask)).sum() <= 4  # interpolation rounds the corners off


def test_a_shrunken_picture_is_in_register_too() -> None:
    image = np.zeros((80, 100, 3), np.uint8)
    image[16:48, 8:64] = 255
    placement = Placement(source=(80, 100), resized=(20, 25), top=2, left=1, window=(16, 20), flip=True)
    assert np.array_equal(placement.picture(image)[..., 0] > 127, placement.map(image[..., 0] > 127))


def test_the_window_of_an_enlarged_picture_is_that_of_the_whole() -> None:
    import cv2

    image = np.random.default_rng(0).integers(0, 256, (33, 41, 3)).astype(np.uint8)
    whole = cv2.resize(image, (97, 77), interpolation=cv2.INTER_LINEAR)
    placement = Placement(source=(33, 41), resized=(77, 97), top=9, left=20, window=(50, 60))
    off = np.abs(placement.picture(image).astype(int) - whole[9:59, 20:80])
    assert off.max() <= 5  # warpAffine rounds to 1/32 of a pixel
    assert off.mean() < 1


def test_large_scale_jitter_covers_its_range() -> None:
    policy = Augmentation.large_scale_jitter((100, 100))
    rng = np.random.default_rng(0)
    sides = [policy.placement((50, 80), rng).resized[1] for _ in range(400)]
    assert 10 <= min(sides) <= 13
    assert 195 <= max(sides) <= 200


@given(st.integers(0, 2**31))
@few
def test_colours_stay_in_range_and_grey_stays_grey(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grey = np.repeat(rng.integers(0, 256, (6, 7, 1)).astype(np.uint8), 3, axis=2)
    seen = ColourJitter(share=1.0).apply(grey, rng)
    assert seen.shape == grey.shape
    assert (seen.max(axis=2) - seen.min(axis=2) <= 1).all()


def test_colours_change_one_by_one() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    image[..., 0] = 200
    brighter = ColourJitter(share=1.0, brightness=30, contrast=(1, 1), saturation=(1, 1), hue=0)
    seen = brighter.apply(image, np.random.default_rng(3)).astype(int) - image
    assert seen.min() == seen.max() != 0
    same = ColourJitter(share=0.0).apply(image, np.random.default_rng(3))
    assert np.array_equal(same, image)


def test_what_does_not_fit_is_refused() -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(InvalidDataset, match="masks"):
        LabelledImage(
            image=image,
            class_ids=np.zeros(1, np.int64),
            boxes=np.zeros((1, 4), np.float32),
            masks=np.zeros((1, 5, 4), bool),
        )
    with pytest.raises(InvalidParameter, match="beyond"):
        Placement(source=(4, 5), resized=(4, 5), top=1, window=(4, 5))
    with pytest.raises(InvalidParameter, match="chance"):
        Augmentation(flip=1.5)
    with pytest.raises(InvalidParameter, match="scales"):
        LargeScaleJitter(size=(4, 4), scales=(2.0, 0.1))
