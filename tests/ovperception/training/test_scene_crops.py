"""Captioned crops in place: where they lie, what is said of them, and that masks are never seen."""

from __future__ import annotations

import numpy as np
import pytest

from ovperception.datasets import scenes
from ovperception.training.scene_crops import SceneCrops

MIXED = SceneCrops(seed=0, megapixels=0.3, native_size=64, native_share=0.0, count=8)
THINGS = len(scenes.load_categories()) - len(scenes.STUFF_NAMES)


def test_a_batch_is_the_same_for_the_same_step() -> None:
    later = SceneCrops(seed=0, megapixels=0.3, native_size=64, native_share=0.0, first=3, count=8)
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


def test_a_thing_of_a_scene_is_where_its_crop_says() -> None:
    """The words of a scene's crop are true of the pixels under it: compared with the scene itself."""
    from ovperception.training.scene_crops import _scene, _thing_crops

    rng = np.random.Generator(np.random.PCG64(5))
    _, crops = _scene(rng, 384, 1.5)
    again = scenes.render_scene(np.random.Generator(np.random.PCG64(5)), (256, 256), count=(5, 9))
    plain = _thing_crops(again)
    assert len(crops) >= len(plain) > 0
    for placed, own in zip(crops, plain, strict=False):
        assert placed.category == own.category
        assert placed.box == tuple(1.5 * v for v in own.box)


def test_native_crops_are_their_own_canvas() -> None:
    batch = SceneCrops(seed=0, megapixels=0.1, native_size=64, native_share=1.0, count=1)[0]
    assert batch.cells is None
    assert batch.canvases.shape == (24, 64, 64, 3)
    assert batch.images.tolist() == list(range(24))
