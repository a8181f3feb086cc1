"""The benchmark of the server's queue asks as calls do; or nobody sees that it no longer can."""

import pytest

from benchmarks.scheduling import ONE_SHAPE, Load
from serving.config import ServerConfig
from serving.engine import Engine
from serving.models import ModelSet
from serving.stub_model import StubModel


@pytest.fixture
def load():
    engine = Engine(ModelSet([StubModel(pass_ms=1)]), ServerConfig(max_requests=8))
    yield Load(engine, ONE_SHAPE, vocabularies=2)
    engine.close()


def test_a_closed_loop_is_answered(load):
    outcome = load.closed(clients=2, seconds=0.1)
    assert len(outcome.answered) >= 2
    assert (outcome.refused, outcome.late, outcome.left) == ([], 0, 0)


def test_a_storm_leaves_nothing_behind(load):
    outcome = load.storm(30)
    assert len(outcome.answered) + len(outcome.refused) + outcome.left == 30
    assert set(load.engine.admission.used.values()) == {0}
    assert set(load.engine.worker.depths().values()) == {0}
