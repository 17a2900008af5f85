"""The page in a real browser, opened from the disk: what it shows, its keys, its filters, stars and exports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.job.own_files import PAGE_FILES
from joyedit.job.source.sources import SourceOptions, open_source
from joyedit.job.spec import EditItem
from support.pages import HOSTILE_NAMES, HOSTILE_TEXTS, MadeFolder, seen, settings

Show = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
WIDTH = "(one) => one.decode().then(() => one.naturalWidth)"
LOADED = """async () => {
  const images = () => [...document.querySelectorAll('.card img[src]')];
  while (images().length < 21) await new Promise((resolve) => setTimeout(resolve, 20));
  const found = await Promise.all(images().map((one) => one.decode().then(() => one.naturalWidth)));
  return found.filter(Boolean).length;
}"""
"""How many pictures of the grid are there, once it has asked for some."""


def many(made: MadeFolder, count: int) -> MadeFolder:
    """So many items over ten pictures; every hundredth failed, every fiftieth was slow."""
    ten = [made.add(f"p{number}") for number in range(10)]
    for record in ten:
        record["seconds"] = {"denoise": 1.0}
    made.records = []
    for number in range(count):
        record = {**ten[number % 10], "id": f"item-{number}", "instruction": f"edit {number % 7}"}
        if number % 100 == 3:
            record |= {"status": "failed", "output": None, "planned_output": "x.png", "output_sha256": None}
            record["error"] = {"code": "not_finite" if number % 200 == 3 else "out_of_memory", "message": "it failed"}
        if number % 50 == 7:
            record["seconds"] = {"denoise": 9.0}
        made.records.append(record)
    return made


def test_two_thousand_items(made: MadeFolder, show: Show) -> None:
    many(made, 2000)
    for number, text in enumerate(HOSTILE_TEXTS):
        made.records[number]["instruction"] = text
    tab = show(made, {"state": "complete", "items": 2000, "left": 0, "stages": {"denoise": 5.0}})
    assert tab.count() == "2,000 items"
    assert tab.ids()[:3] == ["item-0", "item-1", "item-2"]
    assert "1,980 done" in tab.text("#summary")
    assert "20 failed" in tab.text("#summary")
    assert tab.page.evaluate("document.querySelectorAll('*').length") < 2000
    tab.keys("End")
    assert tab.active() == "item-1999"
    assert tab.ids()[-1] == "item-1999"
    assert tab.page.evaluate("document.querySelectorAll('*').length") < 2000
    tab.page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
    tab.page.locator("text=item-1000").first.wait_for()
    assert tab.page.evaluate(LOADED) > 20
    tab.page.fill("#query", "hurt")
    tab.page.locator("#count", has_text="6 of 2,000 items").wait_for()


@pytest.mark.parametrize("size", [(1400, 900), (390, 844)])
def test_hostile_texts_are_text(tmp_path: Path, show: Show, size: tuple[int, int]) -> None:
    made = MadeFolder(tmp_path, "<img src=x onerror=window.hurt=1> #1 100%")
    for number, text in enumerate(HOSTILE_TEXTS):
        made.add(f"text{number}", instruction=text, notes=[text], columns={text[:90]: text}, recipe=text)
        made.fail(f"fail{number}", error={"code": text[:50], "message": text}, settings=settings(model=text))
    for name in HOSTILE_NAMES:
        made.add(name)
    tab = show(made, {"error": HOSTILE_TEXTS[0], "model": HOSTILE_TEXTS[1], "notes": [*HOSTILE_TEXTS]}, viewport={
        "width": size[0], "height": size[1],
    })  # fmt: skip
    assert tab.page.title() == made.path.name
    tab.keys("i", "Enter")
    for _ in made.records:
        tab.page.locator("#details dl").first.wait_for()
        assert tab.page.evaluate("document.querySelectorAll('#details script, #details img').length") == 0
        tab.keys("ArrowRight")
    tab.keys("Escape")
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.page.fill("#query", "text0")
    tab.page.locator("#count", has_text="1 of").wait_for()
    assert tab.text(".card-text") == HOSTILE_TEXTS[0]


def test_every_name_leads_to_its_picture(made: MadeFolder, show: Show) -> None:
    for name in HOSTILE_NAMES:
        made.add(name, size=(64, 64))
    tab = show(made)
    tab.keys("Enter")
    for _ in HOSTILE_NAMES:
        tab.page.locator("#details a").first.wait_for()
        for kind in ("after", "before"):
            image = tab.page.locator(f"#compare-{kind}")
            assert image.is_visible()
            assert image.evaluate(WIDTH) == 64
        tab.keys("ArrowRight")


def test_keys(made: MadeFolder, show: Show) -> None:
    for number in range(23):
        made.add(f"{number:02d}")
    tab = show(made, viewport={"width": 1100, "height": 700})
    columns = tab.page.evaluate("document.querySelector('.row').children.length")
    assert tab.active() == "00"
    tab.keys("ArrowRight", "ArrowDown")
    assert tab.active() == f"{columns + 1:02d}"
    tab.keys("ArrowUp", "ArrowLeft", "End")
    assert tab.active() == "22"
    tab.keys("ArrowDown", "Home", "PageDown", "PageUp")
    assert tab.active() == "00"
    tab.keys("s", "ArrowRight", "Space")
    assert tab.starred() == 2
    tab.keys("s")
    assert tab.starred() == 1
    tab.keys("?")
    assert tab.page.locator("#help").is_visible()
    tab.keys("Escape", "f")
    assert tab.page.evaluate("document.activeElement.id") == "query"
    tab.page.keyboard.type("edit 7s")  # the letters are text here
    tab.page.locator("#empty").wait_for()
    tab.keys("Escape")
    tab.page.locator("#count", has_text="23 items").wait_for()
    assert tab.page.evaluate("document.activeElement.id") == "grid"
    assert tab.starred() == 1
    tab.keys("b")
    assert tab.page.evaluate("document.body.className") == "show-before"
    tab.keys("b", "i")
    assert tab.page.locator("#figures").is_visible()
    tab.keys("i", "e")
    assert tab.page.locator("#export").is_visible()


def test_keys_of_the_viewer(made: MadeFolder, show: Show) -> None:
    for number in range(3):
        made.add(f"{number}")
    tab = show(made)
    tab.keys("ArrowRight", "Enter")
    assert tab.text("#viewer-id") == "1"
    assert tab.text("#viewer-place") == "2 / 3"
    tab.keys("ArrowRight", "ArrowRight")
    assert tab.text("#viewer-id") == "2"
    tab.keys("s")
    assert tab.page.locator("#viewer-star").get_attribute("aria-pressed") == "true"
    tab.keys("ArrowLeft", "ArrowUp", "ArrowDown")
    assert tab.text("#viewer-id") == "1"
    tab.keys("[", "[")
    assert tab.page.locator("#compare-handle").get_attribute("aria-valuenow") == "40"
    tab.keys("]")
    assert tab.page.locator("#compare-handle").get_attribute("aria-valuenow") == "45"
    tab.page.locator("#compare-handle").focus()
    tab.keys("ArrowRight")
    assert tab.page.locator("#compare-handle").get_attribute("aria-valuenow") == "47"
    assert tab.text("#viewer-id") == "1"
    tab.keys("z", "b")
    assert tab.page.locator("#viewer-zoom").get_attribute("aria-pressed") == "true"
    assert tab.page.locator("#compare.only-before").count() == 1
    width = tab.page.evaluate("document.querySelector('#compare').offsetWidth * devicePixelRatio")
    assert width == 48
    tab.keys("z", "b", "?", "Escape", "Escape")
    assert not tab.page.locator("#viewer").is_visible()
    assert tab.page.evaluate("document.activeElement.id") == "grid"
    assert tab.active() == "1"


def test_the_slider(made: MadeFolder, show: Show) -> None:
    made.add("a", size=(600, 400))
    tab = show(made)
    tab.page.locator(".card").click()
    box = tab.page.locator("#compare").bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 90)
    tab.page.mouse.up()
    tab.page.mouse.move(box["x"] + box["width"] - 9, box["y"] + 90)
    assert tab.page.locator("#compare-handle").get_attribute("aria-valuenow") == "25"
    assert abs(box["width"] / box["height"] - 1.5) < 0.02


def test_before_under_the_mouse(made: MadeFolder, show: Show) -> None:
    made.add("a", size=(600, 400))
    tab = show(made)
    before = tab.page.locator(".card .before")
    assert "/t-" in before.get_attribute("src")
    box = tab.page.locator(".pair").bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 40)
    assert tab.page.locator(".pair.scrub").count() == 1
    assert "/s-" in before.get_attribute("src")
    tab.page.mouse.move(5, 5)
    assert tab.page.locator(".pair.scrub").count() == 0


def test_filters(made: MadeFolder, show: Show) -> None:
    many(made, 400)
    made.records[11]["recipe"] = "camera"
    made.records[12]["drift"] = {"dx": 30.0, "dy": 40.0, "zoom": 1.0}
    made.records[13]["drift"] = {"dx": 0.5, "dy": 0.0, "zoom": 1.0}
    made.records[14]["drift"] = {"dx": 0.1, "dy": 0.0, "zoom": 1.0}
    made.records[15]["notes"] = ["alpha flattened on white"]
    made.records[16]["output_bytes"] = 1
    tab = show(made)
    for label, count in (("Slow", 8), ("Drift", 1), ("Changed", 1), ("With notes", 1)):
        chip = tab.page.get_by_role("button", name=label)
        chip.click()
        tab.page.locator("#count", has_text=f"{count} of 400 items").wait_for()
        assert chip.get_attribute("aria-pressed") == "true"
        chip.click()
        tab.page.locator("#count", has_text="400 items").wait_for()
    tab.page.select_option("[aria-label='Any recipe']", "camera")
    tab.page.locator("#count", has_text="1 of 400 items").wait_for()
    tab.keys("Escape")
    tab.page.locator("#grid").focus()
    tab.keys("Escape")
    tab.page.locator("#count", has_text="400 items").wait_for()
    tab.page.click("#states [data-state=failed]")
    assert tab.count() == "4 of 400 items"
    tab.page.select_option("[aria-label='Any failure']", "out_of_memory")
    assert tab.count() == "2 of 400 items"
    tab.page.click("#states [data-state=done]")
    assert tab.count() == "396 of 400 items"
    tab.page.fill("#query", "EDIT  item-12")
    tab.page.locator("#count", has_text="11 of 400 items").wait_for()
    assert tab.ids() == [f"item-{number}" for number in (12, *range(120, 130))]
    tab.page.fill("#query", "nothing has this")
    tab.page.locator("#clear").click()
    assert tab.count() == "400 items"


def test_failures_of_the_figures_are_a_filter(made: MadeFolder, show: Show) -> None:
    many(made, 300)
    tab = show(made, {"stages": {"load": 3.0, "denoise": 20.0, "write": 1.0}, "model": "joy", "notes": ["a note"]})
    tab.page.click("#figures-button")
    assert tab.page.locator("#figures svg").count() == 2
    assert tab.page.locator("#figures svg title").first.text_content() == (
        "Time by stage of the last run: load 3.00 s, denoise 20.0 s, write 1.00 s"
    )
    assert "a note" in tab.text("#figures")
    tab.page.locator(".code", has_text="not_finite").click()
    assert tab.count() == "2 of 300 items"


def test_sorting(made: MadeFolder, show: Show) -> None:
    for name, seconds in (("b10", 3.0), ("b9", 1.0), ("a", 2.0)):
        made.add(name, seconds={"denoise": seconds})
    made.fail("z")
    tab = show(made)
    assert tab.ids() == ["a", "b9", "b10", "z"]
    orders = {"run": ["b10", "b9", "a", "z"], "slow": ["z", "b10", "a", "b9"], "failed": ["z", "b10", "b9", "a"]}
    for name, ids in orders.items():
        tab.page.select_option("#sort", name)
        assert tab.ids() == ids, name


def test_stars_stay_and_are_exported(made: MadeFolder, show: Show) -> None:
    record = made.add("a#1", instruction='Say "hi"\n</script>')
    record["settings"] |= {"seed": 2**64 - 1, "steps": 33}
    more = made.add("two")
    more["inputs"] = [record["inputs"][0], *more["inputs"]]
    more["inputs_seen"] = [*record["inputs_seen"], *more["inputs_seen"]]
    made.add("line", inputs=["data:image/png;sha256=" + "0" * 64], inputs_seen=[])
    made.add("left")
    tab = show(made)
    tab.keys("s", "ArrowRight", "ArrowRight", "s", "ArrowRight", "s")
    assert tab.starred() == 3
    tab.open()
    assert tab.starred() == 3
    tab.keys("e")
    with tab.page.expect_download() as manifest:
        tab.page.click("#export-manifest")
    assert manifest.value.suggested_filename == "starred.jsonl"
    path = made.inputs.parent / "elsewhere" / "starred.jsonl"
    manifest.value.save_as(path)
    assert "2 lines are in starred.jsonl. Left out: line: its picture stands in its line" in tab.text("#export-note")
    source = open_source(str(path), SourceOptions(output=made.path))
    items = [item for item in source.items() if isinstance(item, EditItem)]
    source.check()
    assert [item.id for item in items] == ["a#1", "two"]
    assert (items[0].sampling.seed, items[0].sampling.steps) == (2**64 - 1, 33)
    assert items[0].instruction == 'Say "hi"\n</script>'
    assert [str(one) for one in items[1].images] == more["inputs"]
    tab.page.check("#export-work")
    assert tab.text("#export-command") == "joyedit run starred.jsonl --steps 60 --basesize 1024 --output keepers"
    with tab.page.expect_download() as manifest:
        tab.page.click("#export-manifest")
    lines = [json.loads(line) for line in Path(manifest.value.path()).read_text().splitlines()]
    assert all("steps" not in line and "basesize" not in line for line in lines)
    with tab.page.expect_download() as ids:
        tab.page.click("#export-ids")
    assert sorted(Path(ids.value.path()).read_text().split()) == ["a#1", "line", "two"]
    tab.page.click("#export-clear")
    assert tab.starred() == 0


def test_loras_are_exported(made: MadeFolder, show: Show) -> None:
    record = made.add("a", loras=[str(made.inputs / "my style.safetensors")])
    record["settings"]["lora"] = [{"file": "my style", "sha256": "0", "scale": 0.5}]
    tab = show(made)
    tab.keys("s", "e")
    with tab.page.expect_download() as manifest:
        tab.page.click("#export-manifest")
    line = json.loads(Path(manifest.value.path()).read_text())
    assert line["lora"] == [{"file": str(made.inputs / "my style.safetensors"), "scale": 0.5}]


def test_stars_where_nothing_is_kept(made: MadeFolder, show: Show) -> None:
    made.add("a")
    denied = (
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })"
    )
    tab = show(made, before=denied)
    assert "keeps no stars" in tab.text("#notice")
    tab.keys("s")
    assert tab.starred() == 1


def test_sweeps_stand_side_by_side(made: MadeFolder, show: Show) -> None:
    first = made.add("base")
    for guidance in (2.0, 4.0):
        for seed in (10, 9, 1):
            more = settings(seed=seed, guidance_scale=guidance)
            made.add(f"s{seed}g{guidance:g}", inputs=first["inputs"], instruction="one", settings=more)
    made.add("alone", instruction="another")
    tab = show(made)
    tab.keys("g")
    assert tab.count() == "6 of 8 items"
    assert tab.text(".row.head .muted") == "6 items, by seed and guidance"
    assert tab.page.locator(".head-row").all_inner_texts() == ["guidance 2", "guidance 4"]
    assert tab.ids() == ["seed 1", "seed 9", "seed 10"] * 2
    tab.keys("ArrowDown", "Enter")
    assert tab.text("#viewer-id") == "s1g4"
    tab.keys("Escape", "g")
    assert tab.count() == "8 items"


def test_no_sweeps_no_button(made: MadeFolder, show: Show) -> None:
    made.add("a")
    made.add("b")
    tab = show(made)
    assert not tab.page.locator("#sweep-button").is_visible()
    tab.keys("g")
    assert tab.count() == "2 items"


def test_several_references(made: MadeFolder, show: Show) -> None:
    made.add("x", size=(60, 60))
    record = made.add("both", size=(90, 90))
    record["inputs"] = [made.records[0]["inputs"][0], *record["inputs"]]
    record["inputs_seen"] = [*made.records[0]["inputs_seen"], *record["inputs_seen"]]
    tab = show(made)
    tab.keys("Enter")
    buttons = tab.page.locator("#inputs button")
    buttons.first.wait_for()
    assert buttons.all_inner_texts() == ["1. in0.png", "2. in1.png"]
    assert tab.page.locator("#compare-before").evaluate(WIDTH) == 90
    buttons.first.click()
    assert tab.page.locator("#compare-before").evaluate(WIDTH) == 60
    assert buttons.first.get_attribute("aria-pressed") == "true"
    tab.keys("ArrowRight")
    assert tab.text("#viewer-id") == "x"
    assert not tab.page.locator("#inputs").is_visible()


def test_what_is_gone_is_said(made: MadeFolder, show: Show) -> None:
    for name in ("result", "small", "text"):
        made.add(name)
    made.records[2] |= {"inputs": [], "inputs_seen": []}
    tab = show(made)
    (made.path / "result.png").unlink()
    for path in (made.path / PAGE_FILES / "pictures").iterdir():
        path.unlink()
    tab.page.goto("about:blank")
    tab.open()
    tab.page.locator(".nothing", has_text="picture gone").first.wait_for()
    tab.keys("Enter")
    tab.page.locator("#stage-message").wait_for()
    tab.faults = [fault for fault in tab.faults if "ERR_FILE_NOT_FOUND" not in fault]


def test_a_failed_item(made: MadeFolder, show: Show) -> None:
    path = made.inputs / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nno more")
    made.fail("a", inputs=[str(path)], error={"code": "truncated_picture", "message": f"{path}: it ends too early"})
    tab = show(made)
    assert tab.text(".card-text") == "broken.png: it ends too early"
    assert tab.text(".badge") == "truncated_picture"
    tab.keys("Enter")
    tab.page.locator("#details dl").first.wait_for()
    assert tab.text("#stage-message") == "There is no picture to show."
    assert "it cannot be shown (truncated_picture)" in tab.text("#details")


def test_items_come_in_files(made: MadeFolder, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joyedit.job.page.data_files.MOST_ITEMS", 40)
    tab = show(many(made, 2000))
    assert tab.count() == "2,000 items"
    assert tab.page.evaluate("document.querySelector('#sort').value") == "run"
    tab.keys("End", "Enter")
    tab.page.locator("#details dl").first.wait_for()
    assert tab.text("#viewer-id") == "item-1999"


def test_data_that_is_gone_is_said(made: MadeFolder, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joyedit.job.page.data_files.MOST_ITEMS", 10)
    tab = show(many(made, 200))
    (path,) = (made.path / PAGE_FILES).glob("items-*-15.js")
    path.unlink()
    tab.open()
    assert "A part of the data is gone" in tab.text("#notice")
    shutil.rmtree(made.path / PAGE_FILES / "pictures")
    for path in (made.path / PAGE_FILES).glob("run-*.js"):
        path.unlink()
    tab.page.reload()
    tab.page.locator("#notice", has_text="The data of this page is gone").wait_for()
    tab.faults = [fault for fault in tab.faults if "ERR_FILE_NOT_FOUND" not in fault]


def test_the_page_moves_with_its_folder(made: MadeFolder, show: Show) -> None:
    made.add("a")
    tab = show(made)
    moved = made.path.with_name("moved #1")
    made.path.rename(moved)
    shutil.rmtree(made.inputs)
    tab.out = moved
    tab.open()
    tab.keys("Enter")
    tab.page.locator("#details dl").first.wait_for()
    for kind in ("after", "before"):
        assert tab.page.locator(f"#compare-{kind}").evaluate(WIDTH) == 48


def test_what_a_reader_of_screens_hears(made: MadeFolder, show: Show) -> None:
    made.add("a", instruction="Make it blue.")
    made.fail("b")
    tab = show(made)
    grid = tab.page.get_by_role("listbox")
    card = tab.page.locator(f"#{grid.get_attribute('aria-activedescendant')}")
    assert card.get_attribute("aria-label") == "a, done. Make it blue."
    assert (card.get_attribute("aria-posinset"), card.get_attribute("aria-setsize")) == ("1", "2")
    assert card.get_attribute("aria-selected") == "false"
    tab.keys("s", "ArrowRight")
    assert card.get_attribute("aria-selected") == "true"
    card = tab.page.locator(f"#{grid.get_attribute('aria-activedescendant')}")
    assert card.get_attribute("aria-label").startswith("b, failed, truncated_picture.")
    unnamed = tab.page.evaluate(
        "[...document.querySelectorAll('button, select, input')].filter((one) => !one.closest('[hidden]')"
        " && !(one.textContent.trim() || one.getAttribute('aria-label') || one.labels?.length)).map((one) => one.id)"
    )
    assert unnamed == []


def test_light_and_dark(made: MadeFolder, show: Show) -> None:
    made.add("a")
    colours = {
        scheme: show(made, color_scheme=scheme).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    }
    assert colours == {"light": "rgb(250, 249, 247)", "dark": "rgb(20, 21, 23)"}


def test_a_page_that_goes_on_while_the_run_does(made: MadeFolder, show: Show) -> None:
    made.add("a", inputs_seen=[])
    tab = show(made, {"state": "running", "items": 1, "left": 9})
    assert "ended early" in tab.text("#summary")
    assert "9 left" in tab.text("#summary")
    assert seen(made.inputs / "in0.png")[1] > 0


def test_from_twenty_photos_to_the_page_in_one_command(made: MadeFolder, show: Show, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(20):
        Image.new("RGB", (96, 64), (number * 12, 90, 120)).save(photos / f"photo {number}.jpg")
    command = ["run", "photos", "-p", "Make it night.", "-m", "fake", "--basesize", "256", "-o", "edited"]
    environment = {**os.environ, "JOYEDIT_FAKE": "1", "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "joyedit", *command]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made.add("first")
    tab = show(made)
    tab.out = tmp_path / "edited"
    tab.open()
    assert tab.count() == "20 items"
    assert tab.page.title() == "edited"
    assert "20 done" in tab.text("#summary")
    assert tab.page.evaluate(LOADED) == 40
    tab.keys("i")
    assert tab.page.locator("#figures svg").count() == 2
