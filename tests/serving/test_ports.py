"""A port in use is told before models are loaded."""

import socket

import pytest

import ovperception
from ovperception.cli import main
from ovperception.errors import Unavailable
from serving.ports import check_port


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
def test_no_model_is_loaded_for_a_port_in_use(taken, option, monkeypatch, capfd):
    loaded = []
    monkeypatch.setitem(vars(ovperception), "load", lambda name, **options: loaded.append(name))
    ports = {"--port": "0", option: str(taken)}
    assert main(["serve", *(word for pair in ports.items() for word in pair)]) == 1
    assert loaded == []
    error = capfd.readouterr().err
    assert f"cannot listen on 127.0.0.1:{taken}" in error
    assert "--port 0" in error


def test_a_free_port_stays_free(taken):
    with pytest.raises(Unavailable):
        check_port("127.0.0.1", taken)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    check_port("127.0.0.1", 0)
    check_port("unix:/tmp/none", 1)
