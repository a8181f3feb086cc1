"""`ovp eval compare` prints, writes a sound page, and refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from eval.comparing import Change, Comparison
from eval.outcome_files import write_outcome
from eval.reporting.compare_command import compare
from eval.reporting.comparison_page import render_comparison
from ovperception.errors import InvalidParameter
from tests.eval.comparing.runs import detection_run
from tests.eval.reporting.conftest import HOSTILE
from tests.eval.reporting.page_checks import checked

app = typer.Typer()
app.command()(compare)


def run(*arguments: str) -> str:
    found = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert found.exit_code == 0
    return found.stdout


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    made = []
    for name, seed, better in (("a", 1, 0.0), ("b", 2, 0.29)):
        write_outcome(detection_run(tmp_path / name, seed=seed, better=better), tmp_path / name)
        made.append(str(tmp_path / name))
    return made[0], made[1]


def test_table_page_and_json(folders: tuple[str, str], tmp_path: Path) -> None:
    shown = " ".join(run(*folders, "--resamples", "100", "--out", str(tmp_path / "out")).split())
    for words in ("AP50_novel", "A: m1", "B: m2", "100 resamples, seed 0", "paired bootstrap over images"):
        assert words in shown
    page = checked((tmp_path / "out" / "comparison.html").read_text(encoding="utf-8"))
    assert "Gained most" in page.words
    assert "95 % between" in page.words
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written == json.loads(run(*folders, "--resamples", "100", "--json"))
    row = next(row for row in written["metrics"] if row["name"] == "AP50_novel")
    assert row["difference"] == row["b"] - row["a"]
    assert row["low"] < row["difference"] < row["high"]


def test_another_protocol_is_refused(folders: tuple[str, str], tmp_path: Path) -> None:
    outcome = Path(folders[1]) / "outcome.json"
    outcome.write_text(outcome.read_text().replace('"ov_coco"', '"coco_box"'))
    with pytest.raises(InvalidParameter, match="differ in their protocol"):
        run(*folders, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder_to_write_into(folders: tuple[str, str]) -> None:
    with pytest.raises(InvalidParameter, match="output folder cannot be written"):
        run(*folders, "--resamples", "0", "--out", str(Path(folders[0]) / "outcome.json"))


def test_names_cannot_break_out() -> None:
    rows = (
        Change(name=HOSTILE, a=0.1, b=0.2, low=0.05, high=0.15, groups=("base",)),
        Change(name="gone", a=0.5, b=None),
    )
    found = Comparison(
        names=(f"A: {HOSTILE}", "B"),
        protocol="p",
        title=HOSTILE,
        headline=HOSTILE,
        column="AP",
        metrics=rows,
        per_class=rows,
        differs=((HOSTILE, "1", HOSTILE),),
        statistic="s",
        resamples=100,
        seed=0,
        images=3,
        no_interval=HOSTILE,
    )
    page = checked(render_comparison(found))
    assert len(page.scripts) == 1
    assert "+10.0" in page.words
    assert "chance alone hardly does this" in page.words
