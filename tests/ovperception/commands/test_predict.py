"""``ovp predict``, here and on a server."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

import ovperception
from ovperception.cli import main
from ovperception.head_choice import choose_head
from ovperception.images import load_image, save_image
from serving import Server, ServerConfig
from tests.serving.fake_model import FakeModel

WORDS = "cat,dog|hound,traffic light"


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    def load(name, **options):
        return FakeModel(name)

    # As an item: as an attribute, the real one would be loaded first, and torch with it.
    monkeypatch.setitem(vars(ovperception), "load", load)


@pytest.fixture(scope="module")
def server():
    with Server([FakeModel("tiny")], ServerConfig(port=0)) as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "c.webp"):
        save_image(tmp_path / name, rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def _rows(capfd):
    out = capfd.readouterr().out
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("task", ["detect", "semantic", "panoptic"])
def test_local_and_served_print_and_write_the_same(folder, server, capfd, task):
    arguments = ["predict", str(folder), "--classes", WORDS, "--task", task, "--json", "--out"]
    assert main([*arguments, str(folder / "out")]) == 0
    local = _rows(capfd)
    files = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    assert main([*arguments, str(folder / "out"), "--server", server.address]) == 0
    assert _rows(capfd) == local
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == files
    assert [row["image"] for row in local] == [str(folder / name) for name in ("a.png", "b.jpg", "c.webp")]
    assert all(row["model"] == "tiny" and row["task"] == task and row["size"] == [40, 60] for row in local)
    kind = {"detect": "detect", "semantic": "labels", "panoptic": "ids"}[task]
    assert f"a.{kind}.png" in files
    assert load_image(folder / "out" / f"a.{task}.png").shape == (40, 60, 3)


def test_detections_as_promised(folder, capfd):
    assert main(["predict", str(folder / "a.png"), "--classes", WORDS, "--json"]) == 0
    (row,) = _rows(capfd)
    assert list(row) == ["image", "size", "model", "task", "detections"]
    first = row["detections"][0]
    assert list(first) == ["class", "score", "box", "mask"]
    assert first["mask"]["size"] == [40, 60]
    expected = FakeModel().encode(folder / "a.png").detect(WORDS.split(",")).to_json()
    assert row["detections"] == expected["detections"]


def test_maps_as_promised(folder, capfd):
    image = str(folder / "a.png")
    out = ["--out", str(folder / "out"), "--json", "--classes", WORDS]
    assert main(["predict", image, "--task", "semantic", *out]) == 0
    (row,) = _rows(capfd)
    assert row["classes"] == ["cat", "dog", "traffic light"]
    labels = cv2.imread(row["label_map"], cv2.IMREAD_UNCHANGED).astype(int)
    expected = FakeModel().encode(image).semantic(WORDS.split(",")).labels
    np.testing.assert_array_equal(np.where(labels == 255, -1, labels), expected)
    assert main(["predict", image, "--task", "panoptic", *out]) == 0
    (row,) = _rows(capfd)
    assert list(row["segments"][0]) == ["id", "class", "score", "area", "is_thing"]
    assert main(["predict", image, "--task", "panoptic", "--classes", WORDS, "--json"]) == 0
    assert _rows(capfd)[0]["id_map"] is None


@pytest.mark.parametrize("served", [False, True])
def test_one_bad_picture_among_several(folder, server, capfd, served):
    (folder / "bad.png").write_bytes(b"no picture")
    arguments = ["predict", str(folder / "a.png"), str(folder / "bad.png"), str(folder / "none.png")]
    arguments += [str(folder / "*.gif"), str(folder / "b.jpg"), "--classes", "cat", "--json"]
    assert main([*arguments, "--server", server.address] if served else arguments) == 2
    out, err = capfd.readouterr()
    assert [json.loads(line)["image"] for line in out.splitlines()] == [
        str(folder / "a.png"),
        str(folder / "b.jpg"),
    ]
    errors = [json.loads(line)["error"] for line in err.splitlines()]
    assert {error["reason"] for error in errors} == {"INVALID_IMAGE", "MISSING_FILE"}
    assert {error["image"] for error in errors} == {
        str(folder / name) for name in ("bad.png", "none.png", "*.gif")
    }


def test_patterns_and_names_that_collide(folder, capfd):
    save_image(folder / "a.jpg", np.zeros((9, 9, 3), np.uint8))
    assert main(["predict", str(folder / "a.*"), "--classes", "cat", "--out", str(folder / "out")]) == 0
    assert {path.name for path in (folder / "out").iterdir()} == {"a.detect.png", "a-2.detect.png"}
    assert "a.jpg" in capfd.readouterr().out.replace("\n", "")  # long paths wrap


def test_words_from_elsewhere(folder, capfd):
    (folder / "words.txt").write_text("cat\ndog|hound\ntraffic light\n")
    image = str(folder / "a.png")
    assert main(["predict", image, "--classes-file", str(folder / "words.txt"), "--json"]) == 0
    assert main(["predict", image, "--classes", WORDS, "--json", "--templates", "simple_7"]) == 0
    first, second = _rows(capfd)
    assert first == second
    assert main(["predict", image, "--vocabulary", "cityscapes_19", "--json"]) == 0
    assert len(_rows(capfd)[0]["detections"]) == 19


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "INVALID_PARAMETER"),
        (["--classes", "cat", "--vocabulary", "coco_80"], "INVALID_PARAMETER"),
        (["--classes", "cat,,dog"], "INVALID_VOCABULARY"),
        (["--classes", "cat", "--templates", "nothing"], "INVALID_VOCABULARY"),
        (["--vocabulary", "none"], "UNKNOWN_VOCABULARY"),
        (["--classes-file", "/none"], "MISSING_FILE"),
        (["--classes", "cat", "--task", "dream"], "USAGE"),
        (["--classes", "cat", "--score-threshold", "high"], "USAGE"),
        (["--classes", "cat", "--tls-ca", "ca.pem"], "INVALID_PARAMETER"),
        (["--classes", "cat", "--server", "nowhere"], "INVALID_PARAMETER"),
        (["--classes", "cat", "--out", "/dev/null/x"], "INVALID_PARAMETER"),
    ],
)
def test_what_can_be_mended(folder, capfd, arguments, reason):
    assert main(["predict", str(folder / "a.png"), *arguments, "--json"]) == 2
    out, err = capfd.readouterr()
    assert not out
    assert json.loads(err)["error"]["reason"] == reason


@pytest.mark.parametrize("least", ["nan", "1.5", "-1"])
def test_a_bad_threshold_is_refused_before_a_model_is_loaded(folder, monkeypatch, capfd, least):
    monkeypatch.setitem(vars(ovperception), "load", None)
    arguments = ["predict", str(folder), "--classes", "cat", "--score-threshold", least, "--json"]
    assert main(arguments) == 2
    error = json.loads(capfd.readouterr().err)["error"]
    assert (error["reason"], error["field"]) == ("INVALID_PARAMETER", "score_threshold")


TASKS = ["detect", "semantic", "panoptic", "heatmap"]


@pytest.mark.parametrize("task", TASKS)
def test_pictures_of_unusual_size_and_depth(tmp_path, capfd, task):
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 2**16, (30, 40), dtype=np.uint16)
    assert cv2.imwrite(str(tmp_path / "deep.png"), deep)
    save_image(tmp_path / "dot.png", np.zeros((1, 1, 3), np.uint8))
    save_image(tmp_path / "long.png", np.zeros((50, 8000, 3), np.uint8))
    arguments = ["predict", str(tmp_path), "--classes", "cat", "--task", task, "--json"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert [row["size"] for row in _rows(capfd)] == [[30, 40], [1, 1], [50, 8000]]


def test_pictures_that_break_off(folder, capfd):
    whole = (folder / "b.jpg").read_bytes()
    for share in (0, 2, 20, len(whole) // 2, len(whole) - 20):
        (folder / "b.jpg").write_bytes(whole[:share])
        assert main(["predict", str(folder / "b.jpg"), "--classes", "cat", "--json"]) == 2, share
        out, err = capfd.readouterr()
        assert not out
        assert json.loads(err)["error"]["reason"] == "INVALID_IMAGE"


@pytest.mark.parametrize("least", ["nan", "1.5", "-1"])
def test_a_bad_threshold_on_a_server(folder, server, capfd, least):
    arguments = ["predict", str(folder), "--classes", "cat", "--server", server.address]
    assert main([*arguments, "--score-threshold", least, "--json"]) == 2
    assert json.loads(capfd.readouterr().err)["error"]["field"] == "score_threshold"


def test_an_unknown_model_on_a_server(folder, server, capfd):
    arguments = ["predict", str(folder), "--classes", "cat", "--server", server.address, "--model", "none"]
    assert main([*arguments, "--json"]) == 2
    assert json.loads(capfd.readouterr().err)["error"]["reason"] == "UNKNOWN_MODEL"


def test_no_server(folder, capfd):
    arguments = ["predict", str(folder), "--classes", "cat", "--server", "127.0.0.1:1", "--timeout", "2"]
    assert main([*arguments, "--json"]) == 1
    assert json.loads(capfd.readouterr().err)["error"]["reason"] == "UNAVAILABLE"


@pytest.mark.parametrize("task", TASKS)
def test_a_table_for_people(folder, capfd, task):
    assert main(["predict", str(folder / "a.png"), "--classes", "[red]cat,dog", "--task", task]) == 0
    out = capfd.readouterr().out
    assert "dog" in out
    assert "[red]cat" in out


def test_help_loads_no_torch():
    code = """
