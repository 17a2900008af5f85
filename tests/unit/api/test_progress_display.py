"""The display of a run: HTML in a notebook, a line on a terminal, nothing elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import joyedit
from joyedit.api import html
from joyedit.api.display import LineDisplay, NoDisplay, display_for, is_notebook, share_of, state_text
from joyedit.api.watch import RunWatch

CODE = """
import joyedit
from PIL import Image
rows = [{"id": str(n), "image": Image.new("RGB", (60, 40), (n, 9, 9)), "instruction": "SLEEP"} for n in range(3)]
joyedit.run(rows, model="fake", output="out", steps=1, basesize=256, batch_size=1 %s)
"""


def watched() -> RunWatch:
    watch = RunWatch(with_results=False)
    watch.phase, watch.total, watch.done, watch.before, watch.failed = "editing", 40, 9, 2, 1
    watch.detail = "step 3 of 40"
    return watch


def test_the_state_in_one_line() -> None:
    watch = watched()
    assert state_text(watch) == "editing: 12 of 40 items, 2 of them before, 1 failed, step 3 of 40"
    assert share_of(watch) == pytest.approx(0.3)
    watch.total = None
    assert state_text(watch).startswith("editing: 12 items,")
    assert share_of(watch) is None
    assert state_text(RunWatch(with_results=False)) == "checking the source"


def test_html_of_the_progress_is_escaped() -> None:
    text = html.progress("a < b", 0.5, {"note": "<b>"})
    assert "a &lt; b" in text
    assert "&lt;b&gt;" in text
    assert "width:50%" in text
    assert "width:0%" in html.progress("x", None, {})


def test_nothing_without_a_terminal_or_on_wish(
    fake_run: Callable[..., joyedit.Outcome], capfd: pytest.CaptureFixture[str]
) -> None:
    assert not is_notebook()
    assert isinstance(display_for(False), NoDisplay)
    assert isinstance(display_for(None), NoDisplay)
    assert isinstance(display_for(True), LineDisplay)
    fake_run([Image.new("RGB", (60, 40))], prompt="x", progress=None)
    assert capfd.readouterr() == ("", "")


def seen_on_terminal(folder: Path, more: str) -> str:
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CODE % more],
        cwd=folder,
        env=os.environ | {"JOYEDIT_FAKE": "1", "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=child,
        stderr=child,
    )
    os.close(child)
    held = b""
    try:
        while chunk := os.read(parent, 4096):
            held += chunk
    except OSError:  # the other end is closed
        pass
    os.close(parent)
    assert process.wait() == 0, held.decode()
    return held.decode()


def test_a_line_on_a_terminal_that_is_written_over(tmp_path: Path) -> None:
    text = seen_on_terminal(tmp_path, "")
    drawn = [one.strip() for one in re.split(r"[\r\n]+", text) if one.strip()]
    assert drawn[-1] == "finished: 3 of 3 items"
    assert any(one.startswith("editing: 1 of 3 items") for one in drawn)
    assert text.endswith("\r\n")
    assert text.count("\n") == 1, "one line in all"


def test_no_line_on_a_terminal_on_wish(tmp_path: Path) -> None:
    assert seen_on_terminal(tmp_path, ", progress=False") == ""
