"""``ovp convert``: official files become bundles that load and answer; anything else is refused in words.

The official file is synthetic: every key and shape of the official code's own state dict (the manifest),
every number from its name. Where numbers do not matter each tensor is one number seen through a stride of
zero, so that a file of 120 million parameters takes kilobytes.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import ovperception
from ovperception import catalogue, cli
from ovperception.bundle import read_bundle, read_card
from ovperception.conversion import convert_file, converter, format_names
from ovperception.errors import InvalidCheckpoint, MissingFile, Unsupported
from ovperception.vocabulary import Vocabulary
from tests import synth

MANIFEST: dict[str, tuple[list[int], str]] = json.loads(
    (Path(__file__).parents[2] / "data" / "fcclip" / "manifest_r50.json").read_text(encoding="utf-8")
)
WORDS = ["dog", "traffic light|stoplight", "grass"]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVPERCEPTION_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """For half-gigabyte files, which are not kept as other temporary files are."""
    path = tmp_path_factory.mktemp("official")
    yield path
    for file in path.iterdir():
        file.unlink()


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return synth.state_dict(MANIFEST)


def light_state() -> dict[str, Any]:
    return {
        name: torch.zeros((), dtype=getattr(torch, dtype.removeprefix("torch."))).expand(shape)
        for name, (shape, dtype) in MANIFEST.items()
    }


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = cli.main(["convert", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def refused(capsys: pytest.CaptureFixture[str], checkpoint: Path, *more: str) -> dict[str, str]:
    """The error of a conversion; it must leave no file behind."""
    out = checkpoint.parent / "out" / "b.safetensors"
    status, stdout, err = run(capsys, checkpoint, "--format", "fcclip", "--out", out, "--json", *more)
    assert (status, stdout) == (2, "")
    assert not out.parent.exists()
    error: dict[str, str] = json.loads(err)["error"]
    return error


def test_an_official_checkpoint_becomes_a_model_that_answers(
    state: dict[str, Tensor], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    official = save(folder / "official.pth", {"model": state})
    out = folder / "b.safetensors"
    status, stdout, _ = run(capsys, official, "--format", "fcclip", "--out", out, "--json")
    assert status == 0
    told = json.loads(stdout)
    assert told["name"] == told["published"] == "fcclip-r50"
    assert told["keys_read"] == len(MANIFEST) - 1  # all but the loss's class weights
    assert told["bytes"] == out.stat().st_size

    model = ovperception.load(out)
    card = model.card
    assert told["backbone"] == {
        "name": "open_clip:RN50-quickgelu/openai", "digest": model.spec.digest, "included": True
    }  # fmt: skip
    assert model.tasks == {"detect", "semantic", "panoptic"}
    assert card.templates == "vild_14"
    assert card.preprocessing["shortest_edge"] == 800
    assert any(str(official.name) in line for line in card.verified)
    seen = set(card.heads[0].config["seen_words"])
    assert {"person", "ladies", "stop sign"} <= seen
    assert seen == set(Vocabulary.builtin("coco_panoptic_133").texts)
    # The numbers themselves: what the file holds under the official name.
    for part, ours, theirs in (
        ("backbone", "visual.layer4.2.conv3.weight", "backbone.clip_model.visual.layer4.2.conv3.weight"),
        ("head.fcclip", "mask_decoder.norm.weight", "sem_seg_head.predictor.decoder_norm.weight"),
    ):
        assert torch.equal(read_bundle(out).part(part)[ours], state[theirs])

    model.preprocessing = replace(
        model.preprocessing, shortest_edge=None, longest_edge=None
    )  # 800 px is slow
    image = np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    scene = model.encode(image)
    assert scene.semantic(WORDS).labels.shape == (70, 100)
    assert scene.panoptic(WORDS).ids.shape == (70, 100)
    found = scene.detect(WORDS)
    assert len(found) <= 100
    assert np.isfinite(found.scores).all()
    out.unlink()


def test_safetensors_and_a_backbone_by_name_in_half_precision(
    state: dict[str, Tensor], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = folder / "official.safetensors"
    save_file(state, checkpoint)
    status, out, _ = run(
        capsys,
        checkpoint,
        *("--format", "fcclip", "--reference-backbone", "--dtype", "float16", "--name", "mine"),
    )
    assert status == 0
    path = catalogue.locate("mine")
    assert f"{path}" in "".join(out.split())
    assert "ovp predict IMAGE --model mine" in out
    bundle = read_bundle(path)
    assert not bundle.card.backbone.included
    assert bundle.card.backbone.digest == _digest_of(state)
    assert all(key.startswith("head.fcclip.") for key in bundle.tensors)
    assert {t.dtype for t in bundle.tensors.values()} == {torch.float16}


def _digest_of(state: dict[str, Tensor]) -> str:
    from ovperception.backbones import load_backbone

    backbone = load_backbone("open_clip:RN50-quickgelu")
    start = "backbone.clip_model."
    backbone.model.load_state_dict(
        {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
    )
    return backbone.spec.digest


def test_a_vocabulary_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = tmp_path / "mine.txt"
    words.write_text("taxi|cab\ndog\n")
    checkpoint = save(tmp_path / "c.pth", light_state())  # a bare state dict is understood as well
    status, _, _ = run(
        capsys, checkpoint, "--format", "fcclip", "--reference-backbone", "--vocabulary", words, "--json"
    )
    assert status == 0
    card = read_card(catalogue.locate("fcclip-r50"))
    assert card.vocabulary == "mine"
    assert card.heads[0].config["seen_words"] == ["taxi", "cab", "dog"]


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save(tmp_path / "c.pth", {"model": light_state()})
    options = ("--format", "fcclip", "--reference-backbone", "--out")
    out = tmp_path / "b.safetensors"
    out.write_bytes(b"precious")
    status, _, err = run(capsys, checkpoint, *options, out)
    assert (status, out.read_bytes()) == (2, b"precious")
    assert "--force" in err
    assert run(capsys, checkpoint, *options, out, "--force")[0] == 0
    assert read_card(out).name == "fcclip-r50"
    kept = catalogue.pulled_path("fcclip-r50")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"precious")
    status, _, err = run(capsys, checkpoint, *options[:-1])
    assert (status, kept.read_bytes()) == (2, b"precious")


def test_the_checkpoint_itself_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / "c.safetensors"
    checkpoint.write_bytes(b"precious")
    status, _, err = run(capsys, checkpoint, "--format", "fcclip", "--out", checkpoint, "--force")
    assert (status, checkpoint.read_bytes()) == (2, b"precious")
    assert "the checkpoint itself" in err


@pytest.mark.parametrize("out", ["b.pth", "b", "folder.safetensors"])
def test_an_out_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    status, _, err = run(capsys, tmp_path / "c.pth", "--format", "fcclip", "--out", tmp_path / out, "--json")
    assert status == 2
    assert json.loads(err)["error"]["field"] == "out"


def test_a_missing_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = light_state()
    del state["sem_seg_head.predictor.query_feat.weight"]
    error = refused(capsys, save(tmp_path / "c.pth", {"model": state}))
    assert error["reason"] == "INVALID_CHECKPOINT"
    assert "1 missing (sem_seg_head.predictor.query_feat.weight)" in error["message"]


def test_an_extra_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = light_state() | {"sem_seg_head.surprise": torch.zeros(1)}
    assert (
        "1 unexpected (sem_seg_head.surprise)" in refused(capsys, save(tmp_path / "c.pth", state))["message"]
    )


def test_a_wrong_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = light_state() | {"sem_seg_head.predictor.query_feat.weight": torch.zeros(249, 256)}
    message = refused(capsys, save(tmp_path / "c.pth", state))["message"]
    assert "(249, 256) instead of (250, 256)" in message


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["OVP_TEST_BOMB"],)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_would_run_something_is_refused_unrun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    crater = tmp_path / "crater"
    monkeypatch.setenv("OVP_TEST_BOMB", str(crater))
    bare = tmp_path / "bare.pth"
    bare.write_bytes(pickle.dumps({"model": _Bomb()}, protocol=protocol))
    packed = tmp_path / "packed.pth"
    torch.save({"model": {"x": torch.zeros(1), "y": _Bomb()}}, packed, pickle_protocol=protocol)
    for checkpoint in (bare, packed):
        assert refused(capsys, checkpoint)["reason"] == "INVALID_CHECKPOINT"
        assert not crater.exists()
    torch.load(packed, weights_only=False)  # the test can fail: here it does go off
    assert crater.exists()


@pytest.mark.parametrize(
    "content", [b"", b"some text\n", b"\x80\x02", b"PK\x03\x04", b"<!doctype html>", bytes(1000)]
)
@pytest.mark.parametrize("name", ["c.pth", "c.safetensors"])
def test_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, name: str) -> None:
    checkpoint = tmp_path / name
    checkpoint.write_bytes(content)
    error = refused(capsys, checkpoint)
    assert error["reason"] == "INVALID_CHECKPOINT"
    assert name in error["message"]


@pytest.mark.parametrize("part", [0.1, 0.5, 0.999])
def test_a_truncated_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], part: float) -> None:
    whole = save(tmp_path / "whole.pth", {"model": light_state()}).read_bytes()
    checkpoint = tmp_path / "c.pth"
    checkpoint.write_bytes(whole[: int(part * len(whole))])
    assert refused(capsys, checkpoint)["reason"] == "INVALID_CHECKPOINT"


def test_weights_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / "c.safetensors"
    save_file({"x": torch.zeros(1)}, checkpoint)
    assert "is no FC-CLIP checkpoint" in refused(capsys, checkpoint)["message"]


@pytest.mark.parametrize("name", ["absent.pth", "folder"])
def test_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / "folder").mkdir()
    error = refused(capsys, tmp_path / name)
    assert error["reason"] == "MISSING_FILE"
    assert error["field"] == "checkpoint"


def test_an_unknown_format_lists_the_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, tmp_path / "c.pth", "--format", "fclip")
    assert status == 2
    assert "fcclip" in err.replace("'fclip'", "")
    assert format_names() == ("fcclip", "lseg", "regionclip")
    with pytest.raises(Unsupported, match="Perhaps you meant 'fcclip'"):
        converter("fclip")


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--rpn", "absent.pth", "MISSING_FILE"),
        ("--rpn", __file__, "INVALID_PARAMETER"),  # FC-CLIP has no use for it
        ("--vocabulary", "coco_panoptic_134", "UNKNOWN_VOCABULARY"),
        ("--vocabulary", "absent.txt", "MISSING_FILE"),
        ("--name", "../up", "INVALID_PARAMETER"),
        ("--dtype", "int8", "USAGE"),
    ],
)
def test_options_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, reason: str
) -> None:
    checkpoint = save(tmp_path / "c.pth", {})
    assert refused(capsys, checkpoint, option, value)["reason"] == reason


def test_the_function_raises_what_the_command_says(tmp_path: Path) -> None:
    def nowhere(_: object) -> Path:
        raise AssertionError

    with pytest.raises(MissingFile):
        convert_file(tmp_path / "absent", nowhere, format_name="fcclip")
    with pytest.raises(InvalidCheckpoint):
        convert_file(save(tmp_path / "c.pth", {"x": torch.zeros(1)}), nowhere, format_name="fcclip")
