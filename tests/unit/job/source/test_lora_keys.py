"""LoRAs in flags, recipes, defaults and lines: paths, scales, precedence, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import CheckpointError, ManifestError, UsageError
from joyedit.job.results.fingerprint import Fingerprinter
from joyedit.job.results.records import settings_of
from joyedit.job.source.loras import LoraFacts, LoraShelf, split_scale
from joyedit.job.source.recipe_reader import load_recipe
from joyedit.job.source.sources import SourceOptions, open_source
from joyedit.job.spec import EditItem, Settings


def read(path: Path) -> LoraFacts:
    """A LoRA of a test is a text: its recommended steps, or nothing."""
    text = path.read_text()
    if text == "broken":
        raise CheckpointError(f"{path.name}: it is broken")
    return LoraFacts(weights=path, sha256=f"hash of {text}", settings=Settings(steps=int(text)) if text else Settings())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("p.png")
    Path("loras").mkdir()
    for name, text in (("a", ""), ("b", "8"), ("c", "9"), ("bad", "broken")):
        Path(f"loras/{name}.safetensors").write_text(text)
    return tmp_path


def options(**more: Any) -> SourceOptions:
    return SourceOptions(prompt="x", output=Path("out"), shelf=LoraShelf(read), **more)


def items(lines: list[dict[str, Any]], **more: Any) -> list[EditItem]:
    Path("m.jsonl").write_text("".join(json.dumps({"image": "p.png", **line}) + "\n" for line in lines))
    source = open_source("m.jsonl", options(**more))
    source.check()
    made = list(source.items())
    assert all(isinstance(item, EditItem) for item in made)
    return made  # type: ignore[return-value]


def told(item: EditItem) -> list[tuple[str, float]]:
    return [(lora.name, lora.scale) for lora in item.loras]


A, B, C = "loras/a.safetensors", "loras/b.safetensors", "loras/c.safetensors"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (A, [("a.safetensors", 1.0)]),
        (f"{A}:0.8", [("a.safetensors", 0.8)]),
        (f"{A}:-1e-1", [("a.safetensors", -0.1)]),
        ([A, f"{B}:.5"], [("a.safetensors", 1.0), ("b.safetensors", 0.5)]),
        ({"file": A, "scale": 2}, [("a.safetensors", 2)]),
        ([{"file": A}, B], [("a.safetensors", 1.0), ("b.safetensors", 1.0)]),
        ([], []),
        (None, [("c.safetensors", 0.5)]),
    ],
)
def test_the_forms_of_a_line(place: Path, value: Any, expected: list[tuple[str, float]]) -> None:
    (item,) = items([{"lora": value}], lora=(f"{C}:0.5",))
    assert told(item) == expected


def test_colons_in_names(place: Path) -> None:
    for name in ("a:0.5", "x:y.safetensors"):
        Path(name).write_text("")
    assert split_scale("a:0.5", "") == ("a:0.5", 1.0)
    assert split_scale("a:0.5:2", "") == ("a:0.5", 2.0)
    assert split_scale("x:y.safetensors", "") == ("x:y.safetensors", 1.0)
    assert split_scale("x:y.safetensors:3", "") == ("x:y.safetensors", 3.0)
    assert split_scale(":3", "") == (":3", 1.0)
    assert split_scale("a\0:3", "") == ("a\0", 3.0)


def test_precedence_and_recommended_settings(place: Path) -> None:
    Path("r.yaml").write_text(f"instruction: 'y {{instruction}}'\nsettings:\n  lora: [{B}]\n")
    Path("m.yaml").write_text(
        f"defaults: {{lora: '{C}:2'}}\nitems:\n- image: p.png\n- {{image: p.png, lora: {A}}}\n"
        f"- {{image: p.png, lora: [{A}, {B}], steps: 3}}\n- {{image: p.png, lora: [{A}, {B}, {C}]}}\n"
    )

    def made(**more: Any) -> list[tuple[list[tuple[str, float]], int]]:
        source = open_source("m.yaml", options(**more))
        summary = source.check()
        assert summary.lora_sets is not None
        assert len(summary.lora_sets) == 4
        found = [item for item in source.items() if isinstance(item, EditItem)]
        return [(told(item), item.sampling.steps) for item in found]

    a, b, c = ("a.safetensors", 1.0), ("b.safetensors", 1.0), ("c.safetensors", 1.0)
    own = [([a], 40), ([a, b], 3), ([a, b, c], 8)]
    assert made() == [([("c.safetensors", 2.0)], 9), *own]
    assert made(recipe=load_recipe("r.yaml")) == [([b], 8), *own]
    flagged = made(recipe=load_recipe("r.yaml"), lora=(C,), flags=Settings(steps=5))
    assert flagged == [([c], 5), ([a], 5), ([a, b], 3), ([a, b, c], 5)]


def test_cells_of_a_table(place: Path) -> None:
    Path("m.csv").write_text(
        f'image,lora,id\np.png,{A}:0.5;{B},1\np.png,,2\np.png,[],3\np.png,"[{{""file"": ""{C}"", ""scale"": 3}}]",4\n'
        f'p.png,"{{""file"": ""{C}""}}",5\n'
    )
    source = open_source("m.csv", options(lora=(C,)))
    source.check()
    found = [told(item) for item in source.items() if isinstance(item, EditItem)]
    c = "c.safetensors"
    assert found == [[("a.safetensors", 0.5), ("b.safetensors", 1.0)], [(c, 1.0)], [], [(c, 3.0)], [(c, 1.0)]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no.safetensors", "no such LoRA: 'no.safetensors' (paths are relative to '{here}')"),
        ("loras/bad.safetensors", "bad.safetensors: it is broken"),
        (f"{A}:1000", "the scale of 'loras/a.safetensors' must be from -100 to 100, not 1000"),
        (5, "lora must be a path (with :SCALE behind it), an object with file and scale (up to 100), or a list"),
        ({"file": A, "weight": 1}, "lora must be a path"),
        ({"file": A, "scale": 101}, "lora must be a path"),
        ([A] * 17, "lora has 17 files, and 16 are the most"),
    ],
)
def test_faults(place: Path, value: Any, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        items([{"lora": value}])
    assert str(caught.value).startswith("m.jsonl:1: ")
    assert message.format(here=place) in str(caught.value)


def test_faults_of_flags_and_recipes(place: Path) -> None:
    with pytest.raises(UsageError, match="--lora: no such LoRA: 'x'"):
        items([{}], lora=("x",))
    Path("r.yaml").write_text("instruction: y\nsettings:\n  lora: x\n")
    with pytest.raises(UsageError, match=r"r\.yaml: no such LoRA: 'x'"):
        items([{}], recipe=load_recipe("r.yaml"))
    Path("m.yaml").write_text("defaults: {lora: x}\nitems:\n- image: p.png\n")
    with pytest.raises(ManifestError, match=r"m\.yaml:1: no such LoRA"):
        open_source("m.yaml", options()).check()


def test_ids_fingerprints_and_records(place: Path) -> None:
    same = [{"lora": A}, {"lora": {"file": A, "scale": 2}}, {"lora": []}]
    made = items(same)
    assert len({item.id for item in made}) == 3
    of = Fingerprinter(model="m", schedule="s", dtype="d", quality=95, metadata="keep").of
    assert len({of(item, []) for item in made}) == 3
    assert settings_of(made[1])["lora"] == [{"file": "a.safetensors", "sha256": "hash of ", "scale": 2}]
    assert "lora" not in settings_of(made[2])
    (plain,) = items([{}])
    assert of(plain, []) == of(made[2], [])
    Path(A).rename("loras/moved.safetensors")
    (moved,) = items([{"lora": "loras/moved.safetensors"}])
    assert of(moved, []) == of(made[0], [])


def test_folders_and_pictures(place: Path) -> None:
    for name in (".", "p.png"):
        source = open_source(name, options(lora=(f"{B}:2",)))
        assert source.check().lora_sets == (source.check().loras.loras,)
        (item,) = source.items()
        assert isinstance(item, EditItem)
        assert told(item) == [("b.safetensors", 2.0)]
        assert item.sampling.steps == 8
        assert source.shared()["loras"] == [["hash of 8", 2.0, ()]]
