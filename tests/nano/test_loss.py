"""benchmarks/loss.py: its figures are those of the pictures, its files say the same, and its picture is well-formed."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def loss() -> Any:
    pytest.importorskip("skimage")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("loss")
    finally:
        sys.path.remove(str(BENCHMARKS))


def run_of(loss: Any, pairs: dict[str, Any], folder: Path, wrong: tuple[str, ...] = ()) -> Path:
    """An output folder as a run leaves it: the right answers, and the unedited source for the `wrong` ones."""
    folder.mkdir(parents=True)
    lines = []
    for number, (item, pair) in enumerate(pairs.items()):
        (pair.source_image if item in wrong else pair.target_image).save(folder / f"{item}.png")
        record = {"id": item, "status": "ok", "output": f"{item}.png", "seconds": {"denoise": 2.0 + number}}
        shares = {"share": 0.5, "share_of_tokens": 0.5 + number}
        lines.append(json.dumps(record | {"computed": shares}) + "\n")
    (folder / "results.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def test_the_figures_are_those_of_the_pictures(loss: Any, tmp_path: Path) -> None:
    pairs = loss.named_pairs(["recolour", "remove"], 1, seed=12)
    assert list(pairs) == ["recolour-000", "remove-000"]
    exact = run_of(loss, pairs, tmp_path / "exact")
    other = run_of(loss, pairs, tmp_path / "other", wrong=("remove-000",))

    same = loss.figures(loss.judged(pairs, exact, exact, None))
    assert (same["happened"], same["psnr"], same["ssim"], same["same"]) == (100.0, 60.0, 1.0, 100.0)
    assert (same["seconds"], same["computed"], same["lpips"]) == (2.5, 0.5, None)

    found = loss.judged(pairs, other, exact, lambda one, other: 0.5)
    figures = loss.figures(found)
    assert (figures["happened"], figures["same"], figures["lpips"]) == (50.0, 50.0, 0.5)
    assert [edit.happened for edit in found] == [True, False]
    error = np.asarray(pairs["remove-000"].source_image, dtype=float) - np.asarray(pairs["remove-000"].target_image)
    assert found[1].psnr == pytest.approx(10 * np.log10(255**2 / (error**2).mean()))
    assert found[1].ssim < 1
    assert found[1].unchanged == 60.0


def test_pairs_stay_the_same_as_their_number_grows(loss: Any) -> None:
    few, more = (loss.named_pairs(["add"], count, seed=12) for count in (1, 2))
    assert few["add-000"] == more["add-000"]


def test_from_run_to_curves(loss: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the command, with the shipped checkpoint; a second setting is the exact one by another name."""
    figures, losses, curves = tmp_path / "loss.json", tmp_path / "short.json", tmp_path / "loss.svg"
    command = ["loss.py", "--pairs", "1", "--kinds", "recolour", "--steps", "1", "--work", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*command, "--json", str(figures)])
    loss.main()
    found = json.loads(figures.read_text())
    assert [row["setting"] for row in found["settings"]] == ["exact"]
    with Image.open(tmp_path / "seed-8" / "exact" / "steps-1" / "recolour-000.png") as edited:
        assert edited.size == (256, 256)

    other = tmp_path / "other.json"
    row = found["settings"][0] | {"setting": "--reuse low"}
    other.write_text(json.dumps(found | {"settings": [row]}), encoding="utf-8")
    more = ["--from", str(figures), str(other), "--losses", str(losses), "--curves", str(curves)]
    monkeypatch.setattr(sys, "argv", ["loss.py", *more])
    loss.main()
    table = json.loads(losses.read_text())
    assert table["seed"] == 8
    assert [row["setting"] for row in table["settings"]] == ["exact", "--reuse low"]
    assert "faster" not in table["settings"][1]
    assert set(table["settings"][1]) >= {"steps", "happened", "unchanged", "psnr", "ssim", "lpips", "computed"}
    svg = ET.parse(curves).getroot()
    assert svg.tag == f"{SVG}svg"
    assert len(svg.findall(f".//{SVG}circle")) == 2 + 2 * 2, "a dot a family in the legend, and one a setting and chart"


def test_a_setting_that_cannot_run_ends_with_its_message(loss: Any, tmp_path: Path) -> None:
    args = argparse.Namespace(model="nano", device="cpu", jobs=1, again=False)
    with pytest.raises(SystemExit, match="no-such-flag"):
        loss.edit(args, tmp_path, tmp_path / "m.jsonl", "--no-such-flag", 1)


def test_figures_of_other_pairs_do_not_stand_in_one_table(loss: Any) -> None:
    about = {"model": "nano", "pairs": 8, "seed": 8, "device": "cpu", "settings": []}
    with pytest.raises(SystemExit, match="differ in seed"):
        loss.joined([about, about | {"seed": 9}])
    exact, few, slow = (
        about | {"settings": [{"setting": setting, "steps": steps, "all": {"pairs": pairs}}]}
        for setting, steps, pairs in (("exact", 12, 8), ("--reuse low", 12, 16), ("exact", 40, 16))
    )
    with pytest.raises(SystemExit, match="differ in pairs"):
        loss.joined([exact, few])
    assert loss.pairs_of(loss.joined([exact, slow])) == "8 (12 steps) and 16 (40 steps)"
    assert loss.pairs_of(exact) == "8"


def test_figures_of_another_device_stand_beside(loss: Any) -> None:
    """Each setting is compared with the exact run of its own device."""
    about = {"model": "nano", "pairs": 8, "seed": 8, "date": "", "commit": "", "lpips": ""}
    figures = {"pairs": 8, "happened": 90.0}
    rows = [
        about | {
            "device": device,
            "settings": [
                {"setting": setting, "steps": 12, "all": figures | {"seconds": seconds}}
                for setting, seconds in (("exact", exact), ("--reuse low", 1.0))
            ],
        }
        for device, exact in (("cpu", 2.0), ("cuda", 0.5))
    ]  # fmt: skip
    found = loss.joined(rows)
    told = [loss.with_gains(found, row) for row in found["settings"]]
    assert [(row["setting"], row["device"], row["faster"]) for row in told] == [
        ("exact", "cpu", 1.0),
        ("--reuse low", "cpu", 2.0),
        ("exact", "cuda", 1.0),
        ("--reuse low", "cuda", 0.5),
    ]
