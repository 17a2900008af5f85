"""A real Chromium without a window, and pages of hand-made output folders in it.

JOYEDIT_CHROMIUM names the browser, else one on the PATH is taken. Where there is none these tests are skipped, unless
JOYEDIT_NEED_CHROMIUM says that there must be one, as in CI.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from joyedit.job.page.build import Building, build_page
from support.pages import MadeFolder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def _missing(what: str) -> None:
    if os.environ.get("JOYEDIT_NEED_CHROMIUM"):
        pytest.fail(f"{what}, and JOYEDIT_NEED_CHROMIUM is set", pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("playwright is not installed")
    found = os.environ.get("JOYEDIT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        _missing("no Chromium found (JOYEDIT_CHROMIUM names one)")
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=found)
        yield started
        started.close()


class Tab:
    """A page in the browser. Whatever it logs, throws or asks for besides its own files is a fault."""

    def __init__(self, page: Page, out: Path) -> None:
        self.page = page
        self.out = out
        self.faults: list[str] = []
        page.on("console", lambda told: self.faults.append(f"{told.type}: {told.text}"))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("dialog", lambda dialog: (self.faults.append(dialog.message), dialog.dismiss()))
        page.on("request", self._request)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.out.parent.absolute().as_uri(), "blob:")):
            self.faults.append(request.url)

    def open(self, name: str = "index.html") -> None:
        """Open the page from the disk, until all its data is there."""
        self.page.goto((self.out / name).absolute().as_uri())
        self.page.locator("html[data-ready=all]").wait_for()

    def keys(self, *names: str) -> None:
        for name in names:
            self.page.keyboard.press(name)

    def text(self, selector: str) -> str:
        found: str = self.page.locator(selector).inner_text()
        return found

    def ids(self) -> list[str]:
        """The names of the cards that are drawn, from the first to the last."""
        found: list[str] = self.page.evaluate(
            "[...document.querySelectorAll('.card')].sort((a, b) => a.dataset.at - b.dataset.at)"
            ".map((card) => card.querySelector('.card-id').textContent)"
        )
        return found

    def active(self) -> str:
        found: str = self.page.locator(".card.active .card-id").inner_text()
        return found

    def count(self) -> str:
        return self.text("#count")

    def starred(self) -> int:
        return int(self.text("#states [data-state=starred] span"))


@pytest.fixture
def show(browser: Browser) -> Iterator[Callable[..., Tab]]:
    """Write a hand-made folder, build its page and open it; at the end the page has no fault."""
    tabs: list[Tab] = []

    def open_page(made: MadeFolder, report: dict[str, Any] | None = None, *, before: str = "", **context: Any) -> Tab:
        build_page(made.write(report), Building(workers=2))
        size = {"width": 1400, "height": 900}
        page = browser.new_context(**{"viewport": size, "accept_downloads": True} | context).new_page()
        page.set_default_timeout(20_000)
        if before:
            page.add_init_script(before)
        tabs.append(Tab(page, made.path))
        tabs[-1].open()
        return tabs[-1]

    yield open_page
    for tab in tabs:
        hurt = tab.page.evaluate("window.hurt")
        tab.page.context.close()
        assert hurt is None
        assert tab.faults == []


@pytest.fixture
def made(tmp_path: Path) -> MadeFolder:
    return MadeFolder(tmp_path)
