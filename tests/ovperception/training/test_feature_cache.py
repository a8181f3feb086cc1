"""Kept features: the losses of live ones, whole after any kill, and never those of something else."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heads.fcclip import FCCLIP
from ovperception.backbones import build_open_clip, from_open_clip
from ovperception.backbones.clip import ClipBackbone
from ovperception.datasets.coco import coco_dataset
from ovperception.errors import (
    InvalidCheckpoint,
    InvalidDataset,
    InvalidParameter,
    MissingFile,
    ResourceExhausted,
    Unsupported,
)
from ovperception.images import save_image
from ovperception.preprocess import Preprocessing
from ovperception.text import TextEncoder
from ovperception.training.augmentations import Augmentation
from ovperception.training.coco_targets import TrainingImages
from ovperception.training.epochs import EpochOrder, Pick
from ovperception.training.feature_cache import (
    CachedBatches,
    ExportSettings,
    cache_key,
    export_features,
    features_of,
    open_cache,
)
from ovperception.training.labelled_batches import LabelledBatches, LabelledViews
from ovperception.training.wrong_data import WrongData, WrongDataPolicy

CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 24, "vocab_size": 1000, "width": 16, "heads": 2, "layers": 1},
    "tokenizer": {"kind": "clip_bpe", "merges": 486},
}
PICTURES = 7


@pytest.fixture(scope="module")
def backbone() -> ClipBackbone:
    torch.manual_seed(0)
    model, tokenizer = build_open_clip(CONFIG)
    return from_open_clip(model, "small", tokenizer=tokenizer, config=CONFIG)


def make_data(folder: Path) -> Path:
    """Seven pictures of two or three squares; number 4 is corrupt."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(PICTURES):
        size = (60 + number, 80)
        save_image(folder / f"{number}.png", rng.integers(0, 256, (*size, 3)).astype(np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "height": size[0], "width": size[1]})
        for _ in range(2 + number % 2):
            x, y, side = (int(rng.integers(*span)) for span in ((0, 50), (0, 30), (10, 28)))
            corners = [x, y, x + side, y, x + side, y + side, x, y + side]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1 + len(annotations) % 2,
                    "bbox": [x, y, side, side],
                    "segmentation": [corners],
                }
            )
    broken = folder / "4.png"
    broken.write_bytes(broken.read_bytes()[:99])
    categories = [{"id": 1, "name": "taxi"}, {"id": 2, "name": "cat"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def make_views(folder: Path, **changes: Any) -> LabelledViews:
    settings: dict[str, Any] = {
        "source": TrainingImages(coco_dataset(folder / "instances.json", folder)),
        "augmentation": Augmentation.large_scale_jitter((64, 64), (0.6, 1.6), colour=True),
        "preprocessing": Preprocessing(mean=(120.0, 120.0, 120.0), std=(60.0, 60.0, 60.0)),
        "seed": 3,
        "views": 2,
    }
    return LabelledViews(**settings | changes)


SMALL = ExportSettings(shard_views=4, batch_size=3)
ORDER = EpochOrder(count=PICTURES, seed=1, batch_size=3)


@pytest.fixture(scope="module")
def exported(data: Path, backbone: ClipBackbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "features"
    export_features(make_views(data), backbone, folder, SMALL)
    return folder


def make_head(backbone: ClipBackbone) -> Any:
    torch.manual_seed(5)
    settings = {"hidden_dim": 32, "mask_dim": 32, "queries": 8, "encoder_layers": 1, "encoder_ffn": 16}
    settings |= {"decoder_layers": 1, "decoder_ffn": 16, "attention_heads": 2}
    head: Any = FCCLIP.from_settings(settings, backbone.spec)
    head.loss_settings = dataclasses.replace(head.loss_settings, points=64)
    return head


def losses(source: Any, backbone: ClipBackbone, steps: int = 6) -> list[float]:
    """Totals of some steps of training, over both epochs and views."""
    head = make_head(backbone)
    words = TextEncoder(backbone, templates=("a photo of a {}.",)).classifier(coco_vocabulary())
    optimizer = torch.optim.SGD(head.parameters(), lr=1e-3)
    totals = []
    for number in range(steps):
        batch = source[number]
        torch.manual_seed(number)
        named = head.losses(backbone, features_of(batch, backbone), batch.targets, words)
        total = torch.stack([*named.values()]).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    return totals


def coco_vocabulary() -> Any:
    from ovperception.vocabulary import Vocabulary

    return Vocabulary.from_words(["taxi", "cat"])


def test_training_from_the_cache_gives_the_losses_of_live_training(
    data: Path, backbone: ClipBackbone, exported: Path
) -> None:
    live = LabelledBatches(views=make_views(data), order=ORDER)
    kept = CachedBatches(open_cache(exported, key=cache_key(make_views(data), backbone)), ORDER)
    for number in (0, 3):
        one, other = live[number], kept[number]
        assert one.picks == other.picks
        for a, b in zip(one.targets, other.targets, strict=True):
            assert torch.equal(a.class_ids, b.class_ids)
            assert torch.equal(a.boxes, b.boxes)
            assert torch.equal(a.masks, b.masks)
        seen, read = features_of(one, backbone), features_of(other, backbone)
        assert read.image_size == seen.image_size
        for stage, values in seen.maps.items():
            # half precision keeps 11 bits
            torch.testing.assert_close(read[stage], values, rtol=2**-10, atol=1e-4)
    np.testing.assert_allclose(losses(kept, backbone), losses(live, backbone), rtol=5e-3)


def test_an_export_goes_on_where_it_stopped(
    data: Path, backbone: ClipBackbone, exported: Path, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    done: list[Path] = []

    def on_shard(path: Path) -> None:
        done.append(path)
        if len(done) == 2:
            raise Killed

    with pytest.raises(Killed):
        export_features(make_views(data), backbone, tmp_path, SMALL, on_shard=on_shard)
    (tmp_path / ".000002.safetensors.partial").write_bytes(b"half")
    with pytest.raises(InvalidCheckpoint, match=r"did not end.*2 missing"):
        open_cache(tmp_path)
    before = [path.stat().st_mtime_ns for path in done]
    export_features(make_views(data), backbone, tmp_path, SMALL)
    assert [path.stat().st_mtime_ns for path in done] == before
    for path in open_cache(tmp_path).shards:
        assert path.read_bytes() == (exported / path.name).read_bytes()
    assert not list(tmp_path.glob(".*partial"))


def test_parts_of_several_processes_make_one_whole(
    data: Path, backbone: ClipBackbone, exported: Path, tmp_path: Path
) -> None:
    for k in (1, 0):
        export_features(make_views(data), backbone, tmp_path, dataclasses.replace(SMALL, part=(k, 2)))
    for path in open_cache(tmp_path).shards:
        assert path.read_bytes() == (exported / path.name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 4}, "seed"),
        ({"views": 3}, "views"),
        ({"augmentation": Augmentation.large_scale_jitter((64, 64))}, "augmentation"),
        ({"preprocessing": Preprocessing(mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0))}, "preprocessing"),
    ],
)
def test_a_cache_of_something_else_is_refused(
    data: Path, backbone: ClipBackbone, exported: Path, changes: dict[str, Any], named: str
) -> None:
    views = make_views(data, **changes)
    with pytest.raises(InvalidCheckpoint, match=f"of another {named}") as caught:
        open_cache(exported, key=cache_key(views, backbone))
    assert caught.value.field == named
    with pytest.raises(InvalidCheckpoint, match=f"of another {named}"):
        export_features(views, backbone, exported, SMALL)


