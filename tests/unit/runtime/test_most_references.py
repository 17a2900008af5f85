"""How many pictures an item may have is known from a checkpoint's files, before its weights are loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from joyedit.cli.main import main
from joyedit.runtime.model import most_references
from joyedit.weights.wanted import Wanted


def checkpoint(folder: Path, pipeline: str) -> Path:
    """The files of the diffusers layout that say which model it is; no weights."""
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    for name in ("transformer", "vae", "text_encoder"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
    return folder


def test_edit_takes_one_and_edit_plus_five(tmp_path: Path) -> None:
    edit = checkpoint(tmp_path / "edit", "JoyImageEditPipeline")
    plus = checkpoint(tmp_path / "plus", "JoyImageEditPlusPipeline")
    other = checkpoint(tmp_path / "other", "SomethingElse")
    found = [most_references(Wanted(model=str(folder))) for folder in (edit, plus, other)]
    assert found == [1, 5, 5]
    assert most_references(Wanted(model="nano")) == 1
    assert most_references(Wanted(model="jdopensource/JoyAI-Image-Edit-Diffusers")) == 1
    assert most_references(Wanted(model="somebody/something")) is None
    assert most_references(Wanted()) is None


@pytest.mark.parametrize(("pipeline", "pictures", "told"), [
    ("JoyImageEditPipeline", 2, "2 pictures, and Edit, the model that is given, takes one"),
    ("JoyImageEditPlusPipeline", 6, "6 pictures, and the model takes at most 5"),
])  # fmt: skip
def test_a_line_is_refused_before_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pipeline: str, pictures: int,
    told: str,
) -> None:  # fmt: skip
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "model", pipeline)
    Image.new("RGB", (32, 32)).save("a.png")
    lines = [{"image": "a.png", "instruction": "x", "id": "one"}, {"images": [], "instruction": "x", "id": "none"}]
    lines.append({"images": ["a.png"] * pictures, "instruction": "x", "id": "several"})
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SystemExit) as ended:
        main(["run", "m.jsonl", "-m", "model", "-n"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert f"m.jsonl:3: this item has {told}" in error
    assert error.count("m.jsonl:") == 1
