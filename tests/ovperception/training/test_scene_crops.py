"""Captioned crops in place: where they lie, what is said of them, and that masks are never seen."""

from __future__ import annotations

import numpy as np
import pytest

from ovperception.datasets import scenes
from ovperception.training.scene_crops import SceneCrops, _area, _Crop, _scene, _shaken, _windowed

MIXED = SceneCrops(seed=0, megapixels=0.3, native_size=64, native_share=0.0, colour_share=0.5, count=8)
THINGS = len(scenes.load_categories()) - len(scenes.STUFF_NAMES)


def test_a_batch_is_the_same_for_the_same_step() -> None:
    later = SceneCrops(
        seed=0, megapixels=0.3, native_size=64, native_share=0.0, colour_share=0.5, first=3, count=8
    )
    first, again = MIXED[3], later[0]
    assert np.array_equal(first.canvases, again.canvases)
    assert np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.classes, MIXED[4].classes)


@pytest.mark.parametrize("step", range(4))
def test_crops_lie_on_their_canvases(step: int) -> None:
    batch = MIXED[step]
    count, side = batch.canvases.shape[:2]
    assert len(batch.images) == len(batch.boxes) == len(batch.classes) == len(batch.colours) > 0
    assert batch.images.max() < count
    assert (np.diff(batch.images) >= 0).all()  # canvas by canvas
    assert (batch.boxes[:, :2] >= 0).all()
    assert (batch.boxes[:, 2:] <= side).all()
    assert (batch.boxes[:, 2:] > batch.boxes[:, :2]).all()
    assert batch.classes.max() < len(scenes.load_categories())
    assert set(batch.colours[batch.classes >= THINGS]) <= {-1}  # stuff has no colour


@pytest.mark.parametrize("step", range(4))
def test_cells_lie_in_their_crop(step: int) -> None:
    batch = MIXED[step]
    assert batch.cells is not None
    assert batch.cells.any((1, 2)).all()
    for box, cells in zip(batch.boxes, batch.cells, strict=True):
        ys, xs = np.nonzero(cells)
        x1, y1, x2, y2 = box / 32
        if cells.sum() > 1:
            assert (xs + 0.5 >= x1).all()
            assert (xs + 0.5 <= x2).all()
            assert (ys + 0.5 >= y1).all()
            assert (ys + 0.5 <= y2).all()


def test_a_crop_moves_with_its_window() -> None:
    crop = _Crop(box=(100.0, 50.0, 140.0, 90.0), category=3, colour=2)
    moved = _windowed(crop, (80, 40), 120, 1.5)
    assert moved == _Crop(box=(30.0, 15.0, 90.0, 75.0), category=3, colour=2)
    cut = _windowed(crop, (110, 40), 120, 1.0)
    assert cut is not None
    assert cut.box == (0.0, 10.0, 30.0, 50.0)  # three quarters of it are inside
    assert _windowed(crop, (125, 40), 120, 1.0) is None


def test_what_is_named_has_a_size_that_can_be_named() -> None:
    for step in range(3):
        batch = MIXED[step]
        sides = np.sqrt(np.prod(batch.boxes[:, 2:] - batch.boxes[:, :2], axis=1))
        exact = (sides >= MIXED.sizes[0] - 1e-3) & (sides <= MIXED.sizes[1] + 1e-3)
        assert exact.mean() > 0.5
        assert sides.min() >= 0.4 * MIXED.sizes[0]  # an edge moves by three tenths of the side at most
        assert sides.max() <= 1.6 * MIXED.sizes[1]


def test_half_of_the_boxes_are_drawn_roughly_and_none_leaves_the_canvas() -> None:
    rng = np.random.Generator(np.random.PCG64(7))
    boxes = np.tile(np.array([2, 40, 52, 100], np.float32), (400, 1))
    shaken = _shaken(rng, boxes, 128)
    assert 0.4 < (shaken == boxes).all(1).mean() < 0.6
    assert shaken.min() >= 0
    assert np.abs(shaken - boxes).max() <= 0.3 * 60 + 1e-3
    assert (shaken[:, 2:] > shaken[:, :2]).all()


def test_a_thing_of_a_scene_is_where_its_crop_says() -> None:
    scene, crops = _scene(np.random.Generator(np.random.PCG64(5)), 0.3)
    assert scene.shape == (480, 480, 3)
    again = scenes.render_scene(np.random.Generator(np.random.PCG64(5)), (480, 480), count=(10, 26))
    seen = {(s.category_id, s.box) for s in again.things if s.area >= 0.35 * _area(s.box)}
    assert {(c.category, c.box) for c in crops if c.category <= THINGS} == seen


@pytest.mark.parametrize("native_share", [0.0, 1.0])
def test_things_are_tinted_as_often_as_was_asked(native_share: float) -> None:
    for share in (0.0, 1.0):
        batch = SceneCrops(
            seed=0, megapixels=0.2, native_size=64, native_share=native_share, colour_share=share, count=1
        )[0]
        tinted = batch.colours[batch.classes < THINGS] >= 0
        assert tinted.size > 0
        assert (tinted == bool(share)).all()


def test_native_crops_are_their_own_canvas() -> None:
    batch = SceneCrops(seed=0, megapixels=0.1, native_size=64, native_share=1.0, colour_share=0.5, count=1)[0]
    assert batch.cells is None
    assert batch.canvases.shape == (24, 64, 64, 3)
    assert batch.images.tolist() == list(range(24))
