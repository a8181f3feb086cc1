"""Evaluations by protocol: durable, resumable, the same numbers however they are come by."""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from eval.outcome_files import read_outcome
from eval.protocols import EvaluationProtocol
from eval.running.asking import LocalAsker
from eval.running.done import Done
from eval.running.job import Job, open_data, protocol_of_data
from eval.running.journal import Journal, done_indices, locked, read_records
from eval.running.run import keep_plan, run
from ovperception.errors import Conflict, InvalidParameter, MissingFile, ResourceExhausted, Unsupported
from ovperception.sliding import Views
from tests.eval.running_jobs import drawn, job, numbers, settled, with_limit

KINDS = ["scenes_ov_coco", "scenes_ov_lvis_mask", "scenes_panoptic", "scenes_semantic"]
Ask = Callable[[Job], LocalAsker]


class _Once:
    """Raises after so many images, as a killed process ends."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.fixture
def asker(fake_model: type) -> Ask:
    def make(one: Job, **how: Any) -> LocalAsker:
        return LocalAsker(fake_model(drawn(5), **how), one)

    return make


@pytest.mark.parametrize("name", KINDS)
def test_truth_is_perfect_and_kept_in_the_official_format(name: str, tmp_path: Path, asker: Ask) -> None:
    (outcome,) = run([job(name, tmp_path)], asker=asker(job(name, tmp_path)))
    assert outcome.metrics[outcome.headline] == pytest.approx(1)
    assert [image.score for image in outcome.images] == [1, 1, 1]
    assert read_outcome(tmp_path).metrics == outcome.metrics
    assert outcome.protocol in json.loads((tmp_path / "outcome.json").read_text())["protocol"]
    assert "scenes val, 3 images" in outcome.report_line
    assert outcome.facts.inference_seconds > 0
    where = tmp_path / outcome.facts.predictions
    assert where.exists()
    assert {example.which for example in outcome.examples} == {"best", "worst"}


def test_lies_are_confused_pairs(tmp_path: Path, asker: Ask) -> None:
    one = job("scenes_coco_box", tmp_path)
    (outcome,) = run([one], asker=asker(one, lies=True))
    assert outcome.metrics["AP"] == pytest.approx(0, abs=0.2)
    pair = outcome.confusion[0]
    assert pair.truth != pair.predicted
    assert pair.share == 1


@pytest.mark.parametrize("name", ["scenes_lvis_box", "scenes_panoptic"])
def test_a_stopped_run_goes_on_where_it_was(name: str, tmp_path: Path, asker: Ask) -> None:
    whole, broken = job(name, tmp_path / "whole", limit=5), job(name, tmp_path / "broken", limit=5)
    run([whole], asker=asker(whole, lies=True))
    with pytest.raises(KeyboardInterrupt):
        run([broken], asker=asker(broken, lies=True), on_image=_Once(2))
    records = next((broken.out / "run").glob("records-*"))
    records.write_bytes(records.read_bytes() + b'{"i":2,"id":3,"at":1')  # cut short in the middle of a write
    again = asker(broken, lies=True)
    (outcome,) = run([broken], asker=again)
    assert again.model.encoded == 3
    assert numbers(broken.out) == numbers(whole.out)
    assert settled(broken.out) == settled(whole.out)
    assert outcome.facts.resumed == 1


def test_a_larger_limit_keeps_what_is_done_and_a_smaller_one_cuts(tmp_path: Path, asker: Ask) -> None:
    one = job("scenes_coco_box", tmp_path / "grown", limit=2)
    (small,) = run([one], asker=asker(one))
    more = asker(one)
    (large,) = run([with_limit(one, 4)], asker=more)
    assert (len(small.images), len(large.images), more.model.encoded) == (2, 4, 2)
    (again,) = run([one], asker=asker(one))
    assert again.metrics == small.metrics


def test_several_protocols_look_once(tmp_path: Path, asker: Ask) -> None:
    jobs = [job(name, tmp_path / name) for name in KINDS]
    model = asker(jobs[0])
    outcomes = run(jobs, asker=model)
    assert model.model.encoded == 3
    alone = job(KINDS[2], tmp_path / "alone")
    run([alone], asker=asker(alone))
    assert numbers(alone.out) == numbers(jobs[2].out)
    assert [o.protocol for o in outcomes] == KINDS


def test_a_lost_map_is_made_again(tmp_path: Path, asker: Ask) -> None:
    one = job("scenes_semantic", tmp_path)
    run([one], asker=asker(one))
    before = numbers(tmp_path)
    lost = tmp_path / "predictions/labels/000000000002.png"
    for lose in (lost.unlink, lambda: lost.write_bytes(b"")):
        lose()
        model = asker(one)
        run([one], asker=model)
        assert model.model.encoded == 1
        assert numbers(tmp_path) == before


def test_a_folder_of_something_else_is_refused(tmp_path: Path, asker: Ask) -> None:
    one = job("scenes_coco_box", tmp_path)
    run([one], asker=asker(one))
    other = job("scenes_lvis_box", tmp_path)
    with pytest.raises(Conflict, match="holds an evaluation of something else"):
        run([other], asker=asker(other))
    with locked(tmp_path / "run"), pytest.raises(Conflict, match="Another evaluation"):
        run([one], asker=asker(one))


def test_a_model_that_cannot(tmp_path: Path, asker: Ask) -> None:
    one = job("scenes_panoptic", tmp_path)
    with pytest.raises(Unsupported, match="cannot answer 'panoptic'"):
        run([one], asker=asker(one, tasks=["detect"]))
    masks = job("scenes_coco_mask", tmp_path / "masks")
    with pytest.raises(Unsupported, match="boxes without masks"):
        run([masks], asker=asker(masks, masks=False))


def test_a_full_disk_loses_nothing(tmp_path: Path, asker: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    one = job("scenes_coco_box", tmp_path)
    flush = Journal.flush

    def full(self: Journal) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(KeyboardInterrupt):
        run([one], asker=asker(one), on_image=_Once(1))
    monkeypatch.setattr("eval.running.journal.os.fsync", lambda _: full(None))  # type: ignore[arg-type]
    with pytest.raises(ResourceExhausted, match="goes on where it was"):
        run([one], asker=asker(one))
    monkeypatch.undo()
    assert Journal.flush is flush
    assert 0 in done_indices(tmp_path / "run")
    (outcome,) = run([one], asker=asker(one))
    assert len(outcome.images) == 3


def test_what_cannot_be_opened(tmp_path: Path, asker: Ask) -> None:
    with pytest.raises(InvalidParameter, match="limit is too small"):
        job("scenes_coco_box", tmp_path, limit=0)
    with pytest.raises(Unsupported, match="--resolution model"):
        job("coco_instance_133", tmp_path, data="coco_panoptic", server="here:1")
    taken = tmp_path / "file"
    taken.write_text("mine")
    one = job("scenes_coco_box", taken)
    with pytest.raises(InvalidParameter, match="cannot be written"):
        run([one], asker=asker(one))


def test_missing_pictures_are_told_before_the_run(tmp_path: Path, asker: Ask) -> None:
    (tmp_path / "images").mkdir()
    truth = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 8, "width": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16}],
        "categories": [{"id": 1, "name": "person"}],
    }
    (tmp_path / "my.json").write_text(json.dumps(truth))
    one = job("coco_box", tmp_path / "out", data=str(tmp_path / "my.json"), root=tmp_path / "images")
    with pytest.raises(MissingFile, match="1 of 1 pictures"):
        run([one], asker=asker(one))


def test_records_are_read_up_to_a_cut(tmp_path: Path) -> None:
    with Journal(tmp_path, "1", 0) as journal:
        for i in range(20):
            journal.append({"i": i, "id": i, "at": 0.0})
    path = next(tmp_path.glob("records-*"))
    # A power cut may leave anything of a line, or zeros.
    path.write_bytes(b"\0\0\n7\n[]\n{}\n\xff\n" + path.read_bytes()[:-3])
    assert len(Done(tmp_path, 100)) == 19
    assert [record["i"] for _, record in read_records(tmp_path)] == list(range(19))


def test_a_plan_that_is_broken_is_another(tmp_path: Path) -> None:
    for content in (b"{", b"[1]", b"\xff", b"null"):
        (tmp_path / "plan.json").write_bytes(content)
        with pytest.raises(Conflict, match="model unknown"):
            keep_plan(tmp_path, {"model": "a"})


def test_looking_more_than_once_is_told(tmp_path: Path, fake_model: type) -> None:
    one = job("scenes_semantic", tmp_path)
    model = fake_model(drawn(5))
    model.heads = {
        "lseg": SimpleNamespace(config=SimpleNamespace(views=Views(base=520, crop=480, scales=(0.5, 1.0))))
    }
    (outcome,) = run([one], asker=LocalAsker(model, one))
    told = "windows of 480 at scales 0.5, 1 of 520, mirrored as well"
    assert f"test-time augmentation {told};" in outcome.report_line
    assert outcome.facts.augmentation == told
    other = job("scenes_semantic", tmp_path / "once")
    (plain,) = run([other], asker=LocalAsker(fake_model(drawn(5)), other))
    assert "test-time augmentation none;" in plain.report_line


def test_files_of_ones_own_are_not_judged_by_other_classes(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8), np.uint8))
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.jpg"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "classes.txt").write_text("widget\ngadget\n")
    own = {"data": str(tmp_path), "root": tmp_path / "images", "words": tmp_path / "classes.txt"}
    with pytest.raises(InvalidParameter, match="2 classes: widget, gadget"):
        open_data(job("ade20k_150", tmp_path / "out", **own))
    assert len(open_data(dataclasses.replace(job("ade20k_150", tmp_path, **own), protocol=_own(own)))) == 1
    truth = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 8, "width": 8}],
        "annotations": [],
        "categories": [{"id": 1, "name": "widget"}],
    }
    (tmp_path / "my.json").write_text(json.dumps(truth))
    own = {"data": str(tmp_path / "my.json"), "root": tmp_path / "images"}
    with pytest.raises(InvalidParameter, match="1 classes: widget"):
        open_data(job("coco_box", tmp_path / "out", **own))
    assert len(open_data(dataclasses.replace(job("coco_box", tmp_path, **own), protocol=_own(own)))) == 1


def _own(files: dict[str, Any]) -> EvaluationProtocol:
    return protocol_of_data(files["data"])
