"""``ovp models``: what is listed and described, and fetching through every way a connection can fail."""

from __future__ import annotations

import fcntl
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from ovperception import catalogue, cli, download
from ovperception.bundle import BackboneCard, HeadCard, ModelCard, read_card, write_bundle
from ovperception.commands import models
from ovperception.errors import (
    InvalidCheckpoint,
    InvalidParameter,
    MissingFile,
    ResourceExhausted,
    Unavailable,
)

CONTENT = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """What the server on loopback gives, and how badly."""

    url: str = ""
    content: bytes = CONTENT
    content_type: str = "application/octet-stream"
    etag: str = '"one"'
    ranges: bool = True
    status: int = 200
    break_after: list[int] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    content_range: str = ""


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        wanted = self.headers.get("Range", "")
        site.requests.append(wanted)
        if site.status != 200:
            self.send_error(site.status)
            return
        same = self.headers.get("If-Range", site.etag) == site.etag
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.ranges and same else 0
        whole = len(site.content)
        if begin > whole:
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Type", site.content_type)
        self.send_header("Content-Length", str(whole - begin))
        self.send_header("ETag", site.etag)
        if begin:
            self.send_header("Content-Range", site.content_range or f"bytes {begin}-{whole - 1}/{whole}")
        self.end_headers()
        until = begin + site.break_after.pop(0) if site.break_after else whole
        self.wfile.write(site.content[begin:until])

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVPERCEPTION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "_PAUSE_S", 0.0)


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()
    handler = type("Handler", (_Handler,), {"site": found})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}/weights"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "weights.pth"


