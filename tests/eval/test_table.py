"""`ovp eval table`: models that can this and that, on every protocol of scenes they can carry."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval import table_command
from eval.outcome_files import read_outcome
from ovperception import cli
from ovperception.errors import UnknownModel
from tests.eval.running_jobs import SIDE, drawn

PROTOCOLS = "scenes_coco_box,scenes_ov_lvis_mask,scenes_panoptic,scenes_semantic"


@pytest.fixture
def _fakes(monkeypatch: pytest.MonkeyPatch, fake_model: type) -> None:
    abilities = {
        "all": {},
        "boxes": {"tasks": ["detect"], "masks": False, "lies": True},
        "maps": {"tasks": ["semantic"]},
    }

    def load(name: str, device: str) -> object:
        if name not in abilities:
            raise UnknownModel("There is no such model", field="model", got=name)
        return fake_model(drawn(2), **abilities[name])

    monkeypatch.setattr(table_command, "load_model", load)


def table(out: Path, *extra: str, models: str = "all,boxes,maps") -> int:
    options = ["--models", models, "--images", "2", "--size", str(SIDE), "--only", PROTOCOLS]
    return cli.main(["eval", "table", *options, "--out", str(out), *extra])


@pytest.mark.usefixtures("_fakes")
def test_each_model_by_what_it_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert table(tmp_path) == 0
    text = (tmp_path / "table.md").read_text()
    assert text in capsys.readouterr().out
    lines = text.splitlines()
    assert lines[:5] == [
        "| model | COCO, boxes: AP | OV-LVIS, masks: AP_novel | COCO panoptic: PQ | ADE-style: mIoU |",
        "|---|---|---|---|---|",
        "| `all` | 100.0 | 100.0 | 100.0 | 100.0 |",
        "| `boxes` | 0.0 |  |  |  |",
        "| `maps` |  |  |  | 100.0 |",
    ]
    assert "| scenes as COCO panoptic | PQ_novel | 100.0 |  |  |" in lines
    assert "2 scenes of the val split" in lines[-1]
    assert read_outcome(tmp_path / "all" / "scenes_panoptic").metrics["PQ"] == 1
    assert not (tmp_path / "maps" / "scenes_panoptic").exists()
    assert table(tmp_path) == 0  # nothing is left to do: the same numbers
    assert (tmp_path / "table.md").read_text().splitlines()[:-1] == lines[:-1]


@pytest.mark.usefixtures("_fakes")
@pytest.mark.parametrize(
    ("extra", "message"),
    [(["--only", "coco_box"], "no protocols of scenes"), (["--models", "none"], "no such")],
)
def test_what_the_user_can_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    assert table(tmp_path, *extra) == 2
    assert message in " ".join(capsys.readouterr().err.split())
