"""The page as text: structure, escaping, policy, colours."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from samt.bench.experiments.store import Store
from samt.bench.report import page as page_module
from samt.bench.report.findings import gather
from samt.bench.report.page import page
from samt.bench.report.payload import inert_json

from .conftest import ACCURACIES, HOSTILE, Grid, save_grid

_ASSETS = Path(page_module.__file__).parent / "assets"


class _Outline(HTMLParser):
    """Elements in order, and the text of each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and data.strip():
            self.texts.append((self.tags[-1][0], data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def text(shown: Path) -> str:
    return (shown / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outline(text: str) -> _Outline:
    return _Outline(text)


def test_headings_go_down_one_level_at_a_time(outline: _Outline) -> None:
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_tables_have_captions_and_scopes(outline: _Outline) -> None:
    assert len(outline.all("table")) == len(outline.all("caption")) > 3
    assert {one.get("scope") for one in outline.all("th")} == {"col", "row"}


def test_anchors_lead_somewhere_and_ids_are_unique(outline: _Outline) -> None:
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in outline.all("a"):
        href = link["href"] or ""
        assert href.startswith("#"), "a link out of the page"
        assert href[1:] in ids


def test_nothing_is_loaded(outline: _Outline) -> None:
    for tag, attributes in outline.tags:
        assert "src" not in attributes, tag
        assert not any(name.startswith("on") for name in attributes), tag
    assert [one["href"] for one in outline.all("link")] == ["data:,"]


def test_the_policy_knows_every_script_by_its_checksum(text: str, outline: _Outline) -> None:
    (policy,) = (
        one["content"] or ""
        for one in outline.all("meta")
        if one.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; ")
    script = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert "unsafe" not in script
    bodies = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(bodies) == 2
    for body in bodies:
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in script


def test_json_is_inert_and_whole() -> None:
    value = {"name": HOSTILE, "more": "\u2028<!--&", "number": [1.5, None]}
    written = inert_json(value)
    assert not set("<>&\u2028") & set(written)
    assert json.loads(written) == value


def test_hostile_texts_are_text(store: Store, tmp_path: Path) -> None:
    values: Grid = {HOSTILE: {(16,): [0.9, None]}, "sgd": {(16,): [0.8, 0.7]}}
    more: dict[str, Any] = {
        "title": HOSTILE,
        "absent": {HOSTILE: HOSTILE},
        "file": HOSTILE,
        "order": {axis: [HOSTILE, HOSTILE + "2"] for axis in ("data", "model", "width", "label")},
    }
    save_grid(store, "table", values, data=HOSTILE, commit=HOSTILE, **more)
    written = page(gather(store), HOSTILE, {HOSTILE: HOSTILE})
    body = written[written.index("<body>") : written.index("<script>")]
    assert "<script>" not in body
    assert "<img" not in body
    outline = _Outline(written)
    assert not outline.all("img")
    assert len(outline.all("script")) == 3
    assert any(HOSTILE in data for _, data in outline.texts)


def test_the_numbers_of_the_tables(text: str) -> None:
    for number in ("92.00 ± 2.00", "96.00 ± 1.00", "−9.00, lower", "1 of 3 diverged", "97.00"):
        assert number in text
    assert "2 finished: 85.00, 87.00" in text


def test_a_page_without_published_numbers(store: Store, tmp_path: Path) -> None:
    save_grid(store, "plain", {"samt": {(16,): [0.9, 0.92]}})
    written = page(gather(store, paper=tmp_path), "here", {})
    assert "none to compare with" in written
    assert "no published number to compare with" in written


def test_damaged_files_are_named(filled: Store) -> None:
    assert filled.local is not None
    (filled.local / "cells" / ("a" * 16 + ".json")).write_text("{")
    filled.summaries()
    written = page(gather(filled), "here", dict(filled.damaged))
    assert "Files that could not be read" in written


def test_the_same_results_give_the_same_page(store: Store) -> None:
    save_grid(store, "table", ACCURACIES)
    assert page(gather(store), "here", {}) == page(gather(store), "here", {})


def _colours() -> dict[str, tuple[str, str]]:
    css = (_ASSETS / "page.css").read_text(encoding="utf-8")
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", css)
    return {name: (light, dark) for name, light, dark in found}


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("names", "least"),
    [
        (("ink", "quiet", "accent", "better", "worse", "trouble"), 4.5),  # WCAG: text
        (tuple(f"series-{index}" for index in range(7)), 3.0),  # WCAG: graphics
    ],
)
def test_contrast(theme: int, names: tuple[str, ...], least: float) -> None:
    colours = _colours()
    for surface in ("paper", "raised"):
        paper = _luminance(colours[surface][theme])
        for name in names:
            if name.startswith("series") and surface == "raised":
                continue  # plots stand on paper
            ink = _luminance(colours[name][theme])
            ratio = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
            assert ratio >= least, (name, surface, ratio)


def test_files_stay_short() -> None:
    for path in _ASSETS.iterdir():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
