"""The store of kept scenes, with a clock of its own."""

import numpy as np
import pytest

from ovperception.errors import UnknownImage
from serving.scenes import KeptScenes
from tests.serving.fake_model import FakeModel, FakeScene


class _Clock:
    now = 0.0

    def __call__(self):
        return self.now


def _scene(nbytes=100):
    return FakeScene(np.zeros((2, 2, 3), np.uint8), nbytes)


@pytest.fixture
def clock():
    return _Clock()


@pytest.fixture
def kept(clock):
    return KeptScenes(max_bytes=250, ttl_s=10, clock=clock)


def test_the_least_recently_used_goes_first(kept):
    model = FakeModel()
    first, second = kept.keep(_scene(), model), kept.keep(_scene(), model)
    assert kept.get(first.image_id).scene is first.scene
    third = kept.keep(_scene(), model)
    with pytest.raises(UnknownImage, match="any more"):
        kept.get(second.image_id)
    assert kept.get(first.image_id).model is model
    assert kept.get(third.image_id)
    assert (kept.nbytes, len(kept)) == (200, 2)


def test_use_renews(kept, clock):
    first = kept.keep(_scene(), FakeModel())
    for _ in range(5):
        clock.now += 9
        kept.get(first.image_id)
    clock.now += 10
    with pytest.raises(UnknownImage):
        kept.get(first.image_id)
    assert kept.nbytes == 0


def test_forgetting(kept):
    first = kept.keep(_scene(), FakeModel())
    assert kept.forget(first.image_id)
    assert not kept.forget(first.image_id)
    assert kept.nbytes == 0


def test_what_never_fits_is_not_kept(kept):
    small = kept.keep(_scene(), FakeModel())
    assert kept.keep(_scene(251), FakeModel()) is None
    assert kept.get(small.image_id)


def test_handles_cannot_be_guessed(kept):
    ids = {kept.keep(_scene(), FakeModel()).image_id for _ in range(50)}
    assert len(ids) == 50
    assert min(map(len, ids)) > 24
