"""Results in formats that no browser shows: the page has copies of them, and asks for no file that it cannot show."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.pages import MadeFolder

WIDTH = "(one) => one.decode().then(() => one.naturalWidth)"


@pytest.mark.parametrize("ending", [".tif", ".heic"])
def test_a_result_that_browsers_do_not_show(tmp_path: Path, show: Callable[..., Any], ending: str) -> None:
    made = MadeFolder(tmp_path)
    record = made.add("x", size=(640, 480))
    path = made.path / f"x{ending}"
    (made.path / "x.png").unlink()
    picture = Image.new("RGB", (1600, 1200), (200, 31, 90))
    if ending == ".tif":
        picture.save(path)
    else:
        pytest.importorskip("pillow_heif").from_pillow(picture).save(path)
    data = path.read_bytes()
    record |= {"output": path.name, "output_bytes": len(data), "output_sha256": hashlib.sha256(data).hexdigest()}
    tab = show(made)
    assert tab.page.locator(".card img").first.evaluate(WIDTH) == 288
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.keys("Enter")
    tab.page.locator("#details a").first.wait_for()
    assert tab.page.locator("#compare-after").evaluate(WIDTH) == 1280
    assert not [url for url in asked if url.endswith(ending)]
    assert "no browser shows this format" in tab.text("#details")
