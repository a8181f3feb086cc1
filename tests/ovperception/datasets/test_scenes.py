"""The world itself: names, scenes, crops, captions."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from ovperception.datasets import scenes
from ovperception.datasets.scenes import SceneSample, naming
from ovperception.errors import InvalidParameter

THINGS = [category for category in scenes.load_categories() if category.is_thing]
STUFF = [category for category in scenes.load_categories() if not category.is_thing]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def samples() -> list[SceneSample]:
    return [scenes.scene("val", index, (192, 256)) for index in range(12)]


def by_name(name: str) -> scenes.SceneCategory:
    return next(category for category in scenes.load_categories() if category.name == name)


class TestCategories:
    def test_counts(self) -> None:
        assert len(THINGS) >= 600
        assert len(STUFF) == 8
        assert 0.15 <= sum(category.is_novel for category in THINGS) / len(THINGS) <= 0.25
        assert not any(category.is_novel for category in STUFF)

    def test_ids_are_dense_and_stuff_follows_things(self) -> None:
        assert [category.id for category in scenes.load_categories()] == list(
            range(1, len(THINGS) + len(STUFF) + 1)
        )
        assert [category.name for category in STUFF] == list(scenes.STUFF_NAMES)
        assert [category.name for category in THINGS] == sorted(category.name for category in THINGS)

    def test_no_two_classes_share_a_name_or_synonym(self) -> None:
        names = [name for category in scenes.load_categories() for name in category.names]
        assert len(names) == len(set(names))
        assert all(name == name.lower().strip() for name in names)

    def test_splits_and_frequencies_follow_the_names(self) -> None:
        for category in THINGS:
            digest = int.from_bytes(hashlib.sha256(category.name.encode()).digest(), "big")
            assert category.is_novel == (digest % 5 == 0)
        shares = {letter: sum(c.frequency == letter for c in THINGS) / len(THINGS) for letter in "rcf"}
        assert shares == pytest.approx({"r": 0.20, "c": 0.35, "f": 0.45}, abs=0.05)

    def test_every_thing_has_a_sprite_that_fills_its_cell(self) -> None:
        atlas = scenes.load_atlas()
        assert sorted(atlas) == [category.id for category in THINGS]
        for sprite in atlas.values():
            assert [mip.shape for mip in sprite.mips] == [(s, s, 4) for s in (128, 64, 32, 16)]
            assert max(sprite.extent) > 0.5


class TestScene:
    def test_the_same_seed_gives_the_same_masks(self) -> None:
        panoptic = scenes.scene("test", 0, (128, 160)).panoptic
        assert panoptic.dtype == np.int32
        digest = hashlib.sha256(panoptic.astype("<i4").tobytes()).hexdigest()
        assert digest[:16] == "62dea5ccf6916af0"

    def test_the_same_seed_gives_the_same_picture(self) -> None:
        first, again = (scenes.scene("test", 1, (128, 160)) for _ in range(2))
        np.testing.assert_array_equal(first.image, again.image)
        assert first.segments == again.segments
        assert first.captions == again.captions

    def test_the_picture_of_a_seed_is_recorded(self) -> None:
        image = scenes.render_scene(7, (96, 96), degrade=False).image
        # coarse, because the last bit of a texture may depend on the processor
        means = np.round(image.reshape(4, 24, 4, 24, 3).mean(axis=(1, 3)).ravel()[:6], 1)
        np.testing.assert_allclose(means, [110.9, 117.6, 125.1, 157.6, 164.5, 173.2], atol=0.2)

    def test_splits_share_no_seed(self) -> None:
        seeds = {scenes.scene_seed(split, index) for split in scenes.SPLITS for index in (0, 1, 2**40 - 1)}
        assert len(seeds) == 9

    def test_segments_are_exactly_the_panoptic_map(self, samples: list[SceneSample]) -> None:
        for sample in samples:
            assert sample.image.shape == (192, 256, 3)
            assert sample.image.dtype == np.uint8
            ids, areas = np.unique(sample.panoptic, return_counts=True)
            assert ids.tolist() == [segment.id for segment in sample.segments]
            assert areas.tolist() == [segment.area for segment in sample.segments]
            for segment in sample.segments:
                ys, xs = np.nonzero(sample.mask(segment.id))
                assert segment.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
                assert set(sample.labels[sample.mask(segment.id)]) == {segment.category_id}

    def test_every_object_is_visible_enough(self, samples: list[SceneSample]) -> None:
        segments = [segment for sample in samples for segment in sample.things]
        assert len(segments) > 30
        assert all(segment.area >= 100 for segment in segments)
        assert all(0 <= segment.occluded <= 0.65 for segment in segments)
        assert any(segment.occluded > 0 for segment in segments)

    def test_each_stuff_is_one_segment(self, samples: list[SceneSample]) -> None:
        for sample in samples:
            stuff = [segment.category_id for segment in sample.segments if not segment.is_thing]
            assert 1 <= len(stuff) <= 3
            assert len(stuff) == len(set(stuff))

    def test_captions_name_the_objects(self, samples: list[SceneSample]) -> None:
        for sample in samples:
            assert len(sample.captions) == 1 + len(sample.things)
            for caption, segment in zip(sample.captions[1:], sample.things, strict=True):
                names = scenes.load_categories()[segment.category_id - 1].names
                assert any(name in caption for name in names)
                assert segment.colour is None or segment.colour in caption

    def test_base_only_shows_no_novel_class(self) -> None:
        novel = {category.id for category in THINGS if category.is_novel}
        shown: set[int] = set()
        for index in range(25):
            sample = scenes.scene("train", index, (96, 96), base_only=True)
            shown.update(segment.category_id for segment in sample.things)
        assert shown
        assert not shown & novel

    def test_train_shows_rare_classes_less(self) -> None:
        from ovperception.datasets.scenes.splits import _pool

        ids, weights = _pool("train", False)
        letters = {category.id: category.frequency for category in THINGS}
        assert {(letters[i], w) for i, w in zip(ids, weights, strict=True)} == {
            ("f", 1.0), ("c", 0.6), ("r", 0.3),
        }  # fmt: skip
        assert set(_pool("val", False)[1]) == {1.0}

    def test_only_the_classes_asked_for(self) -> None:
        taxi = by_name("taxi").id
        sample = scenes.render_scene(3, (128, 128), categories=[taxi], count=(4, 4), colour_probability=1)
        assert sample.things
        assert {segment.category_id for segment in sample.things} == {taxi}
        assert all(segment.colour in scenes.COLOURS for segment in sample.things)

    @pytest.mark.parametrize("size", [(64, 48), (48, 64), (33, 32), (101, 207)])
    def test_odd_sizes(self, size: tuple[int, int]) -> None:
        sample = scenes.render_scene(5, size)
        assert sample.panoptic.shape == size
        assert sample.panoptic.min() >= 1

    def test_no_objects_at_all(self) -> None:
        sample = scenes.render_scene(5, (64, 64), count=(0, 0))
        assert not sample.things
        assert sample.captions[0].startswith("a photo of ")

    @pytest.mark.parametrize(
        "arguments",
        [
            {"size": (31, 64)},
            {"count": (5, 2)},
            {"count": (-1, 2)},
            {"colour_probability": 1.5},
            {"categories": []},
            {"categories": [0]},
            {"categories": [len(THINGS) + 1]},
            {"categories": [1, 2], "weights": [1.0]},
            {"categories": [1, 2], "weights": [0.0, 0.0]},
        ],
        ids=str,
    )
    def test_bad_arguments(self, arguments: dict[str, object]) -> None:
        with pytest.raises(InvalidParameter):
            scenes.render_scene(0, **arguments)  # type: ignore[arg-type]

    def test_bad_split_and_index(self) -> None:
        with pytest.raises(InvalidParameter, match="train, val, test"):
            scenes.scene("validation", 0)  # type: ignore[arg-type]
        with pytest.raises(InvalidParameter, match="no such scene"):
            scenes.scene("val", -1)


class TestCrops:
    def test_the_same_seed_gives_the_same_crop(self) -> None:
        first, again = (scenes.render_crop(generator(4), 9, 64) for _ in range(2))
        assert first.shape == (64, 64, 3)
        assert first.dtype == np.uint8
        np.testing.assert_array_equal(first, again)

    def test_the_thing_is_in_the_picture(self) -> None:
        shown = scenes.render_crop(generator(1), by_name("tomato").id, 64, stuff="snow", fill=(0.9, 0.9))
        red = (shown[..., 0].astype(int) - shown[..., 2]) > 80
        assert red[16:48, 16:48].mean() > 0.6

    def test_colours_read_as_themselves(self) -> None:
        centre = {}
        for colour in scenes.COLOURS:
            crop = scenes.render_crop(
                generator(2), by_name("t-shirt").id, 64, colour=colour, fill=(0.95, 0.95), distractors=0
            )
            centre[colour] = crop[24:40, 24:40].reshape(-1, 3).mean(axis=0)
        assert centre["red"].argmax() == 0
        assert centre["green"].argmax() == 1
        assert centre["blue"].argmax() == 2
        assert centre["yellow"][:2].min() > centre["yellow"][2] + 80
        assert centre["white"].min() > 190
        assert centre["black"].max() < 110
        values = list(centre.values())
        distances = [np.abs(a - b).max() for i, a in enumerate(values) for b in values[:i]]
        assert min(distances) > 30

    @pytest.mark.parametrize("size", [8, 33, 64, 224])
    def test_sizes(self, size: int) -> None:
        assert scenes.render_crop(generator(), 1, size).shape == (size, size, 3)
        assert scenes.render_stuff_crop(generator(), STUFF[0].id, size).shape == (size, size, 3)

    def test_stuffs_differ(self) -> None:
        means = []
        for category in STUFF:
            rng = generator(3)
            crops = [scenes.render_stuff_crop(rng, category.id, 32) for _ in range(12)]
            pixels = np.stack(crops).astype(float)
            means.append([*pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(1, 2)).mean()])
        table = np.array(means)
        for i in range(len(table)):
            for j in range(i):
                assert np.abs(table[i] - table[j]).max() > 12, (STUFF[i].name, STUFF[j].name)

    def test_bad_arguments(self) -> None:
        rng = generator()
        with pytest.raises(InvalidParameter, match="an id from 1"):
            scenes.render_crop(rng, STUFF[0].id)
        with pytest.raises(InvalidParameter, match="at least 8 pixels"):
            scenes.render_crop(rng, 1, 4)
        with pytest.raises(InvalidParameter, match="red, orange"):
            scenes.render_crop(rng, 1, colour="mauve")  # type: ignore[arg-type]
        with pytest.raises(InvalidParameter, match="low <= high"):
            scenes.render_crop(rng, 1, fill=(0.9, 0.1))
        with pytest.raises(InvalidParameter, match="grass, sky"):
            scenes.render_crop(rng, 1, stuff="lava")  # type: ignore[arg-type]
        with pytest.raises(InvalidParameter, match="no stuff"):
            scenes.render_stuff_crop(rng, 1)


class TestCaptions:
    @pytest.mark.parametrize(
        ("phrase", "expected"),
        [
            ("taxi", "a taxi"),
            ("avocado", "an avocado"),
            ("unicorn", "a unicorn"),
            ("ufo", "a ufo"),
            ("hourglass", "an hourglass"),
            ("urn", "an urn"),
            ("jeans", "jeans"),
            ("cactus", "a cactus"),
            ("dress", "a dress"),
            ("glass of milk", "a glass of milk"),
            ("loaf of bread", "a loaf of bread"),
            ("stack of books", "a stack of books"),
            ("bread", "bread"),
        ],
    )
    def test_articles(self, phrase: str, expected: str) -> None:
        assert naming.with_article(phrase) == expected

    def test_the_article_fits_the_colour(self) -> None:
        template = "a photo of {} {place}."
        caption = scenes.crop_caption(
            generator(2), by_name("lemon"), colour="orange", stuff="grass", template=template
        )
        assert caption.startswith("a photo of an orange lemon on ")

    def test_no_place_without_stuff(self) -> None:
        rng = generator()
        captions = [scenes.crop_caption(rng, by_name("taxi")) for _ in range(200)]
        assert not any(" on " in caption or "{" in caption for caption in captions)
        assert len(set(captions)) > 12
        assert any("cab" in caption for caption in captions)

    def test_stuff_takes_no_article(self) -> None:
        assert scenes.crop_caption(generator(), by_name("snow"), template="a photo of {}.").startswith(
            "a photo of snow"
        )


def test_import_is_light() -> None:
    loaded = "print([name for name in ('torch', 'PIL', 'rich') if name in sys.modules])"
    code = f"import sys, ovperception.datasets.scenes; {loaded}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
