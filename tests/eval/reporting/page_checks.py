"""What must hold of every page we write."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Reads a page strictly: every element that opens is closed, and in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        self.words += data

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.tags if attribute in attributes]


def checked(text: str) -> Page:
    """The page, if it is well formed, whole, and fetches nothing."""
    assert text.startswith("<!doctype html>")
    assert len(text) < 5_000_000
    page = Page(text)
    ids = page.values("id")
    assert len(ids) == len(set(ids)), "an id is given twice"
    links = [href[1:] for href in page.values("href") if href.startswith("#")]
    wanted = [*links, *page.values("for"), *page.values("data-filters"), *page.values("data-copies")]
    assert set(wanted) <= set(ids), f"nothing has the id {set(wanted) - set(ids)}"
    for address in page.values("href") + page.values("src"):
        assert address.startswith(("#", "data:")), f"{address[:40]} is fetched"
    assert not re.search(r"url\((?!#)|@import", text), "the style sheet fetches something"
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes["alt"], "a picture without words"
        assert not [name for name in attributes if name.startswith("on")], "a handler inside the page"
    pictures = [a for tag, a in page.tags if tag == "svg"]
    assert all(a.get("role") == "img" for a in pictures)
    return page
