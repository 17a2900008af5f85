"""Masks: white may change, and what is black stays the picture's own, pixel by pixel."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_command import Command
from PIL import Image, ImageDraw

from joyedit.job.pictures import icc
from joyedit.job.results.records import final_records, read_journal

FAKE = ("-m", "fake", "--basesize", "256", "--steps", "1")
P3 = icc.profile(icc.PRIMARIES[12][1], icc.srgb_curve(np.linspace(0, 1, icc.ENTRIES)), name="Display P3")
SIZE = (411, 303)
HOLE = (120, 80, 250, 200)


def photo(mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(7)
    image = Image.fromarray(rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8))
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(rng.integers(0, 256, (SIZE[1], SIZE[0]), dtype=np.uint8)))
    return image.convert(mode)


def mask(size: tuple[int, int] = SIZE) -> Image.Image:
    """White in a box, and a soft edge on its left."""
    made = Image.new("L", SIZE)
    ImageDraw.Draw(made).rectangle(HOLE, fill=255)
    for step in range(20):
        made.paste(12 * step + 6, (HOLE[0] - 20 + step, HOLE[1], HOLE[0] - 19 + step, HOLE[3] + 1))
    return made.resize(size)


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps({"instruction": "blue", **line}) + "\n" for line in lines))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    photo().save(tmp_path / "p.png")
    mask().save(tmp_path / "m.png")
    write(tmp_path / "e.jsonl", [{"image": "p.png", "id": "a", "mask": "m.png"}, {"image": "p.png", "id": "b"}])
    return tmp_path


def record(name: str = "a", folder: str = "out") -> dict[str, Any]:
    return {one["id"]: one for one in final_records(Path(folder) / "results.jsonl")}[name]


def pixels(path: str | Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def run(joyedit: Command, *more: str, source: str = "e.jsonl", code: int = 0) -> str:
    ended = joyedit("run", source, *FAKE, "-o", "out", *more)
    assert ended.code == code, ended.err
    return ended.err


def test_the_picture_outside_and_the_edit_inside(joyedit: Command, place: Path) -> None:
    run(joyedit)
    masked, edit, own, share = (pixels(path) for path in ("out/a.png", "out/b.png", "p.png", "m.png"))
    assert np.array_equal(masked[share == 0], own[share == 0])
    assert np.array_equal(masked[share == 255], edit[share == 255])
    assert not np.array_equal(edit[share == 0], own[share == 0])
    blend = own + (edit - own) * share[..., None] / 255
    assert np.abs(masked - blend).max() <= 0.5 + 1e-9
    told = record()["mask"]
    assert told["path"] == str(place / "m.png")
    assert told["share"] == pytest.approx(share.mean() / 255, abs=1e-4)
    assert len(told["seen"]) == 4
    assert record()["settings"]["mask"] == "m.png"
    assert "mask" not in record("b")
    assert joyedit("verify", "out").code == 0
    shown = joyedit("show", "out/a.png")
    assert (
        f"{place}/m.png (sha256 {told['seen'][0][:12]}...), {told['share']:.1%} of the picture may change" in shown.out
    )
    page = "".join(path.read_text() for path in Path("out").glob("index*/**/*.js"))
    assert f"m.png ({told['share']:.1%} may change)" in Path("out/index.html").read_text() + page


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
@pytest.mark.parametrize("profile", [False, True])
def test_every_own_value_stays(joyedit: Command, place: Path, mode: str, profile: bool) -> None:
    grey = icc.profile(icc.PRIMARIES[1][1], np.linspace(0, 1, icc.ENTRIES) ** 1.4, name="Steep")
    held = None if not profile else P3 if mode.startswith("RGB") else _grey_profile(grey)
    photo(mode).save("p.png", icc_profile=held)
    run(joyedit, "--keep-unedited", "--register")
    with Image.open("out/a.png") as result, Image.open("p.png") as own:
        assert result.info.get("icc_profile") == held or not mode.startswith("RGB")
        assert result.mode in (mode, mode.replace("L", "RGB"))  # the fake gives a grey picture colours
        same = result.mode == mode or not profile
        outside = np.asarray(mask()) == 0
        difference = np.abs(np.asarray(result).astype(int) - np.asarray(own.convert(result.mode)).astype(int))[outside]
        assert not same or difference.max() == 0


def _grey_profile(made: bytes) -> bytes | None:
    return made if made[16:20] == b"GRAY" else None


def test_a_grey_picture_with_a_grey_edit(joyedit: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joyedit.job.pictures.as_given.is_grey", lambda image: True)
    photo("LA").save("p.png")
    run(joyedit)
    with Image.open("out/a.png") as result, Image.open("p.png") as own:
        assert result.mode == "LA"
        outside = np.asarray(mask()) == 0
        assert np.array_equal(np.asarray(result)[outside], np.asarray(own)[outside])


def test_at_other_sizes_the_outside_is_the_picture_scaled(joyedit: Command, place: Path) -> None:
    for size in ("bucket", "long=822", "200x147", "400x400"):
        run(joyedit, "--size", size, "--overwrite")
        with Image.open("out/a.png") as result, Image.open("out/b.png") as edit, Image.open("p.png") as own:
            if size in ("long=822", "200x147"):
                wanted = np.asarray(own.resize(result.size, Image.Resampling.LANCZOS)).astype(int)
                share = np.asarray(mask().resize(result.size, Image.Resampling.BILINEAR))
                assert np.abs(np.asarray(result) - wanted)[share == 0].max() <= (0 if size == "long=822" else 40)
                assert np.array_equal(np.asarray(result)[share == 255], np.asarray(edit)[share == 255])
            changed = (np.asarray(result) != np.asarray(edit)).any(axis=-1)
            assert result.size == edit.size
            assert changed[:8].all(axis=None) or changed[:8].mean() > 0.9


def test_formats_and_one_picture(joyedit: Command, place: Path) -> None:
    Image.linear_gradient("L").resize(SIZE).convert("RGB").save("p.png")
    ended = joyedit("run", "p.png", *FAKE, "-p", "blue", "--mask", "m.png", "-o", "one.webp", "--quality", "100")
    assert ended.code == 0, ended.err
    away = np.abs(pixels("one.webp") - pixels("p.png"))
    assert away[:70].max() <= 3, "lossy, and near the edge a little of the edit"
    assert away[100:180, 140:230].min(axis=-1).mean() > 3
    shown = joyedit("show", "one.webp")
    assert "mask" in shown.out
    again = joyedit("run", "one.webp", "-m", "fake", "-o", "again.webp")
    assert again.code == 0, again.err
    assert pixels("again.webp").tobytes() == pixels("one.webp").tobytes()
    Path("m.png").rename("moved.png")
    lost = joyedit("run", "one.webp", "-m", "fake", "-o", "third.webp")
    assert lost.code == 2
    assert "m.png, of which one.webp was made, is not there (name it with --mask FILE)" in lost.err
    named = joyedit("run", "one.webp", "-m", "fake", "-o", "third.webp", "--mask", "moved.png")
    assert named.code == 0, named.err
    assert pixels("third.webp").tobytes() == pixels("one.webp").tobytes()
    taken = joyedit("run", "p.png", *FAKE, "-p", "blue", "--mask", "moved.png", "-o", "moved.png", "--overwrite")
    assert taken.code == 2
    assert "would replace its own input" in taken.err
    assert pixels("moved.png").tobytes() == np.asarray(mask()).astype(int).tobytes()


def test_replay_of_a_record(joyedit: Command, place: Path) -> None:
    run(joyedit)
    again = joyedit("run", "out/a.png", "-m", "fake", "-o", "again")
    assert again.code == 0, again.err
    assert pixels("again/a_again.png").tobytes() == pixels("out/a.png").tobytes()
    mask().transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("m.png")
    changed = joyedit("run", "out/a.png", "-m", "fake", "-o", "again")
    assert changed.code == 2
    assert f"{place}/m.png has changed since out/a.png was made of it" in changed.err
    assert "--mask" in changed.err


def test_a_folder_and_a_flag(joyedit: Command, place: Path) -> None:
    (place / "photos").mkdir()
    for name in ("x", "y"):
        photo().save(f"photos/{name}.png")
    run(joyedit, "-p", "blue", "--mask", "m.png", source="photos")
    share = pixels("m.png")
    for name in ("x", "y"):
        assert np.array_equal(pixels(f"out/{name}.png")[share == 0], pixels("p.png")[share == 0])
        assert record(name)["mask"]["path"] == str(place / "m.png")
    dry = joyedit("run", "photos", *FAKE, "-p", "blue", "--mask", "m.png", "-o", "dry", "--dry-run")
    assert "mask: m.png" in dry.err
    assert ", mask m.png" in dry.out
    assert joyedit("run", "photos", *FAKE, "-p", "blue", "--mask", "none.png").code == 2
    refused = joyedit("run", "photos", *FAKE, "-p", "blue", "--mask", "a\0b")
    assert refused.code == 2
    assert "there is no such picture" in refused.err


def test_other_forms(joyedit: Command, place: Path) -> None:
    data = "data:image/png;base64," + base64.b64encode(Path("m.png").read_bytes()).decode()
    (place / "deep").mkdir()
    (place / "deep" / "e.csv").write_text(
        f'image,id,mask,instruction\n../p.png,plain,../m.png,blue\n../p.png,none,,blue\n../p.png,data,"{data}",blue\n'
    )
    run(joyedit, source="deep/e.csv")
    assert pixels("out/plain.png").tobytes() == pixels("out/data.png").tobytes()
    assert pixels("out/none.png").tobytes() != pixels("out/data.png").tobytes()
    told = record("data")["mask"]
    assert told["path"] == f"data:image/png;sha256={told['seen'][0]}"
    (place / "e.yaml").write_text("items:\n  - {image: p.png, id: yaml, mask: m.png, instruction: blue}\n")
    run(joyedit, "--update", source="e.yaml")
    assert pixels("out/yaml.png").tobytes() == pixels("out/plain.png").tobytes()
    (place / "theirs.csv").write_text("image,region,instruction\np.png,m.png,blue\n")
    run(joyedit, "--map", "mask=region", "--update", source="theirs.csv")
    assert pixels("out/p.png").tobytes() == pixels("out/plain.png").tobytes()


def test_lines_that_differ_in_their_masks_have_ids_of_their_own(joyedit: Command, place: Path) -> None:
    mask().transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("other.png")
    write(place / "e.jsonl", [{"image": "p.png", "mask": "m.png"}, {"image": "p.png", "mask": "other.png"}])
    run(joyedit)
    names = {one["id"] for one in final_records(place / "out" / "results.jsonl")}
    write(place / "e.jsonl", [{"image": "p.png", "mask": "other.png"}, {"image": "p.png", "mask": "m.png"}])
    assert "2 items are already done" in run(joyedit)
    assert names == {one["id"] for one in final_records(place / "out" / "results.jsonl")}
    assert len(names) == 2


def test_a_mask_that_changes_is_another_edit(joyedit: Command, place: Path) -> None:
    def edited() -> list[str]:
        return sorted(one["id"] for one in read_journal(place / "out" / "results.jsonl"))

    run(joyedit)
    assert "2 items are already done" in run(joyedit)
    mask().transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("m.png")
    dry = joyedit("run", "e.jsonl", *FAKE, "-o", "out", "--dry-run")
    assert "items 2, done 1" in dry.out
    run(joyedit)
    assert edited() == ["a", "a", "b"]
    share = pixels("m.png")
    assert np.array_equal(pixels("out/a.png")[share == 0], pixels("p.png")[share == 0])
    write(place / "e.jsonl", [{"image": "p.png", "id": "a"}, {"image": "p.png", "id": "b"}])
    run(joyedit)
    assert edited() == ["a", "a", "a", "b"]
    refused = run(joyedit, "--mask", "m.png", code=2)
    assert "mask None -> 'm.png'" in refused
    run(joyedit, "--mask", "m.png", "--update")
    assert edited() == ["a", "a", "a", "a", "b", "b"]
    (place / "n.png").write_bytes(Path("m.png").read_bytes())
    assert "2 items are already done" in run(joyedit, "--mask", "n.png")
    mask().save("n.png")
    again = run(joyedit, "--mask", "n.png", "--trust-journal", code=2)
    assert "mask" in again


def test_all_black_and_all_white(joyedit: Command, place: Path) -> None:
    Image.new("L", SIZE).save("m.png")
    run(joyedit)
    assert "the mask is all black, so nothing may change" in record()["notes"]
    assert record()["mask"]["share"] == 0
    assert pixels("out/a.png").tobytes() == pixels("p.png").tobytes()
    Image.new("1", SIZE, 1).save("m.png")
    run(joyedit)
    assert "the mask is all white, so everything may change" in record()["notes"]
    assert pixels("out/a.png").tobytes() == pixels("out/b.png").tobytes()


def test_what_is_wrong_is_told_before_anything_is_written(joyedit: Command, place: Path) -> None:
    write(
        place / "e.jsonl",
        [
            {"image": "p.png", "id": "a", "mask": "gone.png"},
            {"image": "p.png", "id": "b", "mask": ["m.png"]},
            {"image": "p.png", "id": "c", "mask": "data:image/png;base64,*"},
            {"id": "d", "mask": "m.png"},
            {"images": ["p.png", "p.png"], "id": "e", "mask": "m.png", "width": 64, "height": 64},
            {"image": "p.png", "id": "f", "mask": "http://x/m.png"},
        ],
    )
    err = run(joyedit, code=2)
    assert "e.jsonl:1: mask: no such picture: 'gone.png'" in err
    assert "e.jsonl:2: mask must be the path of one picture" in err
    assert "e.jsonl:3: mask: the picture in this line is broken base64" in err
    assert "e.jsonl:4: a mask says what of a picture may change, and this item has no picture" in err
    assert "e.jsonl:5: a mask fits the last of several pictures" in err
    assert "e.jsonl:6: mask: 'http://x/m.png' is a web address" in err
    assert not (place / "out").exists()


def test_what_is_wrong_fails_its_item(joyedit: Command, place: Path) -> None:
    mask((300, 300)).save("square.png")
    (place / "broken.png").write_bytes(Path("m.png").read_bytes()[:200])
    (place / "text.png").write_text("no picture")
    (place / "late.png").write_bytes(Path("m.png").read_bytes())
    lines = [
        {"image": "p.png", "id": name, "mask": f"{name}.png"} for name in ("square", "broken", "text", "gone", "m")
    ]
    write(place / "e.jsonl", lines)
    err = run(joyedit, "--skip-missing", code=3)
    square = record("square")["error"]
    assert square["code"] == "bad_mask"
    assert square["message"].startswith(
        "e.jsonl:1: square.png: the mask has 300 x 300 pixels and its picture 411 x 303"
    )
    assert record("broken")["error"]["code"] in ("truncated_picture", "unreadable_picture")
    assert record("broken")["error"]["message"].startswith("mask broken.png: ")
    assert record("text")["error"]["message"].startswith("mask text.png: ")
    assert record("gone")["error"]["code"] == "missing_picture"
    assert record("m")["status"] == "ok"
    assert "4" in err
    failed = [json.loads(line) for line in (place / "out" / "failed.jsonl").read_text().splitlines()]
    assert {line["id"]: line["mask"] for line in failed} == {
        name: str(place / f"{name}.png") for name in ("square", "broken", "text", "gone")
    }
    for name in ("square", "broken", "text", "gone"):
        mask().save(f"{name}.png")
    assert joyedit("run", "out/failed.jsonl", *FAKE, "-o", "out").code == 0
    assert {one["status"] for one in final_records(place / "out" / "results.jsonl")} == {"ok"}
    assert joyedit("verify", "out").code == 0


def test_no_output_is_a_mask(joyedit: Command, place: Path) -> None:
    (place / "out").mkdir()
    mask().save("out/m.png")
    before = Path("out/m.png").read_bytes()
    write(place / "e.jsonl", [{"image": "p.png", "id": "m", "mask": "out/m.png"}])
    assert "the output 'm.png' would overwrite an input picture" in run(joyedit, code=2)
    write(place / "e.jsonl", [{"image": "p.png", "id": "m"}, {"image": "p.png", "id": "n", "mask": "out/m.png"}])
    assert "e.jsonl:2: line 1 would overwrite the picture 'm.png' in the output folder" in run(joyedit, code=2)
    write(place / "e.jsonl", [{"image": "p.png", "id": "n", "mask": "out/m.png"}])
    run(joyedit)
    assert joyedit("verify", "out").code == 0, "a mask in the output folder is no stray file"
    assert Path("out/m.png").read_bytes() == before
    # An earlier picture of joyedit's own, which is a mask now by way of a link.
    (place / "link.png").hardlink_to(place / "out" / "n.png")
    write(place / "e.jsonl", [{"image": "p.png", "id": "n", "mask": "link.png"}])
    run(joyedit, "--overwrite", code=3)
    assert record("n")["error"]["code"] == "output_taken"


def test_a_mask_in_a_line_is_not_in_failed_jsonl(joyedit: Command, place: Path) -> None:
    data = "data:image/png;base64," + base64.b64encode(Path("m.png").read_bytes()).decode()
    write(place / "e.jsonl", [{"image": "p.png", "id": "a", "mask": data, "instruction": "FAIL-NAN"}])
    err = run(joyedit, code=3)
    assert "not in failed.jsonl, because a picture stands in the line: 1" in err
    assert not (place / "out" / "failed.jsonl").exists()


def test_a_mask_that_changes_while_it_is_used_fails(
    joyedit: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from joyedit.runtime import fake

    decode = fake.FakeBackend.decode

    def meanwhile(self: Any, latents: Any) -> Any:
        Image.new("L", SIZE, 255).save("m.png")
        return decode(self, latents)

    monkeypatch.setattr(fake.FakeBackend, "decode", meanwhile)
    run(joyedit, code=3)
    assert record()["error"] == {"code": "picture_changed", "message": "m.png: the file changed while it was edited"}


def test_a_red_box_stays_inside(joyedit: Command, place: Path) -> None:
    write(place / "e.jsonl", [{"image": "p.png", "id": "a", "mask": "m.png", "box": [5, 5, 100, 290]}])
    for size in ("input", "bucket"):
        run(joyedit, "--size", size, "--overwrite")
        with Image.open("out/a.png") as result:
            red = (np.asarray(result.crop((0, 0, result.width // 5, result.height))) == (255, 0, 0)).all(axis=-1)
            assert red.sum() < 20, "the model saw the box, the result outside the mask does not show it"


def test_a_picture_with_padding_in_the_result_keeps_its_transparency(joyedit: Command, place: Path) -> None:
    """1920x1080 of a square with --fit pad: alpha and mask lie where the picture lies."""
    square = Image.new("RGBA", (300, 300), (200, 40, 40, 255))
    square.paste((0, 0, 0, 0), (0, 0, 150, 300))
    square.save("p.png")
    Image.new("L", (300, 300)).save("m.png")
    run(joyedit, "--size", "800x300", "--fit", "pad")
    with Image.open("out/a.png") as result:
        assert result.size == (800, 300)
        alpha = np.asarray(result.getchannel("A"))
        assert (alpha[:, 260:395] == 0).all()
        assert (alpha[:, 405:540] == 255).all()
        assert np.asarray(result.convert("RGB"))[150, 450].tolist() == [200, 40, 40]


def test_several_pictures_and_one_mask(joyedit: Command, place: Path) -> None:
    Image.new("RGB", (64, 64), "red").save("other.png")
    write(place / "e.jsonl", [{"images": ["other.png", "p.png"], "id": "a", "mask": "m.png"}])
    run(joyedit)
    share = pixels("m.png")
    assert np.array_equal(pixels("out/a.png")[share == 0], pixels("p.png")[share == 0])


def test_a_mask_on_standard_input(joyedit: Command, program: Command, place: Path) -> None:
    line = json.dumps({"image": "p.png", "id": "a", "mask": "m.png", "instruction": "blue"})
    ended = program("run", "-", *FAKE, "-o", "out", stdin=line + "\n")
    assert ended.code == 0, ended.err
    share = pixels("m.png")
    assert np.array_equal(pixels("out/a.png")[share == 0], pixels("p.png")[share == 0])
