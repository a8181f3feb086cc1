"""Draws the sprite atlas and the category table of `scenes` from an emoji font.

Run by a developer when the curation changes, never at run time::

    python -m ovperception.datasets.scenes.build_atlas \
        --font NotoColorEmoji.ttf --names data-by-emoji.json

``--names`` is the file of that name of the npm package ``unicode-emoji-json`` (glyph to CLDR name).
What is kept, and what people call it, is decided by hand in ``data/curation.txt``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ovperception.datasets.scenes.atlas import ATLAS_COLUMNS, SPRITE_SIZE, UInt8

DATA = Path(__file__).parent / "data"
FONT_SIZE = 109  # the one size at which the font holds bitmaps
WEBP_QUALITY = 88
DUPLICATE_DISTANCE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class CuratedGlyph:
    """One line of the curation: a glyph and what to call it."""

    cldr_name: str
    name: str
    synonyms: tuple[str, ...]
    supercategory: str


def read_curation(text: str) -> list[CuratedGlyph]:
    """Parses ``curation.txt``: sections ``[supercategory]``, lines ``CLDR name = name | synonym``."""
    supercategory = ""
    glyphs: list[CuratedGlyph] = []
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if section := re.fullmatch(r"\[(\w+)\]", line):
            supercategory = section[1]
            continue
        source, _, spoken = line.partition("=")
        names = [part.strip() for part in (spoken or source).split("|")]
        glyphs.append(
            CuratedGlyph(
                cldr_name=source.split("|")[0].strip(),
                name=names[0],
                synonyms=tuple(names[1:]),
                supercategory=supercategory,
            )
        )
    return glyphs


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def is_novel(name: str) -> bool:
    """Says whether a name falls in the novel fifth."""
    return _hash(name) % 5 == 0


def frequency(name: str) -> str:
    """Gives the LVIS frequency letter of a name: about 20 % r, 35 % c, 45 % f."""
    bucket = _hash("frequency:" + name) % 100
    return "r" if bucket < 20 else "c" if bucket < 55 else "f"


def draw_glyph(glyph: str, font: ImageFont.FreeTypeFont) -> UInt8 | None:
    """Draws a glyph into (SPRITE_SIZE, SPRITE_SIZE, 4) straight-alpha RGBA, cropped and centred.

    Returns:
        The sprite, or None where the font has no such glyph.
    """
    canvas = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((40, 40), glyph, font=font, embedded_color=True)
    alpha = np.asarray(canvas.getchannel("A"))
    ys, xs = np.nonzero(alpha > 20)
    if not len(ys) or xs.max() - xs.min() > 150:
        return None
    pixels = np.asarray(canvas)[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].astype(np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255
    height, width = pixels.shape[:2]
    scale = SPRITE_SIZE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    resized = np.clip(resized, 0, 255)
    resized[..., :3] = np.minimum(resized[..., :3] * 255 / np.maximum(resized[..., 3:], 1), 255)
    sprite = np.zeros((SPRITE_SIZE, SPRITE_SIZE, 4), np.uint8)
    top, left = (SPRITE_SIZE - size[1]) // 2, (SPRITE_SIZE - size[0]) // 2
    sprite[top : top + size[1], left : left + size[0]] = np.round(resized)
    return sprite


def near_duplicates(sprites: list[UInt8], names: list[str]) -> list[tuple[float, str, str]]:
    """Lists pairs of sprites that look alike, closest first.

    The distance is the RMS colour difference at 32 px over magenta, a colour that few sprites have, divided
    by the root of the share of pixels that either sprite covers (else thin glyphs all look alike).
    """
    small = np.stack([cv2.resize(s, (32, 32), interpolation=cv2.INTER_AREA) for s in sprites]) / 255.0
    alpha = small[..., 3:]
    magenta = np.array([1.0, 0.0, 1.0])
    shown = (small[..., :3] * alpha + (1 - alpha) * magenta).reshape(len(sprites), -1)
    cover = alpha.reshape(len(sprites), -1)
    pairs: list[tuple[float, str, str]] = []
    for i in range(len(sprites) - 1):
        square = ((shown[i + 1 :] - shown[i]) ** 2).mean(axis=1)
        union = np.maximum(cover[i + 1 :], cover[i]).mean(axis=1)
        for j, distance in enumerate(np.sqrt(square / union), start=i + 1):
            if distance < DUPLICATE_DISTANCE:
                pairs.append((float(distance), names[i], names[j]))
    return sorted(pairs)


def build(font_path: Path, names_path: Path, out: Path) -> None:
    """Writes ``atlas.webp`` and ``categories.json`` into ``out``."""
    font = ImageFont.truetype(str(font_path), FONT_SIZE)
    glyph_of = {entry["name"]: glyph for glyph, entry in json.loads(names_path.read_text()).items()}
    curated = sorted(read_curation((DATA / "curation.txt").read_text()), key=lambda glyph: glyph.name)
    sprites: list[UInt8] = []
    rows: list[dict[str, object]] = []
    for glyph in curated:
        sprite = draw_glyph(glyph_of[glyph.cldr_name], font)
        if sprite is None:
            print(f"not in the font: {glyph.cldr_name}")
            continue
        sprites.append(sprite)
        rows.append(
            {
                "id": len(sprites),
                "name": glyph.name,
                "synonyms": list(glyph.synonyms),
                "supercategory": glyph.supercategory,
                "codepoints": [f"U+{ord(char):04X}" for char in glyph_of[glyph.cldr_name]],
                "split": "novel" if is_novel(glyph.name) else "base",
                "frequency": frequency(glyph.name),
            }
        )
    for distance, first, second in near_duplicates(sprites, [str(row["name"]) for row in rows]):
        print(f"look alike: {first} ~ {second} ({distance:.3f})")
    height = -(-len(sprites) // ATLAS_COLUMNS) * SPRITE_SIZE
    sheet = np.zeros((height, ATLAS_COLUMNS * SPRITE_SIZE, 4), np.uint8)
    for index, sprite in enumerate(sprites):
        y, x = (index // ATLAS_COLUMNS) * SPRITE_SIZE, (index % ATLAS_COLUMNS) * SPRITE_SIZE
        sheet[y : y + SPRITE_SIZE, x : x + SPRITE_SIZE] = sprite
    Image.fromarray(sheet).save(out / "atlas.webp", quality=WEBP_QUALITY, alpha_quality=100, method=6)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (out / "categories.json").write_text(f"[\n{lines}\n]\n")
    print(f"{len(sprites)} sprites, {(out / 'atlas.webp').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--font", type=Path, required=True)
    parser.add_argument("--names", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=DATA)
    arguments = parser.parse_args()
    build(arguments.font, arguments.names, arguments.out)
