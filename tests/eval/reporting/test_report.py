"""The report is one sound page, says what the evaluation found, and no name breaks it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.outcome import ClassRow, Curve, Outcome
from eval.outcome_files import write_outcome
from eval.protocols import published
from eval.reporting import REPORT_FILE, render_report, write_report
from eval.reporting.headline import tiles
from eval.reporting.pictures import example_views
from ovperception.errors import MissingFile
from ovperception.structures import PanopticMap, Segment, SemanticMap
from tests.eval.reporting.conftest import HOSTILE
from tests.eval.reporting.page_checks import checked


def test_page_is_whole_and_says_everything(outcome: Outcome, folder: Path) -> None:
    page = checked(render_report(outcome, folder))
    for words in (
        *("AP50_novel", "31.4", "50.4", "12.5 ms", "abc123", "f" * 64, "1,234", "n/a"),
        *("Most confused words", "Most often not found", "where nothing is", "1 of 4 found"),
        *("Base and novel words", "Size of the objects", "p99 29.6 ms", "novel", "published"),
    ):
        assert words in page.words, words


def test_published_numbers_stand_beside_and_say_so(outcome: Outcome, folder: Path) -> None:
    text = render_report(outcome, folder)
    page = checked(text)
    rows = published("ov_coco", metric="AP50_novel")
    assert rows
    for row in rows:
        assert row.method in page.words
        assert row.source in page.words
    # Our own number is one bar among theirs, and the only one that is not hatched.
    chart = re.search(r"<svg[^>]*><title>AP50_novel of this run.*?</svg>", text, re.DOTALL)
    assert chart
    assert chart[0].count("bar ours") == 1
    assert chart[0].count("bar published") == min(12, len(rows))


def test_names_cannot_break_out(outcome: Outcome, folder: Path) -> None:
    page = checked(render_report(outcome, folder))
    assert "alert(1)" in page.words
    scripts = [a for tag, a in page.tags if tag == "script"]
    assert [a.get("type", "") for a in scripts] == ["application/json", ""]
    curves, script = page.scripts
    assert json.loads(curves) == [{"name": f"{HOSTILE}, IoU 0.50", "points": "32" * 101}]
    # The policy allows the script of the page, by its hash, and no other.
    policy = next(
        a["content"] for tag, a in page.tags if "Content-Security-Policy" in a.get("http-equiv", "")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_classes_are_sorted_and_empty_cells_have_no_order(outcome: Outcome, folder: Path) -> None:
    text = render_report(outcome, folder)
    table = text[text.index('id="class-table"') :]
    rows = re.findall(r'<tr data-groups="(\w*)"(?: data-empty)?>.*?data-order="([^"]*)"', table)
    assert rows == [("base", "0.5"), ("novel", "0.125"), ("base", "")]


def test_pictures_are_inside_and_described(outcome: Outcome, folder: Path) -> None:
    page = checked(render_report(outcome, folder))
    pictures = [a for tag, a in page.tags if tag == "img"]
    assert len(pictures) == 2
    assert pictures[1]["alt"].endswith(f"cat 0.90, {HOSTILE} 0.40")
    for picture in pictures:
        data = base64.b64decode(picture["src"].removeprefix("data:image/jpeg;base64,"))
        assert data.startswith(b"\xff\xd8")


def test_small_pictures_are_magnified_before_they_are_drawn_on(outcome: Outcome, folder: Path) -> None:
    """Letters have a least size: on 64 pixels they would hide everything."""
    page = checked(render_report(outcome, folder))
    source = next(a["src"] for tag, a in page.tags if tag == "img")
    data = np.frombuffer(base64.b64decode(source.rpartition(",")[2]), np.uint8)
    assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (48 * 8, 64 * 8, 3)
    labels = np.zeros((48, 64), np.int32)
    ids = np.ones((48, 64), np.int32)
    answers = (
        SemanticMap(classes=("cat",), labels=labels, scores=labels.astype(np.float32)),
        PanopticMap(
            classes=("cat",),
            ids=ids,
            segments=(Segment(id=1, class_id=0, score=1.0, area=ids.size, is_thing=True),),
        ),
    )
    for answer in answers:
        example = dataclasses.replace(outcome.examples[0], truth=answer, found=answer)
        views, problems = example_views(dataclasses.replace(outcome, examples=(example,)), folder)
        assert not problems
        assert views["worst"][0].truth_text.endswith("cat")


@pytest.mark.parametrize(
    ("headline", "names", "shown"),
    [
        ("AP", "AP AP50 APs APl APr APc APf AR@300", "AP AP50 APr APc APf APs"),
        ("PQ", "PQ SQ RQ PQ_things SQ_things RQ_things PQ_stuff", "PQ SQ RQ PQ_things PQ_stuff SQ_things"),
        ("AP50_novel", "AP AP50 APs AP50_novel AP50_base AR1", "AP50_novel AP AP50 AP50_base APs AR1"),
    ],
)
def test_what_the_field_quotes_stands_in_large_letters(
    outcome: Outcome, headline: str, names: str, shown: str
) -> None:
    metrics: dict[str, float | None] = {name: 0.5 for name in names.split()} | {"none": None}
    found = tiles(dataclasses.replace(outcome, headline=headline, metrics=metrics))
    assert [tile.name for tile in found] == shown.split()


def test_a_picture_that_is_gone_is_told(outcome: Outcome, folder: Path) -> None:
    (folder / "a.png").unlink()
    page = checked(render_report(outcome, folder))
    assert "is not shown" in page.words
    assert "img" not in [tag for tag, _ in page.tags]


def test_a_large_vocabulary_stays_small(outcome: Outcome, folder: Path) -> None:
    names = [f"class number {i}" for i in range(1203)]
    values = {name: 0.123456 for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "objects", "detections")}
    large = dataclasses.replace(
        outcome,
        per_class=tuple(ClassRow(id=i, name=n, groups=("r",), values=values) for i, n in enumerate(names)),
        curves=tuple(Curve(name=n, class_id=i, iou=0.5, precision=(0.5,) * 101) for i, n in enumerate(names)),
    )
    assert len(render_report(large, folder)) < 1_500_000


def test_almost_nothing_is_a_page_too(tmp_path: Path) -> None:
    empty = Outcome(
        protocol="none", title="Nothing", kind="coco", headline="AP", report_line="", metrics={"AP": None}
    )
    page = checked(render_report(empty, tmp_path))
    assert "n/a" in page.words
    assert "Result file" in page.words


def test_written_beside_the_numbers(outcome: Outcome, folder: Path) -> None:
    write_outcome(outcome, folder)
    assert write_report(folder) == folder / REPORT_FILE
    assert (folder / REPORT_FILE).read_text(encoding="utf-8") == render_report(outcome, folder)
    with pytest.raises(MissingFile):
        write_report(folder / "nowhere")


def test_script_is_valid(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = tmp_path / "page.js"
    script.write_text(files("eval").joinpath("reporting", "pages", "page.js").read_text(encoding="utf-8"))
    done = subprocess.run([node, "--check", str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_paper_is_light_and_whole(outcome: Outcome, folder: Path) -> None:
    """A dark page prints as a light one, and no picture waits to be scrolled to."""
    style = (files("eval.reporting") / "pages/style.css").read_text()
    dark = "--ink: #eceae5"
    assert style.count(dark) == 2
    printed = re.sub(r"@media screen[^{]*\{(?:[^{}]|\{[^{}]*\})*\}", "", style)
    assert dark not in printed
    assert "--ink: #16191d" in printed
    assert 'loading="lazy"' not in render_report(outcome, folder)
