"""What a server does when nobody calls: it lets go of what has expired."""

import logging
import threading

import pytest

from serving import Server, ServerConfig, housekeeping
from serving.housekeeping import Housekeeper
from tests.serving.failure_calls import PICTURE, wait_for


def test_a_chore_that_fails_keeps_no_other_from_being_done(caplog):
    caplog.set_level(logging.CRITICAL + 1, "serving.housekeeping")
    done = threading.Event()
    keeper = Housekeeper([lambda: 1 / 0, done.set], every_s=0.01)
    keeper.start()
    for _ in range(2):
        assert done.wait(10)
        done.clear()
    keeper.stop()
    assert not keeper._thread.is_alive()
    Housekeeper([]).stop()  # one that never began


@pytest.mark.parametrize("kept", ["images", "memory"])
def test_what_has_expired_is_let_go_though_nobody_calls(model, connect, tmp_path, monkeypatch, kept):
    monkeypatch.setattr(housekeeping.Housekeeper.__init__, "__kwdefaults__", {"every_s": 0.05})
    config = ServerConfig(host=f"unix:{tmp_path}/socket", kept_ttl_s=0.3)
    with Server([model], config) as server:
        if kept == "images":
            connect(server).encode(PICTURE)
            wait_for(lambda: len(server.engine.kept) == 0)
            assert server.engine.kept.nbytes == 0
        else:
            server.engine.shared_memory.create(100, "me")
            wait_for(lambda: len(server.engine.shared_memory) == 0)