def test_a_cache_of_other_weights_or_data_is_refused(
    data: Path, backbone: ClipBackbone, exported: Path, tmp_path: Path
) -> None:
    torch.manual_seed(9)
    model, tokenizer = build_open_clip(CONFIG)
    other = from_open_clip(model, "small", tokenizer=tokenizer, config=CONFIG)
    with pytest.raises(InvalidCheckpoint, match="of another backbone"):
        open_cache(exported, key=cache_key(make_views(data), other))
    save_image(make_data(tmp_path) / "0.png", np.zeros((60, 80, 3), np.uint8))
    with pytest.raises(InvalidCheckpoint, match="of another data"):
        open_cache(exported, key=cache_key(make_views(tmp_path), backbone))
    with pytest.raises(InvalidCheckpoint, match="of another computed_in and dtype"):
        open_cache(exported, key=cache_key(make_views(data), backbone, bfloat16=True, dtype="bf16"))
    open_cache(exported, key=cache_key(make_views(data), backbone, stages=("res5",)))
    # How the finished model resizes pictures says nothing about views.
    resizing = dataclasses.replace(make_views(data).preprocessing, shortest_edge=640, longest_edge=900)
    open_cache(exported, key=cache_key(make_views(data, preprocessing=resizing), backbone))
    with pytest.raises(MissingFile, match="holds no features"):
        open_cache(tmp_path)


