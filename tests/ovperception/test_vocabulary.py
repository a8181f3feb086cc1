"""Words in, classes out; every mistake named with its place."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovperception.datasets.vocabularies import load_table, load_vocabulary_file, names
from ovperception.errors import InvalidVocabulary, MissingFile, UnknownVocabulary
from ovperception.stuff import default_stuff
from ovperception.templates import load_templates, resolve_templates, template_names
from ovperception.vocabulary import (
    MAX_CLASSES,
    MAX_SYNONYMS,
    Vocabulary,
    VocabularyClass,
)


def test_words():
    vocabulary = Vocabulary.from_words([" taxi ", "traffic light | stoplight", "sky"], templates="simple_7")
    assert vocabulary.names == ("taxi", "traffic light", "sky")
    assert vocabulary.texts == ("taxi", "traffic light", "stoplight", "sky")
    assert vocabulary.synonym_counts == (1, 2, 1)
    assert vocabulary.is_thing == (True, True, False)
    assert len(vocabulary) == 3
    assert len(vocabulary.templates) == 7


def test_a_vocabulary_passes_through():
    vocabulary = Vocabulary.from_words(["a", "b"])
    assert Vocabulary.from_words(vocabulary) == vocabulary
    changed = Vocabulary.from_words(vocabulary, templates="none", stuff=["b"])
    assert changed.templates == ("{}",)
    assert changed.is_thing == (True, False)


@pytest.mark.parametrize(
    ("words", "field", "message"),
    [
        ("taxi", "vocabulary.classes", "list"),
        (b"taxi", "vocabulary.classes", "list"),
        (7, "vocabulary.classes", "list"),
        ([], "vocabulary.classes", "Got 0"),
        (["a", 3], "vocabulary.classes[1]", "not text"),
        (["a", None], "vocabulary.classes[1]", "not text"),
        (["a", ""], "vocabulary.classes[1]", "empty"),
        (["a", " \u3000"], "vocabulary.classes[1]", "empty"),
        (["a||b"], "vocabulary.classes[0]", "empty"),
        (["a", "b", "a|c"], "vocabulary.classes[2]", "at 0 and 2"),
        (["x" * 257], "vocabulary.classes[0]", "256"),
        (["a\0b"], "vocabulary.classes[0]", r"U\+0000"),
        (["a\nb"], "vocabulary.classes[0]", r"U\+000A"),
        (["\ud800"], "vocabulary.classes[0]", r"U\+D800"),
        (["|".join(map(str, range(MAX_SYNONYMS + 1)))], "vocabulary.classes[0]", "257"),
        (list(map(str, range(MAX_CLASSES + 1))), "vocabulary.classes", "20001"),
    ],
)
def test_mistakes(words, field, message):
    with pytest.raises(InvalidVocabulary, match=message) as caught:
        Vocabulary.from_words(words)
    assert caught.value.field == field
    caught.value.message.encode("utf-8")  # a message goes over the wire


@settings(deadline=None)
@given(st.lists(st.text(), max_size=4))
def test_any_text_is_taken_or_refused(words):
    try:
        vocabulary = Vocabulary.from_words(words)
    except InvalidVocabulary as error:
        error.message.encode("utf-8")
    else:
        assert len(vocabulary) == len(words)
        vocabulary.content_hash.encode("ascii")


def test_unicode_is_welcome():
    assert Vocabulary.from_words(["Ünïcode", "日本語", "👩‍🚀"]).names[2] == "👩‍🚀"


class TestHash:
    base = Vocabulary(classes=(VocabularyClass(name="a", synonyms=("a", "b")), VocabularyClass(name="c")))

    @pytest.mark.parametrize(
        "classes",
        [
            (VocabularyClass(name="a", synonyms=("b", "a")), VocabularyClass(name="c")),
            (VocabularyClass(name="a"), VocabularyClass(name="c", synonyms=("b", "c"))),
            (VocabularyClass(name="c"), VocabularyClass(name="a", synonyms=("a", "b"))),
            (VocabularyClass(name="a", synonyms=("a", "b"), is_thing=False), VocabularyClass(name="c")),
            (VocabularyClass(name="a", synonyms=("a", "b"), negatives=("n",)), VocabularyClass(name="c")),
            (VocabularyClass(name="a", synonyms=("a", "b"), score_threshold=0.5), VocabularyClass(name="c")),
            (VocabularyClass(name="z", synonyms=("a", "b")), VocabularyClass(name="c")),
        ],
    )
    def test_all_that_changes_answers_changes_it(self, classes):
        assert Vocabulary(classes=classes).content_hash != self.base.content_hash

    def test_templates_change_it_and_the_name_does_not(self):
        templated = Vocabulary.from_words(self.base, templates="a {}")
        assert templated.content_hash != self.base.content_hash
        named = Vocabulary(classes=self.base.classes, name="mine")
        assert named.content_hash == self.base.content_hash


class TestStuff:
    def test_names_that_are_not_classes(self):
        with pytest.raises(InvalidVocabulary, match="lawn"):
            Vocabulary.from_words(["grass"], stuff=["lawn"])

    def test_asked_stuff_replaces_the_default(self):
        assert Vocabulary.from_words(["sky", "dog"], stuff=["dog"]).is_thing == (True, False)

    def test_default(self):
        assert {"grass", "sky", "water", "sand", "road", "brick", "wood", "snow", "wall"} <= default_stuff()
        assert not {"person", "car", "fence", "traffic light", "tent", "tower", "towel"} & default_stuff()

    def test_no_thing_of_our_scenes_is_stuff(self):
        scenes = pytest.importorskip("ovperception.datasets.scenes")
        things = {c.name for c in scenes.load_categories() if c.is_thing}
        assert not things & default_stuff()


class TestTemplates:
    def test_published_sizes(self):
        sizes = {name: len(load_templates(name)) for name in template_names()}
        assert sizes == {
            "openai_imagenet_80": 80, "vild_14": 14, "simple_7": 7, "regionclip_81": 81, "none": 1,
        }  # fmt: skip
        assert set(load_templates("simple_7")) <= set(load_templates("openai_imagenet_80"))

    def test_unknown_names_list_the_known(self):
        with pytest.raises(InvalidVocabulary, match="vild_14"):
            load_templates("vild")

    @pytest.mark.parametrize("bad", [["no place"], [], [3], ["{}" * 200], ["{}"] * 300, "vild_15", ["{}\n"]])
    def test_bad(self, bad):
        with pytest.raises(InvalidVocabulary) as caught:
            resolve_templates(bad)
        assert caught.value.field.startswith("vocabulary.templates")


class TestBuiltin:
    def test_every_list_is_a_vocabulary(self):
        sizes = {name: len(Vocabulary.builtin(name)) for name in names()}
        assert sizes == {
            "ade20k_150": 150, "ade20k_847": 847, "cityscapes_19": 19, "coco_80": 80,
            "coco_object_81": 81, "coco_panoptic_133": 133, "coco_stuff_171": 171, "lvis_v0.5_1230": 1230,
            "lvis_v1_1203": 1203,
            "mapillary_65": 65, "objects365_365": 365, "ov_coco_48_17": 65, "pascal_context_459": 459,
            "pascal_context_59": 59, "pascal_context_60": 60, "pascal_voc_20": 20, "pascal_voc_20b": 21,
            "pascal_voc_21": 21, "pascal_voc_21_plain": 21,
        }  # fmt: skip

    def test_facts_of_the_field(self):
        lvis = load_vocabulary_file("lvis_v1_1203").classes
        assert [sum(c.frequency == f for c in lvis) for f in "rcf"] == [337, 461, 405]
        assert sum(c.split == "novel" for c in lvis) == 337
        assert [c.id for c in lvis] == list(range(1, 1204))
        ov_coco = load_vocabulary_file("ov_coco_48_17").classes
        assert [sum(c.split == s for c in ov_coco) for s in ("base", "novel")] == [48, 17]
        assert sum(Vocabulary.builtin("coco_panoptic_133").is_thing) == 80
        assert sum(Vocabulary.builtin("ade20k_150").is_thing) == 100
        assert sum(Vocabulary.builtin("cityscapes_19").is_thing) == 8
        assert all(Vocabulary.builtin("lvis_v1_1203").is_thing)

    def test_tables(self):
        assert len(load_table("coco_to_lvis")) == 80
        assert len(load_table("cityscapes_labels_all")) == 35
        with pytest.raises(UnknownVocabulary, match="coco_to_lvis"):
            load_table("other")

    def test_unknown_names_list_the_known(self):
        for name in (*names(), "scenes", "scenes_base", "scenes_novel"):
            with pytest.raises(UnknownVocabulary, match=name):
                Vocabulary.builtin("lvis")
            assert len(Vocabulary.builtin(name)) > 1


class TestFile:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("words.txt", "\ufeff# mine\ntaxi\n\ntraffic light|stoplight\n"),
            ("fcclip.txt", "0:invalid_class_id\n1:taxi\n2:traffic light,stoplight\n"),
            ("list.json", json.dumps(["taxi", "traffic light|stoplight"])),
            ("objects.json", json.dumps([{"name": "taxi"}, {"name": "traffic light",
                                                            "synonyms": ["traffic light", "stoplight"]}])),
            ("ours.json", json.dumps({"name": "ours", "classes": [
                {"id": 7, "name": "taxi", "isthing": 1},
                {"id": 9, "name": "traffic light", "synonyms": ["traffic light", "stoplight"]}]})),
        ],
    )  # fmt: skip
    def test_forms(self, tmp_path, name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")
        vocabulary = Vocabulary.from_file(tmp_path / name)
        assert vocabulary.names == ("taxi", "traffic light")
        assert vocabulary.texts == ("taxi", "traffic light", "stoplight")

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("bad.json", b"{"),
            ("number.json", b"3"),
            ("none.json", b'{"classes": 3}'),
            ("class.json", b'[{"title": "x"}]'),
            ("synonyms.json", b'[{"name": "x", "synonyms": [1]}]'),
            ("empty.txt", b"\n"),
            ("latin.txt", b"\xff\xfe\xfa"),
            ("id.json", b'[{"name": "x", "id": "seven"}]'),
        ],
    )
    def test_mistakes(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidVocabulary):
            Vocabulary.from_file(tmp_path / name)

    def test_missing(self, tmp_path):
        with pytest.raises(MissingFile):
            Vocabulary.from_file(tmp_path / "none.txt")


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_bad_thresholds(threshold):
    with pytest.raises(InvalidVocabulary, match="0 to 1"):
        VocabularyClass(name="a", score_threshold=threshold)


def test_words_need_no_torch():
    code = "import sys, ovperception as o; o.Vocabulary.from_words(['a']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_competitors_come_behind_the_classes_and_never_share_a_word_with_them() -> None:
    asked = Vocabulary.from_words(["taxi|cab", "cat"], background=["car", "Cab|hackney", "tree|oak", "oak"])
    extended = asked.with_competitors(("ignored",))
    assert extended.names == ("taxi", "cat", "car", "tree")
    assert extended.with_competitors(("dog",)) is extended  # what competes has no background of its own


def test_background_is_the_models_own_unless_it_is_given() -> None:
    words = Vocabulary.from_words(["taxi"])
    assert words.with_competitors(("car", "taxi")).names == ("taxi", "car")
    none = Vocabulary.from_words(["taxi"], background=())
    assert none.with_competitors(("car",)) is none
    assert none.content_hash != words.content_hash


def test_negatives_compete() -> None:
    asked = Vocabulary(classes=(VocabularyClass(name="mouse", negatives=("computer mouse",)),))
    assert asked.with_competitors().names == ("mouse", "computer mouse")


def test_scenes_is_a_builtin_vocabulary() -> None:
    whole, base = Vocabulary.builtin("scenes"), Vocabulary.builtin("scenes_base")
    assert len(whole) >= 608
    assert set(base.names) < set(whole.names)
    assert "grass" in base.names