import sys
sys.modules["torch"] = None
from ovperception.cli import main
sys.exit(main(["predict", "--help"]))
"""
    wide = os.environ | {"COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, env=wide)
    assert done.returncode == 0, done.stderr
    assert b"--score-threshold" in done.stdout
    assert b"[[x0, y0, x1, y1], ...]" in done.stdout  # brackets are markup to some


@pytest.mark.parametrize(
    ("text", "expected"),
    [("none", ()), ("", ()), ("tree,house|cottage", ("tree", "house|cottage"))],
)
def test_background_is_none_or_words(text: str, expected: tuple[str, ...]) -> None:
    from ovperception.commands.question_words import background_words

    assert background_words(text) == expected


def test_background_may_be_a_builtin_list() -> None:
    from ovperception.commands.question_words import background_words

    words = background_words("cityscapes_19")
    assert len(words) == 19
    assert any("|" in word for word in words)


def test_given_boxes_are_named(folder, server, capfd):
    (folder / "boxes.json").write_text("[[1, 2, 30, 20.5], [0, 0, 9, 9]]")
    arguments = ["predict", str(folder / "a.png"), str(folder / "b.jpg"), "--classes", WORDS, "--json"]
    arguments += ["--boxes", str(folder / "boxes.json")]
    for where in ([], ["--server", server.address]):
        assert main([*arguments, *where]) == 0
        for row in _rows(capfd):
            assert [d["box"] for d in row["detections"]] == [[1, 2, 30, 20.5], [0, 0, 9, 9]]


def test_each_picture_has_its_own_boxes(folder, capfd):
    boxes = {"a.png": [[1, 2, 30, 20]], str(folder / "b.jpg"): [], "c.webp": "none"}
    (folder / "boxes.json").write_text(json.dumps(boxes))
    arguments = ["predict", str(folder), "--classes", WORDS, "--json", "--boxes", str(folder / "boxes.json")]
    assert main(arguments) == 2
    rows = [row for row in _rows(capfd) if "detections" in row]
    assert [len(row["detections"]) for row in rows] == [1, 0]


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (None, [], "cannot be read"),
        ("{", [], "is not JSON"),
        ("7", [], "holds no boxes"),
        ("[]", ["--task", "semantic"], "to be named"),
    ],
)
def test_boxes_that_cannot_be_used(folder, capfd, text, options, said):
    if text is not None:
        (folder / "boxes.json").write_text(text)
    boxes = ["--boxes", str(folder / "boxes.json")]
    assert main(["predict", str(folder / "a.png"), "--classes", WORDS, *boxes, *options]) == 2
    assert said in capfd.readouterr().err


@pytest.mark.parametrize("served", [False, True])
def test_heat_maps_as_promised(folder, server, capfd, served):
    image, out = folder / "a.png", folder / "out"
    arguments = ["predict", str(image), "--task", "heatmap", "--classes", WORDS, "--json", "--out", str(out)]
    assert main([*arguments, "--server", server.address] if served else arguments) == 0
    (row,) = _rows(capfd)
    assert list(row) == ["image", "size", "model", "task", "heatmaps"]
    scene = FakeModel().encode(image)
    for found, texts in zip(row["heatmaps"], ("cat", "dog|hound", "traffic light"), strict=True):
        heat = scene.heatmap(texts)
        assert found["class"] == texts.partition("|")[0]
        assert found["lowest"] == pytest.approx(heat.min(), abs=1e-4)
        assert found["highest"] == pytest.approx(heat.max(), abs=1e-4)
        x, y = found["at"]
        assert heat[y, x] == heat.max()
    assert [path.name for path in out.iterdir()] == ["a.heatmap.png"]
    drawn = load_image(out / "a.heatmap.png")
    assert drawn.shape[0] > 40  # titled
    assert drawn.shape[1] > 3 * 60  # side by side


def test_heat_maps_of_a_large_picture_are_shrunk(folder, capfd):
    save_image(folder / "large.png", np.zeros((700, 1300, 3), np.uint8))
    arguments = ["predict", str(folder / "large.png"), "--task", "heatmap", "--classes", "cat,dog", "--json"]
    assert main([*arguments, "--out", str(folder / "out")]) == 0
    assert _rows(capfd)[0]["size"] == [700, 1300]
    height, width = load_image(folder / "out" / "large.heatmap.png").shape[:2]
    assert 345 < height < 450
    assert 2 * 640 < width < 1350


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (["--classes", "cat", "--score-threshold", "0.5"], "score_threshold"),
        (["--classes", "cat", "--templates", "simple_7"], "templates"),
        (["--classes", "cat", "--background", "none"], "background"),
        (["--vocabulary", "coco_80"], "classes"),
    ],
)
def test_what_heat_maps_have_no_use_for(folder, capfd, options, field):
    assert main(["predict", str(folder / "a.png"), "--task", "heatmap", *options, "--json"]) == 2
    error = json.loads(capfd.readouterr().err)["error"]
    assert (error["reason"], error["field"]) == ("INVALID_PARAMETER", field)


def test_a_task_that_a_model_has_not_is_refused_before_it_looks(folder, monkeypatch, capfd):
    """In the same words here and by a server."""

    class BoxesOnly(FakeModel):
        tasks = frozenset({"detect"})

        def head_for(self, task, **wanted):
            return choose_head(self.name, {"only": self}, task)

        def prepare(self, image, **rest):
            pytest.fail("it has looked")

    monkeypatch.setitem(vars(ovperception), "load", lambda name, **options: BoxesOnly(name))
    asked = ["predict", str(folder / "a.png"), "--classes", WORDS, "--task", "panoptic"]
    said = []
    with Server([FakeModel("tiny")], ServerConfig(port=0)) as server:
        server.engine.models.put(BoxesOnly("tiny"))
        for more in (["--model", "tiny"], ["--server", server.address]):
            assert main([*asked, *more]) == 2
            said.append(capfd.readouterr().err)
    assert said[0] == said[1]
    assert "Model 'tiny' cannot answer 'panoptic'. Expected detect." in said[0]
