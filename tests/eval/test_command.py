"""`ovp eval` writes what a protocol writes and prints a table, or says in one line what is wrong."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest

from eval import command
from eval.running import machine
from ovperception import cli
from ovperception.datasets.scenes import load_categories, scene
from ovperception.datasets.scenes.vocabulary import scenes_vocabulary
from ovperception.errors import UnknownModel

OPTIONS = ["eval", "--model", "fake", "--images", "2", "--size", "96", "--crops", "1"]


@pytest.fixture
def _fake(monkeypatch: pytest.MonkeyPatch, fake_model: type) -> None:
    samples = [scene("val", i, (96, 96)) for i in range(2)]
    crops = [c.id for c in load_categories() if c.is_thing]
    crops += [s.category_id for sample in samples for s in sample.things]

    def load(name: str, device: str) -> object:
        if name != "fake":
            raise UnknownModel("There is no such model", field="model", expected="fake", got=name)
        return fake_model(samples, crops)

    monkeypatch.setattr(command, "load_model", load)


@pytest.mark.usefixtures("_fake")
def test_files_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "folder"
    assert cli.main([*OPTIONS, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "box/AP50_novel" in shown
    assert "100.00" in shown
    assert {p.name for p in out.iterdir()} == {
        *("metrics.json", "outcome.json", "latencies.json", "report.html", "examples"),
        *("detection", "semantic", "panoptic", "naming_crop_region"),
    }
    assert all((out / part / "report.html").is_file() for part in ("detection", "semantic", "panoptic"))
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["panoptic/PQ"] == 1
    assert metrics["crop/top1_scene"] == 1
    assert metrics["box/APl"] is None
    text = html.unescape((out / "report.html").read_text())
    for fact in (
        *("fake, version 1", "d" * 64, "b" * 64, scenes_vocabulary().content_hash),
        *("a {}.; the {}|.", "scenes_val", "scenes 0 and up, 96 pixels a side", "667 classes", "hotcoco"),
        *("panopticapi's rules", "detectron2's rule"),
    ):
        assert fact in text
    assert "<td>panoptic/PQ</td><td>100.00</td>" in text
    assert "<td>box/APl</td><td>n/a</td>" in text
    assert cli.main([*OPTIONS, "--out", str(out)]) == 0
    assert "2 of 2 images were done before" in capsys.readouterr().err


@pytest.mark.usefixtures("_fake")
def test_json_is_what_the_file_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*OPTIONS, "--only", "semantic, box", "--json", "--out", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "metrics.json").read_text())
    assert {name.partition("/")[0] for name in printed} == {"box", "segm", "semantic", "timing"}


@pytest.mark.usefixtures("_fake")
@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--data", "coco"], "the folder it was unpacked in"),
        (["--data", "coca"], "one of coco"),
        (["--protocol", "ov_cocoo"], "one of ov_coco"),
        (["--resolution", "none", "--protocol", "coco_box"], "protocol or model"),
        (["--images", "0"], "images is too small"),
        (["--model", "nobody"], "no such model"),
        (["--only", "semantics"], "some of box, semantic, panoptic, region, crop"),
        (["--split", "dev"], "dev"),
    ],
)
def test_what_the_user_can_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    assert cli.main([*OPTIONS, "--out", str(tmp_path), "--json", *extra]) == 2
    error = json.loads(capsys.readouterr().err)["error"]
    assert message in error["message"]
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("_fake")
def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "file"
    taken.write_text("mine")
    assert cli.main([*OPTIONS, "--out", str(taken)]) == 2
    assert "cannot be written" in " ".join(capsys.readouterr().err.split())
    assert taken.read_text() == "mine"


def test_an_installed_copy_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "machine.py"))
    assert machine.commit() is None


def test_the_commit_is_the_checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(folder: Path, *arguments: str) -> str:
        return {"rev-parse": "abc", "status": "M x", "ls-files": "machine.py"}[arguments[0]]

    monkeypatch.setattr(machine, "_git", git)
    assert machine.commit() == "abc with changes"
