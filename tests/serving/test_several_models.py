"""Several models in one engine, and images kept for them."""

import pytest

from ovperception.errors import (
    InvalidParameter,
    UnknownImage,
)
from ovperception.v1.image_pb2 import Image
from serving.models import ModelSet
from tests.serving.engine_calls import WORDS, encoded, in_threads, queue_up, see, wait_for
from tests.serving.fake_context import FakeContext
from tests.serving.fake_model import FakeModel


def test_models_on_one_backbone_share_its_pass(start):
    first, second = FakeModel("a", backbone="x"), FakeModel("b", backbone="x")
    engine = start(first, second)
    assert second.lender is first
    calls, _ = queue_up(engine, first, [encoded()] * 3)
    _, others = in_threads([lambda: see(engine, second)] * 3)
    wait_for(lambda: engine.worker.depths()["images"] == 6)
    first.release()
    infos = [call.result(10) for call in calls[1:] + others]
    assert {info.timing.batch_size for info in infos} == {6}
    assert (first.seen, second.seen) == (4, 3)
    assert engine.worker.counters.passes == 2


def test_one_call_asks_several_models_in_one_pass(start):
    first, second = FakeModel("a", backbone="x"), FakeModel("b", backbone="x")
    third = FakeModel("c")
    engine = start(first, second, third)
    info = see(engine, first, models=[first, second], ask=lambda scene: scene.detect(WORDS))
    assert (info.timing.backbone_passes, info.timing.batch_size) == (1, 1)
    info = see(engine, first, models=[second, third, first])
    assert info.timing.backbone_passes == 2
    assert (len(first.batches) + len(second.batches), len(third.batches)) == (2, 1)


def test_a_kept_image_is_asked_by_another_model_of_its_backbone(start):
    first, second, third = FakeModel("a", backbone="x"), FakeModel("b", backbone="x"), FakeModel("c")
    engine = start(first, second, third)
    kept = see(engine, first, keep=True).image.image_id
    for _ in range(2):
        info = see(engine, second, image=Image(image_id=kept), ask=lambda scene: scene.detect(WORDS))
        assert (info.timing.backbone_passes, info.timing.batch_size) == (0, 0)
    assert (first.seen, second.seen) == (1, 1)  # asked twice, seen once
    assert engine.kept.nbytes == 3000  # a look and two scenes
    with pytest.raises(InvalidParameter, match="another model"):
        see(engine, third, image=Image(image_id=kept))
    assert engine.unload("b") == 0
    assert engine.kept.nbytes == 2000
    assert engine.unload("a") == 1
    assert engine.kept.nbytes == 0


def test_a_kept_image_is_its_clients_own(start):
    engine = start()
    model = engine.models.get("")
    kept = see(engine, model, keep=True, context=FakeContext(machine="10.0.0.1")).image.image_id
    other = FakeContext(machine="10.0.0.2")
    with pytest.raises(UnknownImage):
        see(engine, model, image=Image(image_id=kept), context=other)
    assert not engine.forget(kept, other)
    assert engine.forget(kept, FakeContext(machine="10.0.0.1"))


def test_models_come_and_go():
    first, second = FakeModel("a", backbone="x"), FakeModel("b", backbone="y")
    models = ModelSet([first, second])
    newer = FakeModel("a", backbone="y")
    assert models.put(newer) is first
    assert newer.lender is second
    assert models.get("") is newer
    assert models.info(first).name == "a"
    assert models.remove("b") is second
    with pytest.raises(InvalidParameter, match="last model"):
        models.remove("a")
