"""The page of an output folder: what is in it, what stays of an older one, and what it does not touch."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import OutputError, UsageError
from joyedit.job.own_files import PAGE, PAGE_FILES, RESULTS
from joyedit.job.page import build as building
from joyedit.job.page.build import Building, StoppedPage, build_page
from joyedit.job.page.data_files import MOST_ITEMS
from joyedit.job.page.place import PagePlace
from joyedit.job.results.verify import Counts, verify
from support.pages import HOSTILE_NAMES, HOSTILE_TEXTS, MadeFolder, ReadPage, seen, settings


@pytest.fixture
def made(tmp_path: Path) -> MadeFolder:
    return MadeFolder(tmp_path)


def test_a_page_shows_every_final_record(made: MadeFolder) -> None:
    made.add("a")
    made.add("b", drift={"dx": 3.0, "dy": -4.0, "zoom": 1.01}, recipe={"name": "camera"}, fit={"mode": "pad"})
    made.fail("c")
    made.add("a", instruction="edit again")
    report = {"state": "complete", "items": 3, "left": 2, "stages": {"write": 1.0, "load": 2.5}, "seconds": 9.0}
    built = build_page(made.write(report))
    assert (built.items, built.left, built.error) == (3, 0, None)
    page = ReadPage(made.path)
    assert [row["id"] for row in page.rows] == ["b", "c", "a"]
    assert page.row("a")["text"] == "edit again"
    assert page.row("b")["drift"] == [3.0, -4.0, 1.01]
    assert page.row("b")["recipe"] == "camera"
    assert page.more("b")["fit"] == [["mode", "pad"]]
    assert page.row("b")["sec"] == pytest.approx(2.1)
    assert page.row("b")["size"] == [48, 32]
    assert (page.row("c")["bad"], page.row("c")["code"]) == (1, "truncated_picture")
    run = page.run
    assert (run["done"], run["failed"], run["left"], run["codes"]) == (2, 1, 2, [["truncated_picture", 1]])
    assert run["stages"] == [["load", 2.5], ["write", 1.0]]
    assert run["title"] == "out"
    assert "default-src 'none'" in page.html
    assert not {word for word in ("http:", "https:", "//", "onclick", "style=") if word in page.html}


def test_pictures_are_small_copies(made: MadeFolder) -> None:
    made.add("large", size=(1600, 800))
    page_of = build_page(made.write())
    page = ReadPage(made.path)
    sizes = {}
    for name in page.pictures():
        with Image.open(page.files / "pictures" / name) as image:
            sizes[name[0]] = (image.format, max(image.size))
    assert page_of.made == 4
    assert sizes["v"] == ("JPEG", 1280)
    assert sizes["s"] == ("JPEG", 288)
    assert sizes["t"] == ("JPEG", 112)
    assert page.row("large")["out"] == "large.png"
    assert (page.files / page.more("large")["inputs"][0]["view"]).is_file()
    assert (page.files / page.row("large")["before"].replace("/s-", "/t-")).is_file()


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
def test_hostile_texts_are_data(made: MadeFolder, text: str) -> None:
    made.add("a", instruction=text, columns={text[:50]: text, "__proto__": text}, notes=[text], recipe=text)
    made.fail("b", code=text[:100], error={"code": text[:100], "message": text})
    made.add("c", settings=settings_of(text), sweep={"__proto__": text})
    build_page(made.write({"error": text, "model": text, "notes": [text], "settings": {"x": text}}))
    page = ReadPage(made.path)  # asserts that each data file is one call with one string
    assert page.row("a")["text"][:200] == text[:200]
    assert json.loads(page.more("a")["line"])["instruction"] == text if "\ud800" not in text else True
    assert ["__proto__", text[:2000]] in page.more("a")["columns"]
    for path in page.files.glob("*.js"):
        if not path.name.startswith("page-"):
            assert b"<" not in path.read_bytes()
    assert page.html.count("<script") == page.html.count("</script>") == 3


def settings_of(text: str) -> dict[str, Any]:
    return {
        "steps": text,
        "seed": [],
        "guidance_scale": float("inf"),
        "lora": [{"file": text, "scale": {}}, 3],
        "model": text,
    }


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_become_links(tmp_path: Path, name: str) -> None:
    made = MadeFolder(tmp_path, f"out {name.replace('/', '_')}")
    made.add(name)
    build_page(made.write())
    row = ReadPage(made.path).row(name)
    assert row["out"].isascii()
    assert not set(row["out"]) & set("#?\"'<> :\\")
    from urllib.parse import unquote

    assert (made.path / unquote(row["out"])).is_file()


def test_the_title_is_escaped(tmp_path: Path) -> None:
    made = MadeFolder(tmp_path, "<script>alert(1)<")
    made.add("a")
    build_page(made.write())
    assert "<script>alert" not in ReadPage(made.path).html
    assert "&lt;script&gt;alert" in ReadPage(made.path).html


def test_no_home_in_the_page(made: MadeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    made.add("a", settings=settings(model=f"{tmp_path}/models/joy"), notes=[f"{tmp_path}/x/y is odd"])
    made.fail("b")
    build_page(
        made.write({"model": f"{tmp_path}/models/joy", "source": f"{tmp_path}/m.jsonl", "error": f"{made.path}/a"})
    )
    page = ReadPage(made.path)
    for path in [made.path / PAGE, *page.files.glob("*.js")]:
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    assert page.row("b")["why"] == "in1.png: it is broken"
    assert page.more("a")["images"] == ["../in/in0.png"]


def test_an_item_can_be_run_again(made: MadeFolder) -> None:
    lora = {"lora": [{"file": "style", "sha256": "0", "scale": 0.5}]}
    record = made.add("a", loras=[str(made.inputs / "style.safetensors")])
    record["settings"] |= lora | {"seed": 2**64 - 1, "width": 64, "height": 32}
    made.add("text", inputs=[], inputs_seen=[])
    made.add("line", inputs=["data:image/png;sha256=" + "0" * 64])
    masked = made.add("masked", mask={"path": str(made.inputs / "mask.png"), "share": 0.25, "seen": ["0", 1, 2, 3]})
    masked["settings"] |= {"mask": "mask.png"}
    drawn = made.add("drawn", mask={"path": "data:image/png;sha256=" + "0" * 64})
    drawn["settings"] |= {"mask": "data-000000000000"}
    made.fail("nothing", settings={})
    build_page(made.write())
    page = ReadPage(made.path)
    more = page.more("a")
    assert '"seed": 18446744073709551615' in more["line"]
    assert more["work"] == {"steps": 40, "basesize": 512, "width": 64, "height": 32}
    assert (more["images"], more["loras"]) == (["../in/in0.png"], [["../in/style.safetensors", 0.5]])
    assert "images" not in page.more("text")
    assert page.more("line")["why"] == "its picture stands in its line of the source"
    assert page.more("masked")["mask"] == "../in/mask.png"
    assert ["mask", "mask.png (25.0% may change)"] in page.more("masked")["settings"]
    assert '"mask"' not in page.more("masked")["line"]
    assert page.more("drawn")["why"] == "its picture stands in its line of the source"
    assert ["mask", "data:image/png;sha256=" + "0" * 64] in page.more("drawn")["settings"]
    assert page.more("nothing")["why"] == "its record does not hold a whole item"
    assert page.row("a")["seed"] == str(2**64 - 1)


def test_sweeps_share_a_group(made: MadeFolder) -> None:
    first = made.add("s1")
    for name in ("s2", "s3"):
        made.add(name, inputs=first["inputs"], instruction=first["instruction"], sweep={"strength": 0.5})
    made.add("other")
    build_page(made.write())
    groups = {row["id"]: row["group"] for row in ReadPage(made.path).rows}
    assert groups["s1"] == groups["s2"] == groups["s3"] != groups["other"]
    assert ReadPage(made.path).row("s2")["axes"] == [["strength", "0.5"]]


def test_what_is_there_is_not_made_again(made: MadeFolder) -> None:
    made.add("a")
    made.add("b")
    assert build_page(made.write()).made == 8
    page = ReadPage(made.path)
    stamps = {path: path.stat().st_mtime_ns for path in (page.files / "pictures").iterdir()}
    assert build_page(made.path).made == 0
    assert {path: path.stat().st_mtime_ns for path in (page.files / "pictures").iterdir()} == stamps
    gone = next(iter(sorted(stamps)))
    gone.write_bytes(b"")  # what a power cut leaves
    assert build_page(made.path).made == 1
    assert gone.stat().st_size > 0
    assert len(list(page.files.glob("run-*.js"))) == 1


def test_a_page_that_shows_everything_is_current(made: MadeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    made.add("a")
    out = made.write()
    assert not building.is_current(out)
    build_page(out, Building(hurry=lambda: True))
    assert not building.is_current(out)  # it lacks small pictures
    build_page(out)
    assert building.is_current(out)
    plain = building._part
    monkeypatch.setattr(building, "_part", lambda name: plain(name) + b" ")
    assert not building.is_current(out)  # of another version
    monkeypatch.undo()
    with (out / RESULTS).open("ab") as file:
        file.write(b"\n")
    assert not building.is_current(out)
    build_page(out)
    (out / PAGE_FILES).rename(out / "away")
    assert not building.is_current(out)
    (out / PAGE).write_text("mine")
    assert not building.is_current(out)


def test_pictures_that_nobody_shows_go(made: MadeFolder) -> None:
    made.add("a")
    made.add("b")
    build_page(made.write())
    strange = ReadPage(made.path).files / "pictures" / "mine.jpg"
    strange.write_bytes(b"mine")
    del made.records[1]
    build_page(made.write())
    assert len(ReadPage(made.path).pictures()) == 5
    assert strange.read_bytes() == b"mine"


def test_what_a_killed_builder_left_goes(made: MadeFolder) -> None:
    made.add("a")
    build_page(made.write())
    left = [f"{PAGE_FILES}/{place}.0123456789abcdef.joyedit-tmp" for place in ("", "pictures/")]
    for name in left:
        (made.path / name).write_bytes(b"half")
    build_page(made.path)
    assert not any((made.path / name).exists() for name in left)


def test_the_size_and_the_fit_of_a_result(made: MadeFolder) -> None:
    made.add("a", size=(60, 40), **{"bucket": [32, 48]})
    made.records[-1] |= {"size": [40, 60], "fit": {"mode": "stretch", "lost": 0.0}}
    made.records[-1]["settings"] |= {"size": "source", "fit": "stretch"}
    made.add("b")
    build_page(made.write())
    page = ReadPage(made.path)
    assert (page.row("a")["size"], page.row("a")["fit"]) == ([60, 40], "fill")
    assert page.more("a")["fit"][0] == ["mode", "stretch"]
    assert ["size", "source"] in page.more("a")["settings"]
    assert "fit" not in page.row("b")


def test_inputs_that_went_or_changed(made: MadeFolder) -> None:
    paths = [Path(made.add(name)["inputs"][0]) for name in ("gone", "changed", "copied")]
    build_page(made.write())
    before = ReadPage(made.path)
    paths[0].unlink()
    Image.new("RGB", (48, 32), "red").save(paths[1])
    os.utime(paths[2], ns=(1, 1))
    build_page(made.path)
    page = ReadPage(made.path)
    told = [page.more(name)["inputs"][0] for name in ("gone", "changed", "copied")]
    assert [one["off"] for one in told] == ["it is gone", "it has changed since", ""]
    assert [one["view"] for one in told] == [before.more(n)["inputs"][0]["view"] for n in ("gone", "changed", "copied")]
    assert told[0]["link"] == ""
    assert page.row("gone")["before"] == before.row("gone")["before"]


def test_inputs_that_changed_before_the_first_page(made: MadeFolder) -> None:
    path = Path(made.add("a")["inputs"][0])
    out = made.write()
    Image.new("RGB", (60, 60), "red").save(path)
    build_page(out)
    (told,) = ReadPage(out).more("a")["inputs"]
    assert told["off"] == "it has changed since"
    assert told["view"]


def test_results_that_went_or_changed(made: MadeFolder) -> None:
    for name in ("gone", "changed", "link", "folder"):
        made.add(name)
    for name in ("gone", "link", "folder"):
        (made.path / f"{name}.png").unlink()
    (made.path / "link.png").symlink_to(made.inputs / "in0.png")
    (made.path / "folder.png").mkdir()
    Image.new("RGB", (90, 90), "red").save(made.path / "changed.png")
    made.add("outside", output="../in/in0.png")
    made.add("nul", output="a\0b")
    build_page(made.write())
    page = ReadPage(made.path)
    assert {row["id"]: row.get("off") for row in page.rows} == {
        "gone": "its picture is gone",
        "changed": "its picture is another one than was recorded",
        "link": "its picture is no plain file",
        "folder": "its picture is no plain file",
        "outside": "its record names no file of this folder",
        "nul": "its record names no file of this folder",
    }
    assert [row["id"] for row in page.rows if row.get("out")] == ["changed"]


def test_every_kind_of_picture_has_a_copy(made: MadeFolder) -> None:
    import numpy as np

    pytest.importorskip("pillow_heif")
    deep = Image.fromarray(np.linspace(0, 65535, 64 * 64, dtype=np.uint16).reshape(64, 64))
    kinds = {"deep.png": deep, "alpha.webp": Image.new("RGBA", (40, 40), (0, 0, 255, 128))}
    kinds |= {"plain.tif": Image.new("CMYK", (40, 40)), "photo.heic": Image.new("RGB", (40, 40), "red")}
    from pillow_heif import register_heif_opener

    register_heif_opener()
    for name, image in kinds.items():
        path = made.inputs / name
        image.save(path)
        made.add(name, inputs=[str(path)], inputs_seen=[seen(path)])
    made.add("strip", size=(4000, 2))
    build_page(made.write())
    page = ReadPage(made.path)
    for row in page.rows:
        with Image.open(page.files / row["before"]) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")


def test_broken_pictures_are_named(made: MadeFolder) -> None:
    path = made.inputs / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nno more")
    made.fail("a", inputs=[str(path)])
    made.fail("pipe", inputs=["/dev/zero"])
    made.fail("number", inputs=[7, None])
    built = build_page(made.write())
    page = ReadPage(made.path)
    assert built.left == 0
    assert page.more("a")["inputs"][0]["off"] == "it cannot be shown (truncated_picture)"
    assert page.more("pipe")["inputs"][0]["off"] == "it is gone"
    assert "inputs" not in page.more("number")


def test_several_references(made: MadeFolder) -> None:
    made.add("x")
    record = made.add("both")
    record["inputs"] = [made.records[0]["inputs"][0], *record["inputs"]]
    record["inputs_seen"] = [made.records[0]["inputs_seen"][0], *record["inputs_seen"]]
    build_page(made.write())
    page = ReadPage(made.path)
    assert [one["name"] for one in page.more("both")["inputs"]] == ["in0.png", "in1.png"]
    assert page.row("both")["before"][-28:] == page.more("both")["inputs"][1]["view"][-28:]


def test_pictures_in_lines_are_taken_from_the_source(tmp_path: Path) -> None:
    import base64
    import hashlib
    import io

    file = io.BytesIO()
    Image.new("RGB", (40, 30), "green").save(file, "PNG")
    data = file.getvalue()
    source = tmp_path / "m.jsonl"
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    source.write_text(json.dumps({"image": uri, "instruction": "x", "id": "a"}) + "\n")
    made = MadeFolder(tmp_path)
    digest = hashlib.sha256(data).hexdigest()
    address = f"data:image/png;sha256={digest}"
    made.add("a", inputs=[address], inputs_seen=[[digest, len(data), 0, 0]])
    made.add("b", inputs=["data:image/png;sha256=" + "1" * 64])
    asked = {"path": str(source), "format": "png", "limit": None, "keys": []}
    build_page(made.write({"asked": asked}))
    page = ReadPage(made.path)
    assert page.more("a")["inputs"][0]["name"] == f"data-{digest[:12]}"
    assert (page.files / page.more("a")["inputs"][0]["view"]).is_file()
    assert page.more("b")["inputs"][0]["off"] == "it stands in its line of the source"
    source.unlink()
    assert build_page(made.path).made == 0
    assert (
        "off" not in ReadPage(made.path).more("a")["inputs"][0] or not ReadPage(made.path).more("a")["inputs"][0]["off"]
    )


@pytest.mark.parametrize("kind", ["torn", "foreign", "version"])
def test_journals_that_are_not_whole(made: MadeFolder, kind: str) -> None:
    made.add("a")
    out = made.write()
    more = {
        "torn": b'{"id": "b", "status": "o',
        "foreign": b'not json\n[1, 2]\n{"id": 3, "status": "ok"}\n',
        "version": b'{"id": "b", "status": "ok", "output": 3, "inputs": {}, "settings": [], "seconds": 4, '
        b'"error": "x", "bucket": "large", "drift": {"dx": "a"}, "source": 7, "notes": 5, "inputs_seen": 1, '
        b'"columns": [1]}\n',
    }[kind]
    with (out / RESULTS).open("ab") as file:
        file.write(more)
    before = (out / RESULTS).read_bytes()
    build_page(out)
    assert [row["id"] for row in ReadPage(out).rows] == ["a", *(["b"] if kind == "version" else [])]
    assert (out / RESULTS).read_bytes() == before


def test_no_output_folder(tmp_path: Path) -> None:
    for path, message in ((tmp_path, "this is no output folder of joyedit"), (tmp_path / "none", "no such folder")):
        with pytest.raises(UsageError, match=message):
            build_page(path)
    assert list(tmp_path.iterdir()) == []


def test_a_strangers_page_stays(made: MadeFolder) -> None:
    made.add("a")
    out = made.write()
    (out / PAGE).write_text("<p>mine</p>")
    with pytest.raises(UsageError, match=r"is not from joyedit and stays as it is: joyedit view .* --page look\.html"):
        build_page(out)
    assert (out / PAGE).read_text() == "<p>mine</p>"
    assert not (out / PAGE_FILES).exists()
    built = build_page(out, Building(place=PagePlace.named("look.html")))
    assert built.path == out / "look.html"
    assert len(ReadPage(out, "look.files", "look.html").rows) == 1
    assert (out / PAGE).read_text() == "<p>mine</p>"
    assert list(verify(out, Counts())) != []  # index.html is a name of joyedit; look.html is nobody's
    assert [one.file for one in verify(out, Counts()) if one.kind == "stray_file"] == ["look.html"]


def test_a_strangers_folder_stays(made: MadeFolder) -> None:
    made.add("a")
    out = made.write()
    (out / PAGE_FILES).mkdir()
    (out / PAGE_FILES / "x.css").write_text("mine")
    with pytest.raises(UsageError, match="holds files that are not from joyedit"):
        build_page(out)
    (out / PAGE_FILES / "x.css").unlink()
    build_page(out)  # an empty one is nobody's
    for kind in ("link", "file"):
        made = MadeFolder(out / kind)
        made.add("a")
        path = made.write() / PAGE_FILES
        path.symlink_to(out) if kind == "link" else path.write_text("x")
        with pytest.raises(UsageError, match="is not the folder of a page"):
            build_page(made.path)


def test_a_link_in_the_place_of_the_page_is_not_followed(made: MadeFolder) -> None:
    made.add("a")
    out = made.write()
    target = made.inputs / "precious.html"
    target.write_text("precious")
    (out / PAGE).symlink_to(target)
    with pytest.raises(UsageError, match="is not from joyedit"):
        build_page(out)
    (out / PAGE).unlink()
    build_page(out)
    (out / PAGE_FILES / "pictures").rename(made.inputs / "elsewhere")
    (out / PAGE_FILES / "pictures").symlink_to(made.inputs / "elsewhere")
    for path in (made.inputs / "elsewhere").iterdir():
        path.unlink()
    built = build_page(out)
    assert "leads out of the output folder by the link" in str(built.error)
    assert list((made.inputs / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["look.png", "a/look.html", "../look.html", "look", "report.html/x", "index.HTML", ""])
def test_names_that_no_page_can_have(name: str) -> None:
    with pytest.raises(UsageError, match=r"--page .*: the name .* \(take one such as look\.html\)"):
        PagePlace.named(name)


def test_a_second_builder_waits_its_turn(made: MadeFolder) -> None:
    made.add("a")
    out = made.write()
    tried: list[str] = []

    def hurry() -> bool:
        if not tried:
            tried.append("")
            with pytest.raises(OutputError, match="another joyedit makes this page now"):
                build_page(out)
        return False

    build_page(out, Building(hurry=hurry))
    assert tried


def test_in_a_hurry_there_are_no_new_copies(made: MadeFolder) -> None:
    made.add("a")
    built = build_page(made.write(), Building(hurry=lambda: True))
    assert (built.items, built.made, built.left) == (1, 0, 4)
    page = ReadPage(made.path)
    assert page.run["left_pictures"] == 4
    assert page.row("a")["out"] == "a.png"
    assert build_page(made.path).made == 4


def test_a_stopped_builder_leaves_the_older_page(made: MadeFolder) -> None:
    made.add("a")
    build_page(made.write())
    before = ReadPage(made.path)
    made.add("b")
    asked: list[int] = []
    with pytest.raises(StoppedPage):
        build_page(made.write(), Building(stopped=lambda: bool(asked.append(1) or len(asked) > 3)))
    after = ReadPage(made.path)
    assert after.html == before.html
    assert [row["id"] for row in after.rows] == ["a"]


def test_a_full_disk_costs_pictures_and_not_the_page(made: MadeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from joyedit.job.results.output_folder import OutputFolder

    made.add("a")
    out = made.write()
    plain = OutputFolder.write_bytes

    def full(self: OutputFolder, relative: str, data: Any, **more: Any) -> Path:
        if relative.endswith(".jpg"):
            raise OutputError(f"cannot write {relative!r}: No space left on device")
        return plain(self, relative, data, **more)

    monkeypatch.setattr(OutputFolder, "write_bytes", full)
    built = build_page(out)
    assert "No space left on device" in str(built.error)
    assert built.left > 0
    assert ReadPage(out).row("a")["out"] == "a.png"


def test_a_picture_that_never_comes_holds_nothing_up(made: MadeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from joyedit.job.page import pictures

    monkeypatch.setattr(pictures, "GRACE", 0.2)
    waiting = threading.Event()
    plain = pictures.load_picture

    def slow(picture: Any, limit: int) -> Any:
        if str(picture).endswith("in0.png"):
            waiting.wait(60)
        return plain(picture, limit)

    monkeypatch.setattr(pictures, "load_picture", slow)
    for name in ("a", "b", "c"):
        made.add(name)
    asked: list[int] = []
    built = build_page(made.write(), Building(hurry=lambda: bool(asked.append(1) or len(asked) > 40), workers=1))
    assert built.items == 3
    assert ReadPage(made.path).row("a")["off"] == "not looked at"
    asked.clear()
    with pytest.raises(StoppedPage):
        build_page(made.path, Building(stopped=lambda: bool(asked.append(1) or len(asked) > 8), workers=1))
    waiting.set()


def test_an_unreadable_look_is_one_item(made: MadeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from joyedit.job.page import pictures

    made.add("a")
    made.add("b")

    def fault(self: Any, record: dict[str, Any], copies: Any) -> Any:
        if record["id"] == "a":
            raise RuntimeError("odd")
        return ()

    monkeypatch.setattr(pictures.Pictures, "_inputs", fault)
    build_page(made.write())
    assert ReadPage(made.path).row("a")["off"] == "not shown: odd"
    assert ReadPage(made.path).row("b")["out"] == "b.png"


def test_many_items_are_cut_into_files(made: MadeFolder) -> None:
    first = made.add("0")
    made.records = [{**first, "id": str(number)} for number in range(MOST_ITEMS + 3)]
    made.records += [{**first, "id": f"long{number}", "instruction": "x" * 700_000} for number in range(4)]
    build_page(made.write())
    page = ReadPage(made.path)
    assert page.run["counts"] == [MOST_ITEMS, 6, 1]
    assert [row["id"] for row in page.rows] == [record["id"] for record in made.records]
    assert page.html.count("items-") == 3


def test_later_files_are_loaded_by_the_page(made: MadeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joyedit.job.page.data_files.MOST_ITEMS", 1)
    first = made.add("0")
    made.records = [{**first, "id": str(number)} for number in range(15)]
    build_page(made.write())
    assert ReadPage(made.path).html.count("items-") == 10
    assert len(list(ReadPage(made.path).files.glob("items-*.js"))) == 15


def test_memory_does_not_hold_the_items(made: MadeFolder) -> None:
    """What a builder keeps of an item: a few hundred bytes, not its record of 20 kB."""
    first = made.add("0")

    def peak(count: int) -> int:
        made.records = [{**first, "id": f"{n:06d}", "instruction": f"{n}" + "x" * 20_000} for n in range(count)]
        made.write()
        made.records = []
        tracemalloc.start()
        build_page(made.path, Building(workers=1))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(400), peak(2000)
    assert (many - few) / 1600 < 1500


def test_views_are_bounded(made: MadeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joyedit.job.page.pictures.MOST_VIEWS", 2)
    for name in ("a", "b", "c"):
        made.add(name)
    build_page(made.write(), Building(workers=1))
    page = ReadPage(made.path)
    assert [bool(page.more(name)["inputs"][0]["view"]) for name in ("a", "b", "c")] == [True, True, False]
    assert page.more("c")["inputs"][0]["link"] == "../in/in2.png"
    assert build_page(made.path, Building(workers=1)).made == 0  # those that are there count


def test_the_parts_are_in_one_script(made: MadeFolder) -> None:
    parts = {path.name for path in (Path(building.__file__).parent / "parts").iterdir()}
    named = {*building._script_names(), *building._STYLES, building._HTML}
    assert parts == named


def test_verify_knows_the_page(made: MadeFolder) -> None:
    made.add("a")
    build_page(made.write())
    assert [one.kind for one in verify(made.path, Counts())] == []
