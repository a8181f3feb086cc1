"""``ovp serve`` and ``ovp demo``: a process, a port, a signal, a picture."""

import json
import signal
import tomllib

import numpy as np
import pytest

import ovperception
from ovperception.cli import main
from ovperception.client import Client
from ovperception.images import load_image
from tests.serving.fake_model import FakeModel, FakeScene
from tests.serving.processes import PATIENCE_S, ServerProcess

SERVE = """
import sys
import tomllib
import ovperception
from tests.serving.fake_model import FakeModel
ovperception.load = lambda name, **options: FakeModel(name)
from ovperception.cli import main
sys.exit(main(["serve", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_until_told_to_stop(number):
    with ServerProcess(SERVE, "--port", "0", "--model", "one", "--model", "two") as process:
        address = process.address()
        with Client(address) as client:
            assert [card.name for card in client.models()] == ["one", "two"]
            assert len(client.detect(np.full((9, 9, 3), 200, np.uint8), ["cat"])) == 1
        if number == signal.SIGTERM:  # once is enough for the slow part
            with ServerProcess(SERVE, "--port", address.rpartition(":")[2]) as second:
                _, err = second.communicate(timeout=PATIENCE_S)
            assert second.returncode == 1
            assert "cannot listen" in err
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 0
        assert "stopping" in process.stderr.read()


@pytest.mark.parametrize("arguments", [["--port", "70000"], ["--max-pixels", "0"], ["--threads", "-1"]])
def test_serve_with_wrong_settings(arguments, capfd):
    assert main(["serve", *arguments]) == 2
    assert "error:" in capfd.readouterr().err


def test_demo(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(vars(ovperception), "load", lambda name, **options: FakeModel(name))
    assert main(["demo", "--out", str(tmp_path)]) == 0
    out = capfd.readouterr().out
    assert "rooster" in out
    assert "times less" in out
    result = json.loads((tmp_path / "result.json").read_text())
    assert [row["task"] for row in result["questions"]] == [
        "detect",
        "panoptic",
        "semantic",
        "heatmap",
        "detect",
    ]
    assert all(row["timing"]["trunk"] == 0 for row in result["questions"])
    height, width, _ = load_image(tmp_path / "demo.png").shape
    assert height > 1000
    assert width > 1500


def test_a_demo_that_finds_nothing_fails(tmp_path, monkeypatch, capfd):
    detect = FakeScene.detect
    monkeypatch.setattr(
        FakeScene, "detect", lambda self, words, **options: detect(self, words, score_threshold=1)
    )
    monkeypatch.setitem(vars(ovperception), "load", lambda name, **options: FakeModel(name))
    assert main(["demo", "--out", str(tmp_path), "--json"]) == 1
    out, err = capfd.readouterr()
    assert "found nothing" in json.loads(err)["error"]["message"]
    assert json.loads(out)["questions"]


def test_settings_are_checked_without_a_server(tmp_path, capfd, monkeypatch):
    file = tmp_path / "ovp.toml"
    file.write_text("port = 4000\nmax_batch = 4\ntokens_file = 'tokens'\n")
    (tmp_path / "tokens").write_text("robot:infer:0123456789abcdef\n")
    monkeypatch.setenv("OVP_MAX_BATCH", "5")
    check = ["serve", "--config", str(file), "--check-config"]
    assert main([*check, "--set", "max_texts=77"]) == 0
    out, err = capfd.readouterr()
    assert "chmod 600" in err
    settings = tomllib.loads(out)  # what is printed is a file of settings
    assert (settings["port"], settings["max_batch"], settings["max_texts"]) == (4000, 5, 77)
    assert "max_batch = 5  # environment" in out
    assert "# 1 tokens" in out
    assert "# model tiny" in out
    assert main([*check, "--model", "tinny"]) == 2
    assert "tiny" in capfd.readouterr().err
    for flags, named in (
        (["--set", "max_texts=many"], "--set max_texts"),
        (["--set", "max_text=7"], "--set max_text"),
        (["--keep-seconds", "-1"], "--keep-seconds"),
        (["--max-batch", "0"], "--max-batch"),
    ):
        assert main([*check, *flags]) == 2
        assert f"({named})" in " ".join(capfd.readouterr().err.split())
    (tmp_path / "tokens").unlink()
    assert main(check) == 2
    assert "tokens" in capfd.readouterr().err


def test_hang_up_reads_the_tokens_anew(tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("robot:infer:first-token-0123456789\n")
    logged = ("--log-format", "json", "-v")
    with ServerProcess(SERVE, "--port", "0", "--tokens-file", str(tokens), *logged) as process:
        process.address()
        tokens.write_text("robot:infer:first-token-0123456789\nother:infer:other-token-0123456789\n")
        process.send_signal(signal.SIGHUP)
        line = json.loads(process.stderr.readline())
        assert line["message"] == "read the tokens anew"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
