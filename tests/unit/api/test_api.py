"""joyedit from Python: one edit, a run, and what is refused."""

from __future__ import annotations

import base64
import importlib.metadata
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import joyedit
from joyedit import errors
from joyedit.api import Editor
from joyedit.errors import ItemError, UsageError
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import Settings
from joyedit.runtime.fake import FakeBackend, FakeLatents, FakePending
from joyedit.runtime.protocol import ReadyBatch
from support.editing import levels_apart, picture


@pytest.fixture(scope="module")
def editor(diffusers_checkpoint: Path) -> joyedit.Editor:
    return joyedit.load(diffusers_checkpoint)


def test_edit_takes_pictures_and_paths(editor: joyedit.Editor, tmp_path: Path) -> None:
    source = picture(300, 410)
    source.save(tmp_path / "a.png")
    settings = {"steps": 2, "basesize": 256, "seed": 3}
    from_picture = editor.edit(source, "Turn it red.", **settings)
    from_path = editor.edit(tmp_path / "a.png", "Turn it red.", **settings)
    assert from_picture.size == (410, 300)
    bucket = editor.edit(source, "Turn it red.", size="bucket", fit="crop", **settings)
    assert bucket.size == (288, 208)
    assert levels_apart(from_picture, from_path) == 0
    assert levels_apart(from_picture, editor.edit(source, "Turn it blue.", **settings)) > 0


def test_a_closed_editor_says_so(tmp_path: Path) -> None:
    closed: list[str] = []

    class Counting(FakeBackend):
        def close(self) -> None:
            closed.append("once")
            super().close()

    picture = Image.new("RGB", (32, 32))
    with joyedit.Editor(Counting(RunConfig(output=tmp_path)), Settings(steps=1, basesize=256)) as editor:
        assert editor.edit(picture, "Make it red.").size == (32, 32)
    editor.close()
    assert closed == ["once"]
    with pytest.raises(UsageError, match=r"this editor is closed \(load the model again\)"):
        editor.edit(picture, "Make it red.")


def test_edit_takes_several_references_none_and_a_size(editor: joyedit.Editor) -> None:
    two = editor.edit([picture(256, 256), picture(200, 390)], "Both.", steps=1, basesize=256)
    assert two.size == (390, 200)
    assert editor.edit(None, "A car.", steps=1, basesize=256).size == (256, 256)
    sized = editor.edit(picture(256, 256), "Wide.", steps=1, basesize=256, width=800, height=400)
    assert sized.size == (800, 400)


def test_edit_turns_any_picture_to_rgb(editor: joyedit.Editor) -> None:
    half = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    half.paste((0, 0, 0, 255), (0, 0, 32, 64))
    on_white = Image.new("RGB", (64, 64), "white")
    on_white.paste("black", (0, 0, 32, 64))
    settings = {"steps": 1, "basesize": 256}
    assert levels_apart(editor.edit(half, "x", **settings), editor.edit(on_white, "x", **settings)) == 0


