"""The page of a comparison in a browser: its list, its filters and keys, what is opened, and hostile texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import Tab
from PIL import Image

from joyedit.job.compare.compare import compare
from joyedit.job.compare.page import open_page
from joyedit.job.compare.pairs import Folders
from support.pages import HOSTILE_NAMES, HOSTILE_TEXTS, MadeFolder, settings, sha256

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Show = Callable[..., Tab]
IDS = "[...document.querySelectorAll('.pair-row')].sort((a, b) => a.dataset.at - b.dataset.at).map((row) => row.querySelector('.name').textContent)"  # noqa: E501
LOADED = "[...document.querySelectorAll('.pair-row img')].filter((image) => image.naturalWidth > 0).length"


@pytest.fixture
def two(tmp_path: Path) -> tuple[MadeFolder, MadeFolder]:
    return MadeFolder(tmp_path / "one", "A"), MadeFolder(tmp_path / "two", "B")


@pytest.fixture
def show_pair(browser: Browser, tmp_path: Path) -> Iterator[Show]:
    """Write two folders, build the page of them, and open it; at the end the page has no fault."""
    tabs: list[Tab] = []

    def opened(a: MadeFolder, b: MadeFolder, **context: Any) -> Tab:
        folders = Folders(a.write(), b.write())
        with open_page(tmp_path / "page", folders) as page:
            page.build(compare(folders, shown=page.pictures.look))
        tab = Tab(
            browser.new_context(**{"viewport": {"width": 1300, "height": 900}} | context).new_page(), tmp_path / "page"
        )
        tabs.append(tab)
        tab.page.set_default_timeout(20_000)
        tab.open()
        return tab

    yield opened
    for tab in tabs:
        hurt = tab.page.evaluate("window.hurt")
        tab.page.context.close()
        assert hurt is None
        assert tab.faults == []


def until(tab: Tab, what: str) -> None:
    """Wait until this is true in the page."""
    end = time.monotonic() + 20
    while not tab.page.evaluate(what):
        assert time.monotonic() < end, what
        tab.page.wait_for_timeout(20)


def changed(folder: MadeFolder, name: str, colour: int) -> None:
    """Another picture of this item."""
    path = folder.path / f"{name}.png"
    Image.new("RGB", (48, 32), (colour, 90, 90)).save(path)
    folder.records[-1] |= {"output_sha256": sha256(path), "output_bytes": path.stat().st_size}


def differing(a: MadeFolder, b: MadeFolder, count: int) -> None:
    """Items that differ the more, the larger their number."""
    for number in range(count):
        name = f"item-{number:04}"
        a.add(name)
        changed(a, name, 90)
        b.add(name, settings=settings(seed=number + 1))
        changed(b, name, 90 + number % 150)


def test_thousands_of_items(two: tuple[MadeFolder, MadeFolder], show_pair: Show) -> None:
    differing(*two, 2000)
    tab = show_pair(*two)
    assert tab.count() == "2,000 of 2,000 items"
    assert tab.page.evaluate(IDS)[0] == "item-0149"  # the worst first
    until(tab, f"{LOADED} >= 12")
    assert tab.page.evaluate("document.querySelectorAll('*').length") < 1500
    tab.keys("End")
    tab.page.locator(".pair-row.active", has_text="item-1950").wait_for()
    assert tab.page.evaluate("document.querySelectorAll('*').length") < 1500
    tab.page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
    until(tab, f"{LOADED} >= 12")
    tab.page.fill("#query", "item-0123")
    tab.page.locator("#count", has_text="1 of 2,000 items").wait_for()
    assert tab.page.evaluate(IDS) == ["item-0123"]


def test_filters_sorting_and_keys(two: tuple[MadeFolder, MadeFolder], show_pair: Show) -> None:
    a, b = two
    differing(a, b, 6)
    a.add("only")
    a.fail("bad")
    b.add("bad")
    tab = show_pair(a, b)
    assert "8 of 8 items" in tab.count()
    tab.page.click("#chips button:has-text('failed in A')")
    assert tab.page.evaluate(IDS) == ["bad"]
    assert "truncated_picture" in tab.text(".pair-row")
    tab.page.click("#chips button:has-text('all')")
    tab.page.select_option("#sort", "name")
    assert tab.page.evaluate(IDS)[0] == "bad"
    tab.page.select_option("#sort", "worst")
    assert tab.page.evaluate(IDS)[0] == "item-0005"
    assert "SSIM" in tab.text("#spreads")
    assert "all 7 items" in tab.text("#settings")
    tab.page.locator("#list").focus()
    tab.keys("Home", "ArrowDown", "Enter")
    assert tab.text("#viewer-id") == "item-0004"
    assert "PSNR" in tab.text("#viewer-figures")
    for key, left, right in (("1", "A", "B"), ("2", "input", "A"), ("3", "input", "B")):
        tab.keys(key)
        assert (tab.text("#tag-left"), tab.text("#tag-right")) == (left, right)
        for kind in ("before", "after"):
            until(tab, f"document.getElementById('compare-{kind}').naturalWidth > 0")
    tab.keys("4")
    until(tab, "document.getElementById('compare-after').src.includes('/v-')")
    tab.keys("z", "]", "ArrowRight", "1")
    assert tab.text("#viewer-id") == "item-0003"
    tab.keys("Escape")
    assert not tab.page.locator("#viewer").is_visible()
    tab.keys("?")
    assert tab.page.locator("#help").is_visible()


@pytest.mark.parametrize("size", [(1300, 900), (390, 844)])
def test_hostile_texts_are_text(two: tuple[MadeFolder, MadeFolder], show_pair: Show, size: tuple[int, int]) -> None:
    a, b = two
    for number, text in enumerate(HOSTILE_TEXTS):
        a.add(f"text{number}", instruction=text, settings=settings(negative_prompt=text))
        b.add(f"text{number}", instruction=f"{text}x", settings=settings(model=text))
        b.fail(f"fail{number}", error={"code": text[:50], "message": text})
    for name in HOSTILE_NAMES:
        a.add(name)
        b.add(name)
    tab = show_pair(a, b, viewport={"width": size[0], "height": size[1]})
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.page.locator("#list").focus()
    tab.keys("Enter")
    for _ in range(len(a.records) + 8):
        tab.keys("ArrowRight")
    tab.keys("Escape")
    assert tab.page.evaluate("document.querySelectorAll('.pair-row script').length") == 0


def test_a_picture_that_browsers_do_not_show(two: tuple[MadeFolder, MadeFolder], show_pair: Show) -> None:
    a, b = two
    for folder, colour in ((a, 10), (b, 200)):
        folder.add("deep")
        Image.new("RGB", (48, 32), (colour, 90, 90)).save(folder.path / "deep.tiff")
        folder.records[-1] |= {"output": "deep.tiff", "output_sha256": sha256(folder.path / "deep.tiff")}
    tab = show_pair(a, b)
    until(tab, f"{LOADED} >= 4")
    tab.keys("Enter")
    until(tab, "document.getElementById('compare-after').naturalWidth === 48")