def leftovers(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


# Fetching one file


def test_a_file_comes_whole(site: Site, target: Path) -> None:
    told: list[tuple[int, int | None]] = []
    digest = download.download(
        site.url, target, sha256=DIGEST.upper(), progress=lambda *parts: told.append(parts)
    )
    assert digest == DIGEST
    assert target.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert leftovers(target) == ["weights.pth"]


def test_a_broken_connection_is_resumed_at_once(site: Site, target: Path) -> None:
    site.break_after = [1_000_000, 500_000]
    assert download.download(site.url, target) == DIGEST
    assert site.requests == ["", "bytes=1000000-", "bytes=1500000-"]


def test_what_was_broken_off_is_resumed_at_the_next_try(site: Site, target: Path) -> None:
    site.break_after = [1_000_000, 0, 0, 0, 0]
    with pytest.raises(Unavailable, match=r"1000000 bytes .*run the same command again"):
        download.download(site.url, target)
    assert leftovers(target) == ["weights.pth.partial", "weights.pth.partial.json"]
    site.break_after, site.requests = [], []
    assert download.download(site.url, target, sha256=DIGEST) == DIGEST
    assert site.requests == ["bytes=1000000-"]


def test_without_ranges_it_begins_again(site: Site, target: Path) -> None:
    site.ranges, site.break_after = False, [1_000_000]
    assert download.download(site.url, target) == DIGEST
    assert site.requests == ["", "bytes=1000000-"]


def test_a_file_that_changed_meanwhile_is_not_patched_together(site: Site, target: Path) -> None:
    site.break_after = [1_000_000, 0, 0, 0, 0]
    with pytest.raises(Unavailable):
        download.download(site.url, target)
    site.content, site.etag, site.break_after = CONTENT[::-1], '"two"', []
    download.download(site.url, target)
    assert target.read_bytes() == CONTENT[::-1]


def test_a_file_that_shrank_meanwhile_begins_again(site: Site, target: Path) -> None:
    site.etag = ""
    site.break_after = [1_000_000, 0, 0, 0, 0]
    with pytest.raises(Unavailable):
        download.download(site.url, target)
    site.content, site.break_after = b"short", []
    download.download(site.url, target)
    assert target.read_bytes() == b"short"


def test_a_partial_file_of_another_address_begins_again(site: Site, target: Path) -> None:
    site.break_after = [1_000_000, 0, 0, 0, 0]
    with pytest.raises(Unavailable):
        download.download(site.url, target)
    site.requests, site.break_after = [], []
    assert download.download(f"{site.url}-elsewhere", target) == DIGEST
    assert site.requests == [""]


def test_a_range_that_was_not_asked_for_begins_again(site: Site, target: Path) -> None:
    site.break_after, site.content_range = [1_000_000], f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"
    assert download.download(site.url, target) == DIGEST
    assert site.requests == ["", "bytes=1000000-", ""]


def test_a_connection_that_always_breaks_off_is_given_up(site: Site, target: Path) -> None:
    site.ranges, site.break_after = False, [1_000_000] * 99
    with pytest.raises(Unavailable, match="broke off"):
        download.download(site.url, target)
    assert len(site.requests) == 5


def test_a_connection_that_breaks_off_often_arrives(site: Site, target: Path) -> None:
    site.break_after = [300_000] * 9
    assert download.download(site.url, target, sha256=DIGEST) == DIGEST


def test_an_interruption_keeps_what_came(site: Site, target: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.download(site.url, target, progress=interrupt)
    assert (target.parent / "weights.pth.partial").stat().st_size > 0
    assert download.download(site.url, target) == DIGEST
    assert site.requests[-1].startswith("bytes=")


def test_a_wrong_checksum_deletes_the_file(site: Site, target: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="is not the file that was published"):
        download.download(site.url, target, sha256="0" * 64)
    assert leftovers(target) == []


def test_a_web_page_is_no_file(site: Site, target: Path) -> None:
    site.content, site.content_type = b"<!doctype html><p>Are you sure?", "text/html; charset=utf-8"
    with pytest.raises(Unavailable, match="answered with a web page"):
        download.download(site.url, target)
    assert not target.exists()


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal(site: Site, target: Path, status: int) -> None:
    site.status = status
    with pytest.raises(Unavailable, match=f"HTTP {status}"):
        download.download(site.url, target)


def test_no_such_host(target: Path) -> None:
    with pytest.raises(Unavailable, match=r"nowhere\.invalid cannot be reached"):
        download.download("http://nowhere.invalid/weights", target)


def test_nobody_listens(target: Path) -> None:
    with pytest.raises(Unavailable):
        download.download("http://127.0.0.1:9/weights", target)


def test_a_local_file(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    assert download.download(source.as_uri(), target) == DIGEST
    with pytest.raises(MissingFile):
        download.download((tmp_path / "absent").as_uri(), target)


@pytest.mark.parametrize("url", ["ftp://host/file", "/etc/passwd", "", "data:,x"])
def test_another_kind_of_address(url: str, target: Path) -> None:
    with pytest.raises(InvalidParameter):
        download.download(url, target)


def test_a_disk_without_room(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(ResourceExhausted, match="3000000 bytes free"):
        download.download(site.url, target)


def test_a_disk_that_fills_up(site: Site, target: Path) -> None:
    def fill(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ResourceExhausted, match="what came is kept"):
        download.download(site.url, target, progress=fill)


def test_a_folder_that_cannot_be(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MissingFile, match="Cannot write"):
        download.download(site.url, tmp_path / "file" / "weights")


def test_two_at_once(site: Site, target: Path) -> None:
    target.parent.mkdir()
    with (target.parent / "weights.pth.partial").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="already being fetched"):
            download.download(site.url, target)


@pytest.mark.parametrize(
    "url",
    [
        "https://drive.google.com/file/d/1-91PIns86vy_N/view?usp=sharing",
        "https://drive.google.com/open?id=1-91PIns86vy_N",
        "https://drive.google.com/uc?export=download&id=1-91PIns86vy_N",
    ],
)
def test_google_drive(url: str) -> None:
    assert (
        download.direct_url(url) == "https://drive.google.com/uc?export=download&confirm=t&id=1-91PIns86vy_N"
    )
    assert download.direct_url("https://example.org/x") == "https://example.org/x"


# The command


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(["models", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    card = ModelCard(
        name="fcclip-r50",
        summary="A small one.",
        backbone=BackboneCard(name="open_clip:RN50", digest="ab" * 32),
        heads=(HeadCard(name="fcclip", config={}),),
        preprocessing={},
        licence="MIT",
        verified=("This.", "That."),
        deviations=("Here.",),
        scores={"ADE20K PQ": 12.3},
    )
    return write_bundle(tmp_path / "source.safetensors", card, {"x": torch.zeros(3)})


@pytest.fixture
def as_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue's weights are a bundle, not an official checkpoint."""
    found = catalogue.entry("fcclip-r50").model_copy(update={"format": ""})
    monkeypatch.setattr(models, "entry", lambda _: found)


def test_list(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    mine = catalogue.pulled_path("mine")
    mine.parent.mkdir(parents=True)
    mine.write_bytes(bundle.read_bytes())
    catalogue.pulled_path("broken").write_bytes(b"")
    status, out, _ = run(capsys, "--json")
    assert status == 0
    rows = {row["name"]: row for row in json.loads(out)["models"]}
    assert next(iter(rows)) == "tiny"
    assert rows["fcclip-convnext-large"]["state"] == "not pulled"
    assert rows["fcclip-convnext-large"]["scores"]["ADE20K PQ"] == 26.8
    assert rows["mine"] == {
        "name": "mine", "state": "converted", "path": str(mine), "summary": "A small one.", "licence": "MIT",
        "scores": {"ADE20K PQ": 12.3},
    }  # fmt: skip
    assert rows["broken"]["state"] == "unreadable"
    status, out, _ = run(capsys)
    assert status == 0
    assert all(name in out for name in rows)


def test_show_a_published_model(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "show", "fcclip-r50x4")
    assert status == 0
    for part in (
        "not pulled",
        "Apache-2.0",
        "2308.02487",
        "ADE20K PQ: 21.8",
        "verified",
        "deviations",
        "21,180,097",
    ):
        assert part in out
    status, out, _ = run(capsys, "show", "fcclip-r50x4", "--json")
    assert json.loads(out)["scores"]["ADE20K PQ"] == 21.8


def test_show_a_bundle(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    status, out, _ = run(capsys, "show", str(bundle), "--json")
    assert status == 0
    assert json.loads(out)["verified"] == ["This.", "That."]
    status, out, _ = run(capsys, "show", str(bundle))
    for part in ("A small one.", "MIT", "That.", "Here.", "12.3", "in the bundle"):
        assert part in out


@pytest.mark.parametrize("command", ["show", "pull"])
def test_an_unknown_name(capsys: pytest.CaptureFixture[str], command: str) -> None:
    status, out, err = run(capsys, command, "fcclip-r55", "--json")
    assert (status, out) == (2, "")
    assert json.loads(err)["error"]["reason"] == "UNKNOWN_MODEL"
    assert "fcclip-r50" in err


@pytest.mark.usefixtures("as_bundle")
def test_pull_a_bundle(capsys: pytest.CaptureFixture[str], site: Site, bundle: Path) -> None:
    site.content = bundle.read_bytes()
    status, out, err = run(capsys, "pull", "fcclip-r50", "--url", site.url)
    assert status == 0
    path = catalogue.locate("fcclip-r50")
    assert path.read_bytes() == site.content
    assert f"now here: {path}" in " ".join(out.split())
    assert "Licence: Apache-2.0" in err
    assert not list((catalogue.cache_dir() / "downloads").iterdir())
    status, out, _ = run(capsys, "pull", "fcclip-r50", "--url", site.url, "--json")
    assert (status, json.loads(out)["fetched"], len(site.requests)) == (0, False, 1)
    status, out, _ = run(capsys, "pull", "fcclip-r50", "--url", site.url, "--json", "--force")
    assert (status, json.loads(out)["fetched"], len(site.requests)) == (0, True, 2)
    assert read_card(path).licence == "MIT"


@pytest.mark.usefixtures("as_bundle")
def test_pull_shows_the_licence_before_anything_is_asked_for(
    capsys: pytest.CaptureFixture[str], site: Site
) -> None:
    site.status = 404
    status, out, err = run(capsys, "pull", "fcclip-r50", "--url", site.url)
    assert (status, out) == (1, "")
    assert err.index("Licence: Apache-2.0") < err.index("HTTP 404")


def test_pull_that_gets_a_page_says_how_by_hand(capsys: pytest.CaptureFixture[str], site: Site) -> None:
    site.content, site.content_type = b"<html>", "text/html"
    status, _, err = run(capsys, "pull", "fcclip-r50", "--url", site.url)
    assert status == 1
    text = " ".join(err.split())
    assert "answered with a web page" in text
    assert "https://drive.google.com/file/d/1tcB-8FNON-LwckXQbUyKcBA2G7TU65Zh/view" in text
    assert "ovp convert fcclip-r50.pth --format fcclip --name fcclip-r50" in text


def test_pull_of_something_else_is_deleted(capsys: pytest.CaptureFixture[str], site: Site) -> None:
    status, _, err = run(capsys, "pull", "fcclip-r50", "--url", site.url)
    assert status == 2
    assert "What was fetched is not fcclip-r50" in err
    assert not list((catalogue.cache_dir() / "downloads").iterdir())
    assert not catalogue.pulled_path("fcclip-r50").exists()


def test_pull_of_a_checkpoint_is_converted_and_what_came_is_not_fetched_twice(
    capsys: pytest.CaptureFixture[str], site: Site, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(checkpoint: Path, *_: object, **__: object) -> None:
        assert checkpoint.read_bytes() == CONTENT
        raise ResourceExhausted("No room")

    def convert(checkpoint: Path, out: Callable[[ModelCard], Path], **_: object) -> None:
        path = out(read_card(bundle))
        path.parent.mkdir()
        bundle.replace(path)

    monkeypatch.setattr("ovperception.conversion.convert_file", full)
    assert run(capsys, "pull", "fcclip-r50", "--url", site.url)[0] == 1
    monkeypatch.setattr("ovperception.conversion.convert_file", convert)
    status, out, _ = run(capsys, "pull", "fcclip-r50", "--url", site.url, "--json")
    assert (status, json.loads(out)["path"]) == (0, str(catalogue.locate("fcclip-r50")))
    assert len(site.requests) == 1
    assert not list((catalogue.cache_dir() / "downloads").iterdir())
