"""Names become files, and a name that does not says what to do."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from heads.fcclip.config import PUBLISHED
from ovperception import catalogue
from ovperception.bundle import BackboneCard
from ovperception.errors import InvalidParameter, MissingFile, UnknownModel
from ovperception.plugins import head_names
from ovperception.preprocess import Preprocessing
from ovperception.templates import resolve_templates
from ovperception.vocabulary import Vocabulary


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVPERCEPTION_CACHE", str(tmp_path / "cache"))


def put(name: str) -> Path:
    path = catalogue.pulled_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a bundle")
    return path


def test_every_published_size_has_its_entry() -> None:
    arches = {
        e.backbone.removeprefix("open_clip:").partition("/")[0]
        for e in catalogue.entries().values()
        if e.head == "fcclip"
    }
    assert {arch.removesuffix("-quickgelu") for arch in arches} == set(PUBLISHED)


@pytest.mark.parametrize("found", catalogue.entries().values(), ids=lambda e: e.name)
def test_an_entry_refers_only_to_what_exists(found: catalogue.CatalogueEntry) -> None:
    import open_clip

    arch, _, tag = found.backbone.removeprefix("open_clip:").partition("/")
    assert arch in open_clip.list_models()
    # RegionCLIP trained its image towers: they are published nowhere but in its own checkpoints. LSeg's
    # checkpoint holds the text tower alone.
    assert (not tag) == (found.head in ("regionclip", "lseg"))
    assert not tag or tag in open_clip.list_pretrained_tags_by_model(arch)
    assert found.head in head_names()
    assert found.format in {p.name for p in entry_points(group="ovperception.converters")}
    sizes = {"coco_panoptic_133": 133, "ov_coco_48_17": 65, "lvis_v1_1203": 1203, "ade20k_150": 150}
    assert not found.vocabulary or len(Vocabulary.builtin(found.vocabulary)) == sizes[found.vocabulary]
    templates = {"fcclip": 14, "regionclip": 81, "lseg": 1}
    assert len(resolve_templates(found.templates)) == templates[found.head]
    assert found.template_rule == ("raw_mean" if found.head == "regionclip" else "normalise_each")
    assert found.licence
    preprocessing = Preprocessing.from_dict(found.preprocessing)
    assert preprocessing.to_dict() == found.preprocessing
    # fcclip_convnext_large_eval_ade20k.yaml: MIN_SIZE_TEST 800, MAX_SIZE_TEST 1333, SIZE_DIVISIBILITY 32;
    # RegionCLIP's are the same but for the padding, of which there is none. LSeg crops 480.
    padded = {"fcclip": (800, 1088), "regionclip": (800, 1067), "lseg": (480, 640)}
    assert preprocessing.geometry((480, 640)).padded == padded[found.head]


def test_published_scores() -> None:
    scores = catalogue.entry("fcclip-convnext-large").scores
    assert (scores["ADE20K PQ"], scores["ADE20K mask AP"], scores["ADE20K mIoU"]) == (26.8, 16.8, 34.1)
    assert {len(e.scores) for e in catalogue.entries().values() if e.head == "fcclip"} == {16}
    region_clip = {e.name: e.scores for e in catalogue.entries().values() if e.head == "regionclip"}
    assert region_clip == {
        "regionclip-rn50": {},
        "regionclip-rn50x4": {},
        "regionclip-coco-rn50": {"OV-COCO AP50 novel": 31.4, "OV-COCO AP50": 50.4},
        "regionclip-coco-rn50x4": {},
        "regionclip-lvis-rn50": {},
        "regionclip-lvis-rn50x4": {"OV-LVIS AP novel": 22.0, "OV-LVIS AP": 32.3},
    }


def test_a_card_is_the_entry_and_what_was_found() -> None:
    found = catalogue.entry("fcclip-r50")
    card = catalogue.card_for(
        found,
        backbone=BackboneCard(name=found.backbone, digest="ab"),
        head_settings={"queries": 3},
        bundle_name="mine",
        verified=("more",),
    )
    assert (card.name, card.vocabulary, card.licence) == ("mine", found.vocabulary, found.licence)
    assert card.heads[0].config == {"queries": 3}
    assert card.verified == ("more", *found.verified)


def test_a_path_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"a bundle")
    assert catalogue.locate(path) == path
    assert catalogue.locate(str(path)) == path


def test_a_pulled_model_is_found() -> None:
    pulled = put("fcclip-r50")
    assert catalogue.locate("fcclip-r50") == pulled


def test_a_converted_model_is_found_by_its_own_name() -> None:
    converted = put("my-model")
    assert catalogue.locate("my-model") == converted
    assert list(catalogue.on_this_machine()) == ["my-model"]


def test_a_name_goes_before_a_file_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fcclip-r50").write_bytes(b"another")
    pulled = put("fcclip-r50")
    assert catalogue.locate("fcclip-r50") == pulled
    assert catalogue.locate("./fcclip-r50") == Path("fcclip-r50")


def test_a_model_that_was_not_pulled_says_how() -> None:
    with pytest.raises(UnknownModel) as caught:
        catalogue.locate("fcclip-r50")
    message = caught.value.message
    assert "ovp models pull fcclip-r50" in message
    assert "https://drive.google.com/" in message
    assert "ovp convert fcclip-r50.pth --format fcclip --name fcclip-r50" in message


def test_an_unknown_name_lists_the_known_and_the_closest() -> None:
    with pytest.raises(UnknownModel, match="fcclip-r101") as caught:
        catalogue.locate("fclip-r50")
    assert "Perhaps you meant 'fcclip-r50'" in caught.value.message
    assert "tiny" in caught.value.message


@pytest.mark.parametrize("name", ["runs/model", "model.safetensors", Path("model"), "../up", "/"])
def test_a_path_that_leads_nowhere_is_a_missing_file(name: str | Path) -> None:
    with pytest.raises(MissingFile):
        catalogue.locate(name)


@pytest.mark.parametrize("name", ["", " ", "naïve", "a" * 65, "tiny\0"])
def test_no_model_is_called_this(name: str) -> None:
    with pytest.raises((UnknownModel, MissingFile)):
        catalogue.locate(name)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "a" * 65, "ü"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidParameter):
        catalogue.pulled_path(name)


def test_a_built_in_model_is_in_the_package() -> None:
    path = catalogue.built_in_path("tiny")
    assert path.parent.parent == Path(catalogue.__file__).parent / "data"
    if path.is_file():
        assert catalogue.locate("tiny") == path
    else:
        with pytest.raises(UnknownModel, match="Install ovperception again"):
            catalogue.locate("tiny")
