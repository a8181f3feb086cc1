"""Files that somebody else made are scored as the reference tools score them, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.outcome_files import read_outcome
from eval.protocols import protocol
from eval.running.asking import LocalAsker
from eval.running.files import score_files
from eval.running.run import run
from ovperception import cli
from ovperception.errors import InvalidDataset, InvalidParameter, MissingFile, Unsupported
from tests.eval.running_jobs import drawn, job

SAME = {"abs": 1e-15, "rel": 1e-14}


@pytest.fixture(scope="module")
def data(shared_dir: Path) -> Path:
    return shared_dir / "eval/data"


@pytest.fixture(scope="module")
def goldens(shared_dir: Path) -> dict:
    return json.loads((shared_dir / "eval/goldens.json").read_text())


def ask(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert cli.main(["eval", "--json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parity
@pytest.mark.parametrize(("name", "iou"), [("coco_box", "bbox"), ("coco_mask", "segm")])
def test_coco(
    name: str, iou: str, goldens: dict, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = data / "MiXaiLL76__faster_coco_eval/tests/dataset/cocoapi/instances_val2014_100.json"
    results = data / f"cocodataset__cocoapi/results/instances_val2014_fake{iou}100_results.json"
    printed = ask(capsys, "--protocol", name, "--annotations", truth, "--results", results, "--out", tmp_path)
    assert printed == pytest.approx(goldens["coco_val2014_100"][iou]["stats"], **SAME)
    outcome = read_outcome(tmp_path)
    assert outcome.metrics == printed
    assert len(outcome.images) == (100 if iou == "bbox" else 0)
    assert {b.name for b in outcome.breakdowns} == {"size"}
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parity
def test_lvis(goldens: dict, data: Path, tmp_path: Path) -> None:
    truth = data / "lvis-dataset__lvis-api/data/lvis_val_100.json"
    results = data / "derived/lvis_val_100/dt_bbox.json"
    for name, golden in (("lvis_v0.5_box", "bbox"), ("lvis_box_fixed", "bbox_fixed")):
        outcome = score_files(protocol(name), truth, results, tmp_path / name)
        stats = goldens["lvis_val_100"][golden]["stats"]
        stats = {key.replace("@-1", ""): value for key, value in stats.items()}
        assert {key: outcome.metrics[key] for key in stats} == pytest.approx(stats, **SAME)


@pytest.mark.parity
def test_panoptic(goldens: dict, data: Path, tmp_path: Path) -> None:
    sample = data / "cocodataset__panopticapi"
    original = sample / "sample_data/panoptic_examples.json"
    content = json.loads(original.read_text())
    content["categories"] = json.loads((sample / "panoptic_coco_categories.json").read_text())
    (tmp_path / "truth.json").write_text(json.dumps(content))
    outcome = score_files(
        protocol("coco_panoptic"),
        tmp_path / "truth.json",
        data / "derived/panoptic_shift8.json",
        tmp_path / "out",
        annotation_maps=original.with_suffix(""),
    )
    expected = goldens["panopticapi_sample"]["shift8"]
    assert outcome.metrics["PQ"] == pytest.approx(expected["All"]["pq"], **SAME)
    assert outcome.metrics["PQ_things"] == pytest.approx(expected["Things"]["pq"], **SAME)
    assert outcome.counts is not None
    assert outcome.counts.values[:, 0].sum() == sum(row[0] for row in expected["counts"].values())


@pytest.mark.parity
def test_label_maps(goldens: dict, data: Path, tmp_path: Path) -> None:
    names = goldens["sceneparsing_sample"]["files"]
    folder = data / "CSAILVision__sceneparsing/sampleData/annotations"
    for kind in ("truth", "found"):
        (tmp_path / kind).mkdir()
    for name in names:
        labels = cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(tmp_path / "truth" / name), labels)
        # The golden's rolled map gives unlabelled pixels the first class.
        cv2.imwrite(str(tmp_path / "found" / name), np.maximum(np.roll(labels, 7, axis=1), 1))
    outcome = score_files(protocol("ade20k_150"), tmp_path / "truth", tmp_path / "found", tmp_path / "out")
    expected = goldens["sceneparsing_sample"]["roll7"]
    assert outcome.metrics["mIoU"] == pytest.approx(expected["mIoU_gt_classes"], **SAME)
    assert outcome.metrics["pACC"] == pytest.approx(expected["aAcc"], **SAME)
    assert "averaged as detectron2" in outcome.report_line


def test_what_a_run_wrote_scores_the_same(tmp_path: Path, fake_model: type) -> None:
    one = job("scenes_ov_coco", tmp_path / "run")
    (outcome,) = run([one], asker=LocalAsker(fake_model(drawn(5), lies=True), one))
    again = score_files(
        one.protocol, one.out / "truth.json", one.out / "predictions/results.json", tmp_path / "files"
    )
    assert again.metrics == outcome.metrics
    assert [i.score for i in again.images] == [i.score for i in outcome.images]
    assert again.confusion == outcome.confusion


def told(tmp_path: Path, capsys: pytest.CaptureFixture[str], **wrong: object) -> str:
    """What the terminal says of a file whose second record is wrong."""
    mask = {"size": [2, 2], "counts": "04"}
    row = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": mask}
    truth = {
        "images": [{"id": 1, "height": 2, "width": 2}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [],
    }
    paths = tmp_path / "wrong_truth.json", tmp_path / "wrong.json"
    for path, content in zip(paths, (truth, [row, row | wrong]), strict=True):
        path.write_text(json.dumps(content))
    given = ["--annotations", str(paths[0]), "--results", str(paths[1]), "--out", str(tmp_path / "wrong")]
    assert cli.main(["eval", "--protocol", "coco_mask", *given]) == 2
    return capsys.readouterr().err


def test_what_cannot_be_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "truth.json").write_text('{"images": [')
    (tmp_path / "results.json").write_text("[]")
    out = tmp_path / "out"
    with pytest.raises(InvalidDataset, match="cut short"):
        score_files(protocol("coco_box"), tmp_path / "truth.json", tmp_path / "results.json", out)
    with pytest.raises(MissingFile):
        score_files(protocol("ade20k_150"), tmp_path / "no", tmp_path / "folder", out)
    with pytest.raises(Unsupported, match="label files"):
        score_files(protocol("coco_semantic"), tmp_path, tmp_path, out)
    with pytest.raises(Unsupported, match="Episodes"):
        score_files(protocol("fss_1000"), tmp_path, tmp_path, out)
    with pytest.raises(InvalidParameter, match="This is a folder"):
        score_files(protocol("coco_box"), tmp_path / "truth.json", tmp_path, out)
    assert "results[1].score: " in told(tmp_path, capsys, score=float("nan"))
    wrong = f"results[1].segmentation: {tmp_path / 'wrong.json'}: This has no mask"
    assert wrong in told(tmp_path, capsys, segmentation=None)
    assert cli.main(["eval", "--annotations", "a", "--out", str(out), "--json"]) == 2
    assert "--protocol is missing" in json.loads(capsys.readouterr().err)["error"]["message"]


def test_a_map_of_strange_values_is_named(tmp_path: Path) -> None:
    for kind, value in (("truth", 5), ("found", 200)):
        (tmp_path / kind).mkdir()
        cv2.imwrite(str(tmp_path / kind / "a.png"), np.full((4, 4), value, np.uint8))
    with pytest.raises(InvalidDataset, match=r"^a.png: values .* no classes.*1 to 150.*\[200\]"):
        score_files(protocol("ade20k_150"), tmp_path / "truth", tmp_path / "found", tmp_path / "out")


def boxes_of(name: str, **image: object) -> tuple[dict, list]:
    """A truth of one box, and an answer to it."""
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}
    truth = {
        "images": [{"id": 1, "height": 8, "width": 8, **image}],
        "annotations": [{"id": 1, "area": 16, **box}],
        "categories": [{"id": 1, "name": name, "frequency": "c"}],
    }
    return truth, [{**box, "score": 0.5}]


def scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, truth: object, found: object, *more: str
) -> str:
    """What the terminal says, and of an error its message."""
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    options = ["--annotations", str(tmp_path / "truth.json"), "--results", str(tmp_path / "found.json")]
    status = cli.main(["eval", "--protocol", name, *options, "--out", str(tmp_path / "out"), *more])
    told = capsys.readouterr()
    assert bool(status) == bool(told.err)
    return " ".join((told.err or told.out).split())


def test_classes_of_another_set_are_no_published_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(tmp_path, capsys, "coco_box", *boxes_of("person"))
    assert 'id="published"' in (tmp_path / "out/report.html").read_text()
    text = scored(tmp_path, capsys, "coco_box", *boxes_of("widget"))
    assert "1 x category of the annotation file that is not one of the protocol's" in text
    assert "words the annotation file's own; " in text
    assert 'id="published"' not in (tmp_path / "out/report.html").read_text()


def test_a_federated_truth_tells_what_was_searched_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists: dict[str, list[int]] = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    text = scored(tmp_path, capsys, "lvis_box", *boxes_of("aerosol can", **lists))
    assert " x " not in text
    for name in lists:
        kept = {key: value for key, value in lists.items() if key != name}
        text = scored(tmp_path, capsys, "lvis_box", *boxes_of("aerosol can", **kept))
        assert f'1 of 1 images have no "{name}"' in text


def test_a_truth_that_is_none_is_refused_for_minival_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = scored(tmp_path, capsys, "lvis_minival_box", [], [])
    assert "This is not an annotation file" in text


@pytest.mark.parametrize("option", [["--limit", "2"], ["--model", "tiny"], ["--server", "here:1"]])
def test_options_that_files_cannot_follow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    text = scored(tmp_path, capsys, "coco_box", *boxes_of("person"), *option)
    assert f"Got {option[0]}. Leave it out" in text
