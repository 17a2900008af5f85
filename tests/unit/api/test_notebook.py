"""A real notebook: nano edits in a kernel of Jupyter, and the outputs of its cells are looked at."""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

SETUP = """
import os, signal, threading, time
import joyedit
from PIL import Image, ImageDraw

def drawn(number):
    picture = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(picture).rectangle((20 + number, 20, 60 + number, 60), fill="blue")
    return picture

def rows(count, text="Make the square <b>orange</b>."):
    return [{"id": f"n{n}", "image": drawn(n), "instruction": text} for n in range(count)]

nano = dict(model="nano", steps=1, basesize=256)
fake = dict(model="fake", steps=1, basesize=256, batch_size=1)
"""
CELLS = (
    SETUP,
    "outcome = joyedit.run(rows(2), output=None, **nano)\noutcome",
    "outcome[0]",
    "for result in joyedit.stream(iter(rows(3)), output='streamed', **fake):\n    print(result.id, result.image.size)",
    "threading.Timer(2.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
    "joyedit.run(rows(40, 'SLEEP'), output='long', **fake)\nprint('not reached')",
    "print(joyedit.last_outcome().exit_code, len(joyedit.last_outcome()) > 0)",
    "done = len(joyedit.last_outcome())\nagain = joyedit.run(rows(done + 1, 'SLEEP'), output='long', **fake)\n"
    "print(again.report.ok == done + 1, again.report.skipped == done)",
    "silent = joyedit.run(rows(1), output='streamed', progress=False, **fake)",
)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook after all its cells ran."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    folder = tmp_path_factory.mktemp("notebook")
    before = os.environ.get("JOYEDIT_FAKE")
    os.environ["JOYEDIT_FAKE"] = "1"
    try:
        client = nbclient.NotebookClient(
            made, timeout=180, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
    finally:
        del os.environ["JOYEDIT_FAKE"]
        os.environ |= {} if before is None else {"JOYEDIT_FAKE": before}
    where = os.environ.get("JOYEDIT_KEEP_NOTEBOOK")
    if where:
        nbformat.write(made, Path(where))
    return made


def outputs(notebook: Any, number: int, kind: str) -> list[Any]:
    return [one for one in notebook.cells[number].outputs if one.output_type == kind]


def printed(notebook: Any, number: int) -> str:
    return "".join(one.text for one in outputs(notebook, number, "stream") if one.name == "stdout")


def test_cells_run_without_errors(notebook: Any) -> None:
    errors = [(n, one) for n, cell in enumerate(notebook.cells) for one in outputs(notebook, n, "error") if n != 4]
    assert errors == []


def test_progress_is_one_output_that_ended_full(notebook: Any) -> None:
    (shown,) = outputs(notebook, 1, "display_data")
    assert "finished: 2 of 2 items" in shown.data["text/html"]
    assert "width:100%" in shown.data["text/html"]
    assert shown.data["text/plain"] == "finished: 2 of 2 items"
    (streamed,) = outputs(notebook, 3, "display_data")
    assert "finished: 3 of 3 items" in streamed.data["text/html"]
    assert notebook.cells[7].outputs == []


def test_nothing_is_printed_beside(notebook: Any) -> None:
    assert [one for n in range(len(CELLS)) for one in outputs(notebook, n, "stream") if one.name == "stderr"] == []


def test_the_outcome_is_a_table_with_pictures(notebook: Any) -> None:
    (shown,) = outputs(notebook, 1, "execute_result")
    text = shown.data["text/html"]
    assert "2 edited" in text
    assert "&lt;b&gt;orange&lt;/b&gt;" in text
    sources = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    assert len(sources) == 2
    with Image.open(io.BytesIO(base64.b64decode(sources[0]))) as small:
        assert small.size == (96, 96)


def test_a_result_shows_its_picture(notebook: Any) -> None:
    (shown,) = outputs(notebook, 2, "execute_result")
    with Image.open(io.BytesIO(base64.b64decode(shown.data["image/png"]))) as picture:
        assert picture.size == (96, 96)
    assert "<figure" in shown.data["text/html"]


def test_a_stream_gives_results_in_the_cell(notebook: Any) -> None:
    assert sorted(printed(notebook, 3).splitlines()) == [f"n{n} (96, 96)" for n in range(3)]


def test_an_interrupted_cell_keeps_what_is_done_and_goes_on(notebook: Any) -> None:
    (error,) = outputs(notebook, 4, "error")
    assert error.ename == "RunInterrupted"
    assert "the same call goes on" in error.evalue
    assert "not reached" not in printed(notebook, 4)
    (shown,) = outputs(notebook, 4, "display_data")
    assert shown.data["text/plain"].startswith("interrupted: ")
    assert printed(notebook, 5) == "130 True\n"
    assert printed(notebook, 6) == "True True\n"
