"""Every `ovp` command of docs/evaluation.md runs, in the order in which it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ovperception import cli

DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines() if line.strip()]
    assert all(line[0] == "ovp" for line in lines)
    return [line[1:] for line in lines]


def test_options_are_known() -> None:
    """Fast: a renamed option or protocol would be seen here."""
    text = DOCS.read_text(encoding="utf-8")
    source = (DOCS.parents[1] / "eval" / "command.py").read_text(encoding="utf-8")
    source += (DOCS.parents[1] / "eval" / "reporting" / "compare_command.py").read_text(encoding="utf-8")
    for option in set(re.findall(r"ovp eval .*?--([a-z-]+)", text)):
        assert re.search(rf"\b{option.replace('-', '_')}\b", source), option


@pytest.mark.slow
def test_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in commands():
        assert cli.main(command) == 0, command
    assert (tmp_path / "out" / "eval" / "panoptic" / "report.html").is_file()
    assert (tmp_path / "out" / "eval" / "files" / "report.html").is_file()
    assert (tmp_path / "out" / "eval" / "compare" / "comparison.html").is_file()
