"""Batches too large for the device, and a device that is lost."""

import numpy as np
import pytest

from ovperception.errors import (
    ResourceExhausted,
    Unavailable,
)
from serving.batch_caps import BatchCaps
from tests.serving.engine_calls import encoded, queue_up, see, wait_for
from tests.serving.fake_model import FakeModel


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


def _out_of_memory(*_):
    raise OutOfMemoryError("CUDA out of memory")


def test_a_batch_without_memory_is_tried_in_halves(start):
    model = FakeModel()
    engine = start(model)
    look = model.look
    model.look = lambda pictures: _out_of_memory() if len(pictures) > 2 else look(pictures)
    calls, _ = queue_up(engine, model, [encoded()] * 8)
    model.release()
    assert [call.result(10).timing.batch_size for call in calls] == [1, *[2] * 8]


def test_a_batch_without_memory_is_not_tried_again(start):
    model = FakeModel()
    engine = start(model)
    look, sizes = model.look, []

    def small_only(pictures):
        sizes.append(len(pictures))
        return _out_of_memory() if len(pictures) > 2 else look(pictures)

    model.look = small_only
    for _ in range(2):
        calls, _ = queue_up(engine, model, [encoded()] * 8)
        model.release()
        for call in calls:
            call.result(10)
    other = np.zeros((100, 100, 3), np.uint8)  # its size has not failed yet
    calls, _ = queue_up(engine, model, [encoded(other)] * 3)
    model.release()
    for call in calls:
        call.result(10)
    first, rest = sizes[: sizes.index(2) + 4], sizes[sizes.index(2) + 4 :]
    assert first == [1, 8, 4, 2, 2, 4, 2, 2][: len(first)]
    assert rest.count(3) == 1
    assert max(size for size in rest if size != 3) <= 4
    assert engine.worker.counters.out_of_memory == 4  # 8, 4, 4, and the 3 of the other size


def test_the_largest_batch_is_found_again():
    caps = BatchCaps()
    assert caps.limit("small", 8) == 8
    caps.failed("large", 8)
    caps.failed("large", 4)
    assert (caps.limit("large", 8), caps.limit("small", 8)) == (2, 8)
    for _ in range(199):
        caps.went_well("large", 2)
    caps.went_well("large", 1)  # says nothing of two
    assert caps.limit("large", 8) == 2
    caps.went_well("large", 2)
    assert caps.limit("large", 8) == 3
    caps.failed("large", 1)
    assert caps.limit("large", 8) == 1
    for number in range(300):
        caps.failed(number, 8)
    assert caps.limit("large", 8) == 8  # forgotten: clients choose the sizes
    assert caps.limit(299, 8) == 4


def test_images_too_large_for_the_device_do_not_end_the_server(start):
    model = FakeModel()
    lost = []
    engine = start(model, on_fatal=lost.append)
    look = model.look
    model.look = lambda pictures: look(pictures) if pictures[0].image.shape[0] > 50 else _out_of_memory()
    for _ in range(10):
        with pytest.raises(ResourceExhausted, match="out of memory"):
            see(engine, model)
    assert engine.worker.counters.out_of_memory == 10
    assert not lost


@pytest.mark.parametrize("broken", [_out_of_memory, None])
def test_a_lost_device_ends_the_server(start, broken):
    model = FakeModel()
    lost = []
    engine = start(model, on_fatal=lost.append)

    def illegal(pictures):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    model.look = broken or illegal
    for _ in range(4 if broken else 1):
        with pytest.raises(ResourceExhausted if broken else Unavailable):
            see(engine, model)
    wait_for(lambda: len(lost) == 1)
    with pytest.raises(Unavailable, match="lost its device"):
        see(engine, model)
    assert len(lost) == 1


def test_an_ordinary_error_ends_nothing(start):
    model = FakeModel()
    lost = []
    engine = start(model, on_fatal=lost.append)
    look, model.look = model.look, lambda pictures: 1 / 0
    with pytest.raises(ZeroDivisionError):
        see(engine, model)
    model.look = look
    assert see(engine, model)
    assert not lost