def test_a_picture_that_shows_nothing_is_refused(editor: joyedit.Editor) -> None:
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    with pytest.raises(joyedit.ItemError, match="every pixel is transparent") as caught:
        editor.edit(clear, "x", steps=1, basesize=256)
    assert caught.value.code == "empty_picture"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"step": 3}, "unknown keyword 'step' \\(did you mean 'steps'\\?\\)"),
        ({"steps": 0}, "steps must be a whole number from 1"),
        ({"basesize": 300}, "basesize must be one of 256, 512, 768, 1024"),
        ({"width": 300}, "width and height go together"),
    ],
)
def test_settings_that_cannot_work(editor: joyedit.Editor, settings: dict[str, int], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        editor.edit(None, "A car.", **settings)
    with pytest.raises(UsageError, match="instruction must be text that is not empty"):
        editor.edit(None, " ")


def test_run_is_the_command(diffusers_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    picture(256, 256).save(tmp_path / "in" / "a.png")
    outcome = joyedit.run(
        tmp_path / "in",
        model=diffusers_checkpoint,
        output=tmp_path / "out",
        prompt="Turn it red.",
        steps=1,
        basesize=256,
        batch_size=2,
    )
    assert outcome.exit_code == 0
    with Image.open(tmp_path / "out" / "a.png") as edited:
        assert edited.size == (256, 256)
    record = json.loads((tmp_path / "out" / "results.jsonl").read_text())
    assert record["settings"]["steps"] == 1


@pytest.fixture
def fake() -> joyedit.Editor:
    return joyedit.Editor(FakeBackend(RunConfig(output=Path())), Settings(steps=1, basesize=256))


@pytest.mark.parametrize(
    ("instruction", "code"),
    [("FAIL-NAN", "not_finite"), ("FAIL-OOM", "out_of_memory"), ("FAIL-ENCODE", "instruction_too_long")],
)
def test_a_failed_edit_raises_the_error_that_the_command_records(
    fake: joyedit.Editor, instruction: str, code: str
) -> None:
    with pytest.raises(joyedit.ItemError) as caught:
        fake.edit(picture(64, 64), instruction)
    assert caught.value.code == code
    assert fake.edit(picture(64, 64), "fine").size == (64, 64)


def test_edits_of_several_threads_come_one_after_the_other() -> None:
    class Counting(FakeBackend):
        inside = 0
        most = 0

        def encode(self, batch: ReadyBatch) -> FakeLatents:
            self.inside += 1
            self.most = max(self.most, self.inside)
            return super().encode(batch)

        def decode(self, latents: FakeLatents) -> FakePending:
            self.inside -= 1
            return super().decode(latents)

    backend = Counting(RunConfig(output=Path()))
    editor = Editor(backend, Settings(steps=1, basesize=256))
    with ThreadPoolExecutor(4) as threads:
        sizes = {one.size for one in threads.map(lambda n: editor.edit(picture(64, 64), f"SLEEP {n}"), range(4))}
    assert (sizes, backend.most) == ({(64, 64)}, 1)


def test_items_are_checked_as_lines_of_a_manifest_are(fake: joyedit.Editor, tmp_path: Path) -> None:
    for settings in ({"seed": -1}, {"guidance_scale": float("nan")}, {"steps": True}, {"negative_prompt": 3}):
        with pytest.raises(UsageError, match=next(iter(settings))):
            fake.edit(None, "A car.", **settings)
    with pytest.raises(joyedit.ItemError) as caught:
        fake.edit(tmp_path / "missing.png", "A car.")
    assert caught.value.code == "missing_picture"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device must be auto, cuda, mps or cpu, not 'gpu'"),
        ({"limit": 0}, "limit must be at least 1, not 0"),
        ({"quality": 101}, "quality must be at most 100, not 101"),
        ({"overwrite": "yes"}, "overwrite must be True or False, not 'yes'"),
        ({"prompt": 3}, "prompt must be text, not 3"),
        ({"batch_size": 0}, "batch_size must be auto or a number from 1, not '0'"),
        ({"output": 5}, "output must be a path, not 5"),
        ({"model": b"nano"}, "model must be a path, not b'nano'"),
        ({"mask": 5}, "mask must be a path, not 5"),
        ({"metrics": 5}, "metrics must be a path, not 5"),
        ({"recipe_values": ["a=b"]}, "recipe_values must be a dict, not list"),
        ({"map": 5}, "map must be a text or a list of texts, not 5"),
        ({"exclude": 5}, "exclude must be a text or a list of texts, not 5"),
        ({"lora": 5}, "lora must be a path, a dict with file and scale, or a list of these, not 5"),
        ({"lora": {"file": "x.safetensors", "scale": "2x"}}, "the scale of a LoRA must be a number, not '2x'"),
        ({"sweep": {"steps": 2}}, "sweep of steps must be a list of numbers and texts, not 2"),
        ({"sweep": {"lora": [Path]}}, "sweep of lora must be a list of numbers and texts, not "),
        ({"sweep": "steps"}, "sweep takes "),
        ({"overwrite": True, "retry_failed": True}, "overwrite=True and retry_failed=True exclude each other"),
    ],
)
def test_options_are_checked_as_flags_are(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        joyedit.run(tmp_path, **({"model": "nano", "output": tmp_path / "out"} | options))
    assert not (tmp_path / "out").exists()


def test_what_is_no_picture_is_told(fake: joyedit.Editor) -> None:
    told = (
        r"a picture is one of Pillow, a path or a data: URI, not ndarray \(PIL.Image.fromarray makes one of an array\)"
    )
    given: Any
    for given in (np.zeros((4, 4, 3), np.uint8), [np.zeros(3)]):
        with pytest.raises(UsageError, match=told):
            fake.edit(given, "x")
    given = b"no picture"
    with pytest.raises(UsageError, match="a picture is one of Pillow, a path or a data: URI, not bytes"):
        fake.edit(given, "x")


def test_lists_of_numbers_of_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOYEDIT_FAKE", "1")
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    options: Any = {"seeds": list(np.arange(2)), "sweep": {"steps": np.arange(1, 3)}}
    outcome = joyedit.run(
        tmp_path / "a.png", model="fake", output=tmp_path / "out", prompt="x", basesize=256, progress=False, **options
    )
    assert sorted((one.settings["seed"], one.settings["steps"]) for one in outcome) == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_every_error_and_the_version_are_exported() -> None:
    tree = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(tree) >= 7
    for kind in tree:
        assert issubclass(kind, joyedit.JoyeditError)
        assert getattr(joyedit, kind.__name__) is kind
        assert kind.__name__ in joyedit.__all__
        assert kind.__doc__
    assert joyedit.__version__ == importlib.metadata.version("joyedit")


def test_unknown_flags_and_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown keyword 'stepz'"):
        joyedit.run(tmp_path, model="nano", stepz=3)
    with pytest.raises(UsageError, match="unknown keyword 'gpu'"):
        joyedit.load("nano", gpu=0)


def test_importing_joyedit_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    code = "import sys, joyedit; print([m for m in ('torch', 'transformers', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_red_box(tmp_path: Path) -> None:
    seen: list[Image.Image] = []

    class Looking(FakeBackend):
        def encode(self, batch: ReadyBatch) -> FakeLatents:
            seen.extend(batch.items[0].pictures)
            return super().encode(batch)

    editor = Editor(Looking(RunConfig(output=tmp_path)), Settings())
    shown = Image.new("RGB", (256, 256), "white")
    editor.edit(shown, "Move it into the red box.", basesize=256, box=[64, 64, 192, 192])
    assert seen[0].getpixel((65, 128)) == (255, 0, 0)
    assert shown.getpixel((65, 128)) == (255, 255, 255)
    with pytest.raises(ItemError, match="leads out of the picture") as failed:
        editor.edit(shown, "x", basesize=256, box=[64, 64, 300, 192])
    assert failed.value.code == "bad_box"
    with pytest.raises(UsageError, match="box must be four numbers"):
        editor.edit(shown, "x", basesize=256, box=[64, 64])


def test_a_mask(tmp_path: Path) -> None:
    editor = Editor(FakeBackend(RunConfig(output=tmp_path)), Settings())
    shown, settings = picture(300, 410), {"basesize": 256}
    edit = editor.edit(shown, "x", **settings)
    mask = Image.new("L", shown.size)
    mask.paste(255, (100, 100, 200, 200))
    mask.save(tmp_path / "m.png")
    wanted = Image.composite(edit, shown, mask)
    data = "data:image/png;base64," + base64.b64encode((tmp_path / "m.png").read_bytes()).decode()
    for given in (mask, mask.convert("1"), tmp_path / "m.png", str(tmp_path / "m.png"), data):
        assert editor.edit(shown, "x", mask=given, **settings).tobytes() == wanted.tobytes()
    bucket = editor.edit(shown, "x", mask=Image.new("L", shown.size, 255), size="bucket", **settings)
    assert bucket.tobytes() == editor.edit(shown, "x", size="bucket", **settings).tobytes()
    with pytest.raises(ItemError, match="the mask has 300 x 410 pixels and its picture 410 x 300") as failed:
        editor.edit(shown, "x", mask=mask.transpose(Image.Transpose.ROTATE_90), **settings)
    assert failed.value.code == "bad_mask"
    with pytest.raises(UsageError, match="a mask is a picture, a path or a data: URI, not list"):
        editor.edit(shown, "x", mask=[mask], **settings)
    with pytest.raises(UsageError, match="this item has no picture"):
        editor.edit(None, "x", mask=mask, **settings)
    with pytest.raises(UsageError, match="a mask fits the last of several pictures"):
        editor.edit([shown, shown], "x", mask=mask, width=64, height=64, **settings)


def test_a_run_with_a_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOYEDIT_FAKE", "1")
    shown = picture(64, 64)
    shown.save(tmp_path / "a.png")
    Image.new("L", (64, 64)).save(tmp_path / "m.png")
    source, out = tmp_path / "a.png", tmp_path / "out"
    done = joyedit.run(source, model="fake", output=out, prompt="x", mask=tmp_path / "m.png", basesize=256, steps=1)
    assert done.exit_code == 0
    with Image.open(out / "a.png") as result:
        assert result.tobytes() == shown.tobytes()


@pytest.mark.parametrize("name", ["output", "model", "metrics"])
def test_an_empty_path_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    picture(64, 64).save("a.png")
    options: Any = {"model": "fake", "output": "out", name: ""}
    with pytest.raises(UsageError, match=rf"^{name} is empty \(give a path\)$"):
        joyedit.run("a.png", prompt="x", **options)
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]
