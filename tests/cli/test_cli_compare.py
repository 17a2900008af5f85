"""`joyedit compare A B`: what is the same, what differs, and by what; the table, JSON, the page, exit codes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command
from PIL import Image

from joyedit.job.compare.compare import compare, pair_of
from joyedit.job.compare.pairs import Folders
from support.pages import HOSTILE_TEXTS, MadeFolder, ReadPage

FAKE = ("-m", "fake", "--basesize", "256", "--no-page", "-q")


def rows(text: str) -> dict[str, str]:
    """The table by label; rows without one belong to the row above."""
    found: dict[str, str] = {}
    width = max(line.index("  ") for line in text.splitlines() if line[:1] not in (" ", "") and "  " in line)
    label = ""
    for line in text.splitlines():
        label = line[:width].strip() or label
        told = line[width:].strip()
        found[label] = f"{found[label]}\n{told}" if label in found else told
    return found


@pytest.fixture
def runs(joyedit: Command, pictures: Path) -> Path:
    """Two runs: one picture is the same, one differs, one has another size, others are on one side only."""
    source = str(pictures / "a.png")
    lines = [
        {"image": source, "instruction": "x", "id": "same"},
        {"image": source, "instruction": "x", "id": "seed"},
        {"image": source, "instruction": "x", "id": "size"},
        {"image": source, "instruction": "x", "id": "bad"},
        {"image": source, "instruction": "x", "id": "gone"},
    ]
    Path("a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, {**lines[0], "id": "a"}]))
    lines[1]["seed"], lines[2]["size"], lines[3]["instruction"] = 7, "60x60", "FAIL-NAN"  # type: ignore[assignment]
    Path("b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, {**lines[0], "id": "b"}]))
    assert joyedit("run", "a.jsonl", *FAKE, "-o", "A").code == 0
    assert joyedit("run", "b.jsonl", *FAKE, "-o", "B").code == 3
    Path("B/gone.png").unlink()
    return Path()


def test_the_table(joyedit: Command, runs: Path) -> None:
    ended = joyedit("compare", "A", "B")
    assert (ended.code, ended.err) == (0, "")
    told = rows(ended.out)
    for label, text in {
        "A": "A (6 items)", "B": "B (6 items)", "in both": "5", "identical": "1", "different": "1",
        "other size": "1 (not measured)", "not readable": "1", "failed in B": "1", "only in A": "1", "only in B": "1",
        "seed": "42 in A, 7 in B (1 of 5 items)", "size": "input in A, 60x60 in B (1 of 5 items)",
        "instruction": "one text in A, another in B (1 of 5 items)",
    }.items():  # fmt: skip
        assert told[label] == text, label
    assert told["worst"].endswith("dB  seed")
    assert told["differ in seed"].startswith("1 item: PSNR median ")
    assert told["differ in no setting"] == "1 item: PSNR median identical, worst 5% identical"


def test_figures_are_those_of_the_pixels(joyedit: Command, runs: Path) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    import numpy as np

    ended = joyedit("compare", "A", "B", "--json", "c.json")
    assert ended.out.splitlines()[-1] == "c.json"
    found = json.loads(Path("c.json").read_text())
    items = {item["id"]: item for item in found["items"]}
    assert found["items"][0]["id"] == "seed"  # the worst first
    one, other = (np.asarray(Image.open(f"{side}/seed.png").convert("RGB")) for side in "AB")
    assert items["seed"]["psnr"] == pytest.approx(metrics.peak_signal_noise_ratio(one, other), abs=1e-5)
    wanted = metrics.structural_similarity(one, other, channel_axis=2)
    assert items["seed"]["ssim"] == pytest.approx(wanted, abs=1e-5)
    assert items["same"] == {"id": "same", "state": "identical", "psnr": None, "ssim": 1.0}
    assert {name: item["state"] for name, item in items.items()} == {
        "seed": "different", "size": "other_size", "gone": "unreadable", "bad": "failed_b", "a": "only_a",
        "b": "only_b", "same": "identical",
    }  # fmt: skip
    assert found["settings"]["seed"] == [{"a": "42", "b": "7", "items": 1}]
    assert found["psnr"]["worst"] == items["seed"]["psnr"]
    printed = joyedit("compare", "A", "B", "--json", "-")
    assert json.loads(printed.out) == found
    assert joyedit("compare", "A", "B", "--json", "c.json").code == 0  # its own file again


def test_pixels_count_and_not_files(joyedit: Command, pictures: Path) -> None:
    """Other metadata, another format: the pictures are identical."""
    assert joyedit("run", pictures, *FAKE, "-p", "x", "-o", "A").code == 0
    assert joyedit("run", pictures, *FAKE, "-p", "x", "-o", "B", "--format", "webp", "--quality", "100").code == 0
    told = rows(joyedit("compare", "A", "A").out)
    assert told["identical"] == "3"
    Path("C").mkdir()
    lines = []
    for line in Path("A/results.jsonl").read_text().splitlines():
        record = json.loads(line)
        name = record["output"].replace(".png", ".tiff")
        Path("C", name).parent.mkdir(exist_ok=True)
        Image.open(Path("A", record["output"])).save(Path("C", name))
        lines.append(json.dumps({**record, "output": name, "output_sha256": "0" * 64}))
    Path("C/results.jsonl").write_text("\n".join(lines) + "\n")
    assert rows(joyedit("compare", "A", "C").out)["identical"] == "3"
    assert rows(joyedit("compare", "A", "B").out)["in both"] == "3"


@pytest.mark.parametrize(("limit", "code"), [("1", 3), ("200", 3)])
def test_for_ci(joyedit: Command, runs: Path, limit: str, code: int) -> None:
    ended = joyedit("compare", "A", "B", "--fail-below", limit)
    assert ended.code == code  # what cannot be compared fails too
    assert "or not comparable" in ended.err
    assert joyedit("compare", "A", "A", "--fail-below", limit).code == 0


def test_below_a_limit(joyedit: Command, pictures: Path) -> None:
    for seed in ("1", "2"):
        assert joyedit("run", pictures / "a.png", *FAKE, "-p", "x", "--seed", seed, "-o", seed).code == 0
    psnr = float(rows(joyedit("compare", "1", "2").out)["PSNR"].split()[1])
    assert joyedit("compare", "1", "2", "--fail-below", str(psnr - 1)).code == 0
    ended = joyedit("compare", "1", "2", "--fail-below", str(psnr + 1))
    assert (ended.code, ended.messages) == (3, [f"1 item is below {psnr + 1:g} dB, or not comparable"])


def test_the_page(joyedit: Command, runs: Path) -> None:
    ended = joyedit("compare", "A", "B", "--page", "cmp.html")
    assert ended.code == 0
    assert rows(ended.out)["page"] == "cmp.html"
    page = ReadPage(Path(), "cmp.files", "cmp.html")
    assert page.rows[0]["id"] == "seed"
    row = page.row("seed")
    assert {"si", "sa", "sb", "sd", "vd", "a", "b", "in", "psnr", "ssim"} <= set(row)
    for key in ("si", "sa", "sb", "sd", "vd"):
        assert Path("cmp.files", row[key]).is_file()
    assert Path(row["a"]).is_file()
    assert "sd" not in page.row("same")
    assert page.row("size")["state"] == "other_size"
    assert page.run["states"]["identical"] == 1
    before = {path.name: path.stat().st_mtime_ns for path in Path("cmp.files/pictures").iterdir()}
    assert joyedit("compare", "A", "B", "--page", "cmp.html").code == 0
    assert {path.name: path.stat().st_mtime_ns for path in Path("cmp.files/pictures").iterdir()} == before
    assert len(list(Path("cmp.files").glob("run-*.js"))) == 1
    assert joyedit("compare", "A", "B", "--page", "folder").code == 0
    assert Path("folder/index.html").is_file()
    assert joyedit("verify", "A").code == 0  # nothing was written there


def test_what_stays(joyedit: Command, runs: Path) -> None:
    assert joyedit("view", "A", "--no-open").code == 0
    Path("mine.html").write_text("mine")
    Path("mine.json").write_text('{"mine": 1}')
    Path("other.files").mkdir()
    Path("other.files/mine").write_text("mine")
    for argv, told in (
        (("--page", "A"), "is another page, and stays"),
        (("--page", "A/index.html"), "is another page, and stays"),
        (("--page", "mine.html"), "is another page, and stays"),
        (("--page", "other.html"), "is not from joyedit, and stays"),
        (("--page", "mine.json"), "is no folder"),
        (("--json", "mine.json"), "is no comparison"),
        (("--json", "A/report.json"), "is no comparison"),
        (("--json", "A"), "this is a folder"),
        (("--fail-below", "0"), "--fail-below must be a number of dB above 0"),
        (("--fail-below", "nan"), "--fail-below must be a number of dB above 0"),
    ):
        ended = joyedit("compare", "A", "B", *argv)
        assert ended.code == 2, argv
        assert told in ended.err, argv
    assert Path("mine.html").read_text() == "mine"
    assert json.loads(Path("A/report.json").read_text())["state"] == "complete"
    for folders, told in (
        (("A", "none"), "none: no such folder"),
        (("pictures", "B"), "pictures: this is no output folder"),
    ):
        ended = joyedit("compare", *folders)
        assert (ended.code, told in ended.err) == (2, True)


def test_a_full_disk(joyedit: Command, runs: Path) -> None:
    from joyedit.job import failpoints

    try:
        failpoints.arm("file.create:2:enospc")
        ended = joyedit("compare", "A", "B", "--page", "cmp.html")
    finally:
        failpoints.arm(None)
    assert ended.code in (0, 1)
    assert "No space left on device" in ended.err


def test_without_lpips(joyedit: Command, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    ended = joyedit("compare", "A", "B", "--lpips")
    assert ended.code == 0
    assert ended.messages == ['note: LPIPS is left out: it needs an extra (pip install "joyedit[lpips]")']
    assert "LPIPS" not in ended.out


def test_a_distance_is_a_column(joyedit: Command, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "joyedit.runtime.perceptual.lpips_distance", lambda: (lambda one, other: abs(one.image.width - 99) / 4, "")
    )
    ended = joyedit("compare", "A", "B", "--lpips", "--json", "c.json")
    assert rows(ended.out)["LPIPS"] == "median 0.2500, worst 5% 0.2500"
    items = {item["id"]: item for item in json.loads(Path("c.json").read_text())["items"]}
    assert items["seed"]["lpips"] == 0.25
    assert "lpips" not in items["size"]


def test_shards_and_hostile_records(joyedit: Command, pictures: Path, tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        assert joyedit("run", pictures, *FAKE, "-p", "x", "-o", "A", "--shard", shard).code == 0
    assert joyedit("run", pictures, *FAKE, "-p", "x", "-o", "B").code == 0
    assert rows(joyedit("compare", "A", "B").out)["identical"] == "3"
    made, other = MadeFolder(tmp_path / "x"), MadeFolder(tmp_path / "y")
    for number, text in enumerate(HOSTILE_TEXTS):
        for one in (made, other):
            one.add(f"a{number}", instruction=text, settings={"seed": text, "odd": [text]})
    for one, name in ((made, "../../x.png"), (other, "/etc/passwd")):
        one.add("outside", output=name, inputs=[3, "/none"], settings="odd")
        one.fail("bad", error="odd")
    ended = joyedit("compare", made.write(), other.write(), "--page", "cmp.html", "--json", "c.json")
    assert ended.code == 0
    items = {item["id"]: item["state"] for item in json.loads(Path("c.json").read_text())["items"]}
    assert (items["outside"], items["bad"]) == ("unreadable", "failed_both")
    assert "window.hurt" not in Path("cmp.html").read_text()
    assert not [name for name in os.listdir("cmp.files") if name.endswith(".tmp")]


def test_a_tiny_picture_has_no_ssim_and_a_hash_may_be_anything(tmp_path: Path) -> None:
    folders = []
    for side in "xy":
        made = MadeFolder(tmp_path / side)
        made.add("tiny", size=(5, 5))["size"] = [5, 5]
        made.add("large", size=(9, 9))["size"] = [9, 9]
        made.add("odd", size=(9, 9), output_sha256=["no", "text"])["size"] = [9, 9]
        folders.append(made.write())
    found = compare(Folders(*folders))
    by_id = {pair_of(found, n).id: found.results.found(n) for n in range(len(found.results))}
    assert {name: (one.state, one.ssim) for name, one in by_id.items()} == {
        "tiny": ("identical", None),
        "large": ("identical", 1.0),
        "odd": ("identical", 1.0),
    }


def test_events(joyedit: Command, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joyedit.job.compare.compare._TELL_SECONDS", 0.0)
    ended = joyedit("compare", "A", "B", "--log-format", "json")
    told: list[dict[str, Any]] = [json.loads(line) for line in ended.err.splitlines()]
    assert [event["event"] for event in told] == ["start", *["progress"] * 7, "end"]
    assert told[-2]["done"] == 7