def test_what_cannot_be_kept_is_refused(data: Path, backbone: ClipBackbone) -> None:
    with pytest.raises(InvalidParameter, match="never come again"):
        cache_key(make_views(data, views=None), backbone)
    with pytest.raises(Unsupported, match="one size"):
        cache_key(make_views(data, augmentation=Augmentation()), backbone)
    with pytest.raises(InvalidParameter, match="no such maps"):
        cache_key(make_views(data), backbone, stages=("res9",))


def test_every_change_of_a_byte_is_found(data: Path, backbone: ClipBackbone, tmp_path: Path) -> None:
    cache = export_features(make_views(data), backbone, tmp_path, SMALL)
    assert cache.faults() == []
    flipped, short, gone = cache.shards[:3]
    content = bytearray(flipped.read_bytes())
    content[-1] ^= 1
    flipped.write_bytes(content)
    short.write_bytes(short.read_bytes()[:-5])
    gone.unlink()
    told = {fault.path.name: fault.what for fault in cache.faults()}
    assert told.keys() == {path.name for path in (flipped, short, gone)}
    assert "other bytes" in told[flipped.name]
    assert "bytes instead of" in told[short.name]
    assert "missing" in told[gone.name]


def test_pictures_that_cannot_be_used_are_counted_or_end_the_export(
    data: Path, backbone: ClipBackbone, exported: Path, tmp_path: Path
) -> None:
    cache = open_cache(exported)
    assert not cache.usable[:, 4].any()
    assert cache.usable.sum() == 2 * (PICTURES - 1)
    view, pick = cache.view(Pick(index=4, epoch=1), ("res5",))
    assert pick == Pick(index=5, epoch=1)
    assert set(view.maps) == {"res5"}
    wrong = WrongData(WrongDataPolicy(policy="stop"))
    with pytest.raises(InvalidDataset, match=r"4\.png"):
        export_features(make_views(data), backbone, tmp_path, SMALL, wrong=wrong)
    assert wrong.counts == {"a picture that cannot be decoded": 1}
    assert len(list(tmp_path.glob("*.safetensors"))) == 1  # those before it are kept


def test_a_full_disk_leaves_whole_shards(
    data: Path, backbone: ClipBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovperception.training.feature_cache import shards

    real, written = shards.save_file, []

    def save(tensors: Any, path: Path) -> None:
        if len(written) == 1:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        written.append(path)
        real(tensors, path)

    monkeypatch.setattr(shards, "save_file", save)
    with pytest.raises(ResourceExhausted, match="disk is full"):
        export_features(make_views(data), backbone, tmp_path, SMALL)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "000000.json",
        "000000.safetensors",
        "cache.json",
    ]


@pytest.mark.slow
def test_kill_9_leaves_a_cache_to_go_on_with(
    data: Path, backbone: ClipBackbone, exported: Path, tmp_path: Path
) -> None:
    script = (
        "import sys, pathlib, torch\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "import test_feature_cache as t\n"
        "torch.manual_seed(0)\n"
        "model, tokenizer = t.build_open_clip(t.CONFIG)\n"
        "backbone = t.from_open_clip(model, 'small', tokenizer=tokenizer, config=t.CONFIG)\n"
        "t.export_features(t.make_views(pathlib.Path(sys.argv[1])), backbone, pathlib.Path(sys.argv[2]),"
        " t.SMALL)\n"
    )
    command = [sys.executable, "-c", script, str(data), str(tmp_path), str(Path(__file__).parent)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(command, check=True)
    for path in open_cache(tmp_path).shards:
        assert path.read_bytes() == (exported / path.name).read_bytes()


def test_maps_of_every_size_of_the_picture_are_kept(data: Path, tmp_path: Path) -> None:
    """What LSeg reads of a backbone that looks at several sizes is among what a cache holds."""
    config = CONFIG | {"pyramid": [2]}
    torch.manual_seed(0)
    model, tokenizer = build_open_clip(config)
    several = from_open_clip(model, "small", tokenizer=tokenizer, config=config)
    views = make_views(data, views=1)
    cache = export_features(views, several, tmp_path / "features", SMALL)
    assert set(several.region_stages) - set(several.spec.stages)
    batch = CachedBatches(cache, ORDER)[0]
    maps = features_of(batch, several).maps
    assert maps.keys() == {*several.spec.stages, *several.region_stages}
    live = features_of(LabelledBatches(views=views, order=ORDER)[0], several)
    for stage in several.region_stages:
        torch.testing.assert_close(maps[stage], live[stage], rtol=2e-3, atol=2e-3)
