"""The script of the page, tried in a browser where there is one: sorting, filters, curves of classes."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from eval.outcome import Outcome
from eval.reporting import render_report

pytestmark = pytest.mark.slow

_TRY = """<script>{
const table = document.getElementById("class-table");
const shown = () => [...table.tBodies[0].rows].filter((row) => !row.hidden);
const names = () => shown().map((row) => row.cells[0].textContent);
const heads = [...table.querySelectorAll("thead button")];
const press = (i) => { heads[i].click(); return names(); };
const seen = { asMade: names(), upwards: (press(2), press(2)), byName: press(0) };
const search = document.querySelector("[data-filters] input[type=search]");
search.value = "DO"; search.dispatchEvent(new Event("input")); seen.found = names();
search.value = ""; search.dispatchEvent(new Event("input"));
const tick = document.querySelector("[data-filters] input[type=checkbox]");
tick.click(); seen.known = names();
const picker = document.getElementById("curve-picker");
picker.value = "0"; picker.dispatchEvent(new Event("change"));
seen.points = document.getElementById("chosen-curve").getAttribute("points").split(" ").length;
document.body.dataset.seen = JSON.stringify(seen);
}</script>"""


def test_tables_sort_and_filter_and_a_class_is_drawn(outcome: Outcome, folder: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    page = re.sub(r"<meta http-equiv=[^>]*>", "", render_report(outcome, folder))
    (folder / "page.html").write_text(page.replace("</body>", f"{_TRY}</body>"), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={folder / 'browser'}", "--dump-dom", (folder / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, "the script of the page stopped"
    seen = json.loads(html.unescape(found[1]))
    cat, odd, dog = seen["asMade"]
    assert (cat, dog) == ("cat", "dog")
    # Upwards the lowest comes first, and what has no number stays last.
    assert seen["upwards"] == [odd, "cat", "dog"]
    assert [name for name in seen["byName"] if name != odd] == ["cat", "dog"]
    assert seen["found"] == ["dog"]
    assert set(seen["known"]) == {"cat", odd}
    assert seen["points"] == 101
