"""Result files read as one table say what the JSON reader says, or are left to it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.metrics import plain_results
from eval.metrics.plain_results import read_plain_boxes

ROWS = [
    {"image_id": 12, "category_id": 3, "bbox": [1.5, -2, 0.1 + 0.2, 4e-07], "score": 1e-05},
    {"image_id": 9007199254740991, "category_id": 0, "bbox": [255.8, 73.36, 25.83, 1], "score": 0.9},
    {"image_id": 7, "category_id": 3, "bbox": [0, 0, 5e-324, 123456789.12345678], "score": 1},
]
changing = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "results.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def assert_read(columns: dict[str, np.ndarray] | None, rows: list[dict]) -> None:
    assert columns is not None
    assert columns.keys() == rows[0].keys()
    for key, column in columns.items():
        assert np.array_equal(column, np.array([row[key] for row in rows], np.float64))


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("count", [1, 3])
def test_layouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None, order: int, count: int
) -> None:
    monkeypatch.setattr(plain_results, "_CHUNK", 20)
    rows = [dict(list(row.items())[::order]) for row in ROWS[:count]]
    assert_read(read_plain_boxes(written(tmp_path, json.dumps(rows, indent=indent) + "\n")), rows)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[{", "{"),
        ("}]", "}"),
        ("}]", ""),
        ("}]", "}, ]"),
        ("}]", "}]]"),
        ('"score": 1}', '"score": NaN}'),
        ('"score": 1}', '"score": "1"}'),
        ('"score": 1}', '"score": null}'),
        ('"score": 1}', '"score": 01}'),
        ('"score": 1}', '"score": .1}'),
        ('"score": 1}', '"score": 1 2}'),
        ('"score": 1}', '"score": 1E-2}'),
        ('"score": 1}', '"score": 1^-2}'),
        ('"score": 1}', '"score": }'),
        ('"score": 1}', '"score5": }'),
        ('"score": 1}', '"score5": 1}'),
        ('"score": 1}', '"score"5: 1}'),
        ('"score": 1}', '"score": 1}3'),
        ('"score": 1}', '"score": 1, "score": 1}'),
        ('"image_id": 7', '"image_id": 9007199254740993'),
        ("[0, 0,", "[0, , 0,"),
        ("[0, 0,", "[0 0,"),
        ("[0, 0,", "[0, 0, 0,"),
    ],
)
def test_anything_else_is_left_to_the_json_reader(tmp_path: Path, before: str, after: str) -> None:
    content = json.dumps(ROWS)
    assert content.count(before) == 1
    assert read_plain_boxes(written(tmp_path, content.replace(before, after))) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[1]", b"[{}]", b"\x1f\x8b", b"[{\xff}]"])
def test_no_record(tmp_path: Path, content: bytes) -> None:
    assert read_plain_boxes(written(tmp_path, content)) is None


@changing
@given(st.data())
def test_one_character_changed(tmp_path: Path, data: st.DataObject) -> None:
    """What is read of a file is what JSON says; never anything else, whichever byte is another one."""
    content = bytearray(json.dumps(ROWS).encode())
    at = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.sampled_from(b'0123456789.-+eE^, "{}[]:_x') | st.integers(0, 255))
    width = data.draw(st.integers(0, 2))  # left out, replaced or with its neighbour
    content[at : at + width] = bytes([other]) if data.draw(st.booleans()) else b""
    columns = read_plain_boxes(written(tmp_path, bytes(content)))
    if columns is not None:
        assert_read(columns, json.loads(content))


@changing
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(-1e9, 1e9))
def test_every_bit(tmp_path: Path, scores: list[float], side: float) -> None:
    rows = [{"image_id": 1, "category_id": 2, "bbox": [side, 0.5, 1, 2], "score": s} for s in scores]
    columns = read_plain_boxes(written(tmp_path, json.dumps(rows)))
    if columns is None:  # an exponent above 0 is not plain
        assert "e+" in json.dumps(rows)
    else:
        assert_read(columns, rows)
