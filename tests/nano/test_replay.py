"""A picture of nano, made again from itself: the same pixels. And the edits of a matrix: those of single runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import joyedit
from joyedit.runtime.joyimage.conditioning import Conditioner
from joyedit.runtime.joyimage.encode import BatchEncoder
from joyedit.runtime.pipeline import read as reading
from nano.edits import sample_edit, split_rng

SMALL = {"model": "nano", "basesize": 256, "device": "cpu"}


def pixels(path: str) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOYEDIT_MODEL", raising=False)
    pair = sample_edit(split_rng("heldout", 11, 1), "recolour", "heldout")
    pair.source_image.save("scene.png")
    return pair.instruction


@pytest.mark.parametrize("form", ["png", "webp"])
def test_the_same_pixels_again(scene: str, form: str) -> None:
    given = {"steps": 2, "seed": 5, "guidance_scale": 1.5, "negative_prompt": "grey", "format": form}
    assert joyedit.run("scene.png", prompt=scene, output="out", **SMALL, **given).report.ok == 1
    assert joyedit.run(f"out/scene.{form}", output="again").report.ok == 1
    assert pixels(f"again/scene_again.{form}") == pixels(f"out/scene.{form}")
    assert joyedit.run(f"out/scene.{form}", seed=6, output="again").report.ok == 1
    assert pixels(f"again/scene_seed-6.{form}") != pixels(f"out/scene.{form}")


def test_a_matrix_computes_once_what_its_edits_share(scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(owner: type, name: str) -> None:
        call = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: calls.append(name) or call(*a, **k))

    counted(Conditioner, "see")
    counted(Conditioner, "read_together")
    counted(BatchEncoder, "_vae_encode")
    load = reading.load_picture
    monkeypatch.setattr(reading, "load_picture", lambda *a, **k: calls.append("load") or load(*a, **k))
    run = {"seeds": [1, 2, 3], "sweep": {"steps": [1, 2]}, "batch_size": 1, "prompt": scene}
    assert joyedit.run("scene.png", output="matrix", **SMALL, **run).report.ok == 6
    assert {name: calls.count(name) for name in ("load", "see", "_vae_encode")} == {
        "load": 1,
        "see": 1,
        "_vae_encode": 1,
    }
    assert calls.count("read_together") == 1
    for seed, steps in ((1, 2), (3, 1)):
        one = {"seed": seed, "steps": steps, "prompt": scene, "batch_size": 1, "output": f"one-{seed}"}
        assert joyedit.run("scene.png", **SMALL, **one).report.ok == 1
        assert pixels(f"one-{seed}/scene.png") == pixels(f"matrix/scene_steps-{steps}_seed-{seed}.png")


def test_the_red_box_reaches_the_networks(scene: str) -> None:
    moved = {"recipe": "object-move", "steps": 1}
    for name, box in (("one", "0.1,0.1,0.4,0.4"), ("other", "0.5,0.5,0.9,0.9")):
        values = {"object": "square", "box": box}
        assert joyedit.run("scene.png", output=name, recipe_values=values, **SMALL, **moved).report.ok == 1
    assert pixels("one/scene.png") != pixels("other/scene.png")
