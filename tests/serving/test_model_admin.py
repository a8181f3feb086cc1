"""Models come and go while others ask; what fails changes nothing."""

import threading

import numpy as np
import pytest

from ovperception.errors import (
    InvalidCheckpoint,
    InvalidParameter,
    ResourceExhausted,
    Unavailable,
    UnknownModel,
)
from ovperception.v1 import model_admin_service_pb2 as pb
from serving.model_admin import ModelAdminService
from tests.serving.fake_model import FakeModel

PICTURE = np.full((40, 50, 3), 100, np.uint8)


class _Admin:
    """The servicer over the engine of a server, with a loader that gives what a test wants."""

    def __init__(self, server):
        self.next = None
        self.reports = []
        report = lambda *said: self.reports.append(said)  # noqa: E731
        self.service = ModelAdminService(server.engine, self._load, report)

    def _load(self, name):
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    def load(self, model, name="fake", **rest):
        self.next = model
        return self.service.LoadModel(pb.LoadModelRequest(name=name, **rest), None)

    def unload(self, name):
        return self.service.UnloadModel(pb.UnloadModelRequest(name=name), None)


def _version(number):
    model = FakeModel()
    model.version = str(number)
    return model


@pytest.fixture
def server(serve, model):
    return serve(model)


@pytest.fixture
def admin(server):
    return _Admin(server)


def test_a_new_model_takes_the_place_of_the_old_one(server, admin, connect):
    client = connect(server)
    scene = client.encode(PICTURE)
    reply = admin.load(_version(2))
    assert (reply.model.version, reply.replaced.version) == ("2", "1")
    assert reply.warm_up_time.ToNanoseconds() > 0
    client.detect(PICTURE, ["cat"])
    assert client.last_reply.model.version == "2"
    assert scene.detect(["cat"])  # the old one's image is sent again by itself
    assert client.last_reply.model.version == "2"
    assert admin.reports == [("fake", True)]


def test_calls_under_way_end_with_the_model_they_began_with(server, admin, connect, model):
    client = connect(server)
    model.hold()
    versions = []

    def ask():
        client.detect(PICTURE, ["cat"])
        versions.append(client.last_reply.model.version)

    thread = threading.Thread(target=ask)
    thread.start()
    assert model.busy.wait(10)
    loading = threading.Thread(target=admin.load, args=(_version(2),))
    loading.start()
    model.release()
    thread.join(20)
    loading.join(20)
    assert versions == ["1"]


@pytest.mark.parametrize("kind", ["load", "warm-up", "bug", "digest"])
def test_what_fails_changes_nothing(server, admin, connect, kind):
    client = connect(server)
    scene = client.encode(PICTURE)
    broken, expected, rest = _version(2), InvalidCheckpoint, {}
    if kind == "load":
        broken = InvalidCheckpoint("no such weights")
    elif kind == "warm-up":
        expected = ResourceExhausted
        broken.scenes = lambda looks: (_ for _ in ()).throw(ResourceExhausted("no memory"))
    elif kind == "bug":
        broken.scenes = lambda looks: 1 / 0
    else:
        rest = {"weights_digest": "1" * 64}
    with pytest.raises(expected):
        admin.load(broken, **rest)
    scene.detect(["cat"])
    assert client.last_reply.model.version == "1"
    assert client.last_reply.batch_size == 0  # the kept image is still kept
    assert admin.reports == []
    assert admin.load(_version(3)).model.version == "3"


def test_another_model_comes_and_goes(server, admin, connect):
    admin.load(FakeModel("other"), name="other")
    client, other = connect(server), connect(server, model="other")
    assert [card.name for card in client.models()] == ["fake", "other"]
    scene = other.encode(PICTURE)
    assert admin.unload("other").forgotten_images == 1
    with pytest.raises(UnknownModel):
        scene.detect(["cat"])
    with pytest.raises(UnknownModel):
        admin.unload("other")
    with pytest.raises(InvalidParameter, match="last model"):
        admin.unload("fake")
    assert admin.reports == [("other", True), ("other", False)]


@pytest.mark.parametrize("name", ["", "../tiny", "/etc/passwd", "a b", "a" * 65])
def test_no_paths(admin, name):
    with pytest.raises(InvalidParameter):
        admin.load(_version(2), name=name)


def test_one_change_at_a_time(admin):
    slow = _version(2)
    slow.hold()
    thread = threading.Thread(target=admin.load, args=(slow,))
    thread.start()
    assert slow.busy.wait(10)
    with pytest.raises(Unavailable):
        admin.unload("fake")
    slow.release()
    thread.join(10)
