import numpy as np
import pytest

from ovperception.client import Client
from serving import Server, ServerConfig
from serving.engine import Engine
from serving.models import ModelSet
from tests.serving.certificates import make_authority, sign
from tests.serving.fake_model import FakeModel


@pytest.fixture(scope="session")
def picture():
    rng = np.random.default_rng(0)
    return rng.integers(20, 255, (48, 70, 3), dtype=np.uint8)


@pytest.fixture
def serve():
    """Start servers that end with the test: `serve(*models, **config) -> server`."""
    servers = []

    def start(*models, **config):
        server = Server(models or [FakeModel()], ServerConfig(**{"port": 0, **config}))
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop(0.2)


@pytest.fixture
def start():
    """Start engines that end with the test: `start(*models, **config) -> engine`."""
    engines = []

    def make(*models, on_fatal=None, **config):
        engine = Engine(ModelSet(models or [FakeModel()]), ServerConfig(**config), on_fatal=on_fatal)
        engines.append((engine, models))
        return engine

    yield make
    for engine, models in engines:
        for model in models:
            model.release()
        engine.close()


@pytest.fixture
def connect():
    """Connect clients that end with the test: `connect(server, **options) -> client`."""
    clients = []

    def make(server, **options):
        client = Client(server.address, **{"timeout_s": 20, **options})
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture
def client(model, serve, connect):
    """A client of a server of `model`."""
    return connect(serve(model))


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    """An authority and what it has signed; another that nobody knows, and its stranger."""
    folder = tmp_path_factory.mktemp("pki")
    authority, other = make_authority(folder), make_authority(folder, "other-ca")
    return {
        "ca": authority,
        "server": sign(folder, authority, "server"),
        "next": sign(folder, authority, "next"),
        "robot": sign(folder, authority, "robot"),
        "stranger": sign(folder, other, "stranger"),
        "other": other,
    }
