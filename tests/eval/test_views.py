"""Looking several times in a run: as a bundle would say it, told, kept to, and refused where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

import ovperception
from eval.outcome_files import read_outcome
from eval.running.asking import LocalAsker
from eval.running.run import run
from ovperception import cli
from ovperception.errors import Conflict, Unsupported
from ovperception.sliding import Views
from tests.eval.running_jobs import job, numbers, settled
from tests.heads.lseg.small import write_small_bundle

VIEWS = Views(base=96, crop=64, scales=(0.5, 1.0))
TEXT = "base=96 crop=64 scales=0.5,1"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("plain") / "small.safetensors")


def test_the_option_is_the_bundles_setting(plain: Path, tmp_path: Path) -> None:
    said = job("scenes_semantic", tmp_path / "said", resolution="model", limit=2)
    bundle = write_small_bundle(tmp_path / "said.safetensors", views=VIEWS.to_dict())
    run([said], asker=LocalAsker(ovperception.load(bundle), said))
    given = ["--limit", "2", "--size", "96", "--resolution", "model", "--protocol", "scenes_semantic"]
    out = tmp_path / "asked"
    command = ["eval", "--json", "--model", str(plain), *given, "--out", str(out)]
    assert cli.main([*command, "--views", TEXT]) == 0
    assert numbers(out) == numbers(said.out)
    assert settled(out) == settled(said.out)
    maps = sorted((out / "predictions/labels").iterdir())
    assert len(maps) == 2
    for path in maps:
        assert path.read_bytes() == (said.out / "predictions/labels" / path.name).read_bytes()
    told = f"test-time augmentation {VIEWS};"
    assert told in read_outcome(out).report_line
    assert told in read_outcome(said.out).report_line

    model = ovperception.load(plain)
    for views in (None, Views(base=96, crop=64, scales=(0.5, 1.0), flip=False)):
        other = job("scenes_semantic", out, resolution="model", model=str(plain), views=views)
        with pytest.raises(Conflict, match="augmentation"):
            run([other], asker=LocalAsker(model, other))


def test_where_views_cannot_be(plain: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Unsupported, match="serve a bundle whose head has these views"):
        job("scenes_semantic", tmp_path, server="localhost:1", resolution="model", views=VIEWS)
    with pytest.raises(Unsupported, match="window by window already"):
        job("training_free_voc20", tmp_path, data="pascal_voc_20", views=VIEWS)
    least = ["eval", "--views", TEXT, "--out", str(tmp_path)]
    assert cli.main([*least, "--model", str(plain)]) == 2
    assert "--protocol NAME" in capfd.readouterr().err
    files = ["--annotations", "a.json", "--results", "b.json", "--protocol", "coco_box"]
    assert cli.main([*least, *files]) == 2
    assert "--views" in capfd.readouterr().err
