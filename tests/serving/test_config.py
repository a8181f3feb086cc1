"""Settings: flags over the environment over a file; whatever is wrong is named as its source spells it."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from ovperception.errors import InvalidParameter, MissingFile
from serving.config import ServeConfig
from serving.settings import names, resolve


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "ovp.toml"
        path.write_text(text)
        return path

    return write


def test_flags_go_over_the_environment_over_the_file(write):
    file = write("port = 1\nmax_batch = 2\nmax_texts = 3\nmodels = ['a', 'b']\n")
    found = resolve(
        {"port": 100, "host": None}, file=file, environment={"OVP_PORT": "10", "OVP_MAX_BATCH": "20"}
    )
    config = found.config
    assert (config.port, config.max_batch, config.max_texts, config.models) == (100, 20, 3, ("a", "b"))
    assert config.host == "127.0.0.1"
    asked = ("port", "max_batch", "max_texts", "host")
    assert [found.origins[name] for name in asked] == ["flag", "environment", "file", "default"]


def test_every_setting_can_come_from_everywhere(write):
    plain = {
        field.name: field.default
        for field in fields(ServeConfig)
        if isinstance(field.default, int | float | str)
    }
    assert len(plain) > 20
    environment = {f"OVP_{name.upper()}": str(value) for name, value in plain.items()}
    assert resolve({}, environment=environment).config == ServeConfig()
    file = write("\n".join(f"{name} = {json.dumps(value)}" for name, value in plain.items()))
    assert resolve({}, file=file, environment={}).config == ServeConfig()
    assert resolve(plain, environment={}).config == ServeConfig()


def test_a_list_in_the_environment_has_commas():
    assert resolve({}, environment={"OVP_MODELS": "one, two"}).config.models == ("one", "two")


def test_paths_in_a_file_are_beside_it(write):
    file = write("tokens_file = 'tokens.txt'\ntls_cert = '/etc/cert.pem'\ntls_key = 'key.pem'\n")
    config = resolve({}, file=file, environment={}).config
    assert config.tokens_file == file.parent / "tokens.txt"
    assert config.tls_cert == Path("/etc/cert.pem")
    assert config.tls_key == file.parent / "key.pem"


def test_limits_in_sum_follow_those_of_one_request():
    assert resolve({"max_pixels": 500_000_000}, environment={}).config.max_queued_pixels == 500_000_000
    with pytest.raises(InvalidParameter) as caught:
        resolve({"max_pixels": 500_000_000, "max_queued_pixels": 7}, environment={})
    assert caught.value.field == "max_queued_pixels"


@pytest.mark.parametrize(
    ("flags", "text", "environment", "field", "words"),
    [
        ({}, "max_batches = 3", {}, "max_batches", ["max_batch, probably", "ovp.toml"]),
        ({}, "colour = 3", {}, "colour", ["one of", "metrics_port"]),
        ({"max_batches": 3}, "", {}, "max_batches", ["max_batch, probably"]),
        ({}, "", {"OVP_PROT": "3"}, "OVP_PROT", ["OVP_PORT, probably"]),
        ({}, "", {"OVP_PORT": "tcp://10.0.0.1:5"}, "port", ["OVP_PORT in the environment", "integer"]),
        ({}, "port = 'x'", {}, "port", ["in the file", "integer"]),
        ({}, "max_batch = 0", {}, "max_batch", ["in the file", "more than 0"]),
        ({}, "max_wait_s = nan", {}, "max_wait_s", ["in the file", "finite"]),
        ({"dtype": "int8"}, "", {}, "dtype", ["--dtype", "bfloat16"]),
        ({"metrics_port": 70000}, "", {}, "metrics_port", ["--metrics-port", "65535"]),
        ({}, "models = []", {}, "models", ["at least one model"]),
        ({"tls_cert": "c.pem"}, "", {}, "tls_key", ["certificate and its key"]),
        ({"tls_client_ca": "c.pem"}, "", {}, "tls_client_ca", ["over TLS only"]),
        ({}, "port = ", {}, "config", ["no TOML"]),
    ],
)
def test_wrong_settings_are_named(write, flags, text, environment, field, words):
    with pytest.raises(InvalidParameter) as caught:
        resolve(flags, file=write(text), environment=environment)
    assert caught.value.field == field
    for word in words:
        assert word in str(caught.value)


def test_variables_of_others_are_left_alone():
    found = resolve({}, environment={"OVP_DEBUG": "1", "OVP_SERVICE_HOST": "10.0.0.1", "PORT": "3"})
    assert found.config == ServeConfig()


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(MissingFile, match="settings"):
        resolve({}, file=tmp_path / "none.toml", environment={})


def test_the_settings_are_those_of_the_class():
    assert set(names()) == {field.name for field in fields(ServeConfig)}
