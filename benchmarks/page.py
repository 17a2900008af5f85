"""What the page of a run costs: to build it, and to show it in Chromium.

    python benchmarks/page.py --items 2000

Makes pictures of 512 pixels (coarse noise, or cut from the photos of --photos), an output folder as a run leaves it,
and the page, and opens that in headless Chromium (JOYEDIT_CHROMIUM, or one on the PATH) from the disk. First screen is
the time from the start of the navigation until the pictures of the first screen are there. Memory is that of the tab's
process as Chromium's own task manager counts it (without what it shares), at the start and while the page is scrolled
through; pictures that Chromium keeps decoded, and gives back when memory is short, stand apart.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from joyedit.job.page.build import Building, build_page

TEXTS = ("Turn the sky into a red evening.", "Make the house blue.", "Remove the text from the sign.", "Add a dog.")
STEPS = 60
_READY = """() => new Promise((resolve) => {
  const look = () => {
    const all = [...document.querySelectorAll('.card img[src]')];
    const images = all.filter((one) => one.getBoundingClientRect().top < innerHeight);
    if (images.length && images.every((one) => one.complete)) requestAnimationFrame(() => resolve(performance.now()));
    else setTimeout(look, 5);
  };
  look();
})"""


def picture(number: int, photos: list[Image.Image]) -> Image.Image:
    """A picture of 512 x 512 pixels that no other number has."""
    dice = random.Random(number)
    if photos:
        photo = photos[number % len(photos)]
        side = dice.randint(300, min(photo.size))
        x, y = dice.randint(0, photo.width - side), dice.randint(0, photo.height - side)
        return photo.crop((x, y, x + side, y + side)).resize((512, 512))
    coarse = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize((512, 512), Image.Resampling.BICUBIC)


def make_run(root: Path, items: int, photos: list[Image.Image]) -> Path:
    """An output folder of so many items, as a run leaves it; the inputs lie beside it."""
    out = root / "out"
    out.mkdir()
    (root / "in").mkdir()

    def one(number: int) -> dict[str, Any]:
        before = picture(number, photos)
        source, result = root / "in" / f"photo-{number:06d}.jpg", out / f"photo-{number:06d}.png"
        before.save(source, quality=90)
        Image.blend(before, Image.new("RGB", before.size, (number * 37 % 256, 90, 160)), 0.25).save(
            result, compress_level=1
        )
        data, status = source.read_bytes(), source.stat()
        seen = [hashlib.sha256(data).hexdigest(), status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        return {
            "id": f"photo-{number:06d}",
            "status": "ok",
            "instruction": TEXTS[number % len(TEXTS)],
            "inputs": [str(source)],
            "output": result.name,
            "bucket": [512, 512],
            "settings": {
                "steps": 40, "guidance_scale": 4.0, "seed": number, "negative_prompt": "", "basesize": 512,
                "width": None, "height": None, "schedule": "original", "model": "fake", "dtype": "bf16",
                "attention": "sdpa", "joyedit": "0.1.0",
            },
            "seconds": {"read": 0.01, "encode": 0.2, "denoise": 8 + number % 7 / 10, "decode": 0.3, "write": 0.1},
            "notes": [],
            "error": None,
            "source": {"file": "edits.jsonl", "line": number + 1},
            "output_bytes": result.stat().st_size,
            "output_sha256": hashlib.sha256(result.read_bytes()).hexdigest(),
            "inputs_seen": [seen],
            "at": "2026-01-01T00:00:00.000+00:00",
        }  # fmt: skip

    with ThreadPoolExecutor(os.cpu_count()) as pool, (out / "results.jsonl").open("w") as journal:
        for record in pool.map(one, range(items), chunksize=64):
            journal.write(json.dumps(record) + "\n")
    return out


def chromium() -> str | None:
    """The Chromium of this machine; None if there is none."""
    named = os.environ.get("JOYEDIT_CHROMIUM")
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def memory(above: int) -> tuple[int, int]:
    """Bytes of the largest renderer below this process: its own, and those it shares (decoded pictures)."""
    found = (0, 0)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"--type=renderer" in (folder / "cmdline").read_bytes() and _is_below(int(folder.name), above):
                lines = (line.split() for line in (folder / "status").read_text().splitlines())
                sizes = {words[0]: 1024 * int(words[1]) for words in lines if words[-1] == "kB"}
                found = max(found, (sizes["RssAnon:"] + sizes["VmSwap:"], sizes["RssShmem:"]))
        except (OSError, ValueError):
            continue
    return found


def _is_below(pid: int, above: int) -> bool:
    while pid > 1:
        if pid == above:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def look(page: Path, executable: str) -> dict[str, Any]:
    """Open the page and scroll through it; gives seconds and bytes."""
    from playwright.sync_api import sync_playwright

    figures: dict[str, Any] = {}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=executable)
        warm = browser.new_page()
        warm.goto("about:blank")
        times = []
        for _ in range(5):
            tab = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
            tab.goto(page.as_uri(), wait_until="commit")
            times.append(tab.evaluate(_READY) / 1000)
            if len(times) < 5:
                tab.context.close()
        figures["first_screen_s"] = [round(value, 3) for value in times]
        tab.locator("html[data-ready=all]").wait_for(timeout=120_000)
        tab.wait_for_timeout(500)
        figures["tab_first_MB"], figures["decoded_first_MB"] = (round(size / 1e6, 1) for size in memory(os.getpid()))
        most = (0, 0)
        for step in range(STEPS):
            tab.evaluate(f"scrollTo(0, document.body.scrollHeight * {step} / {STEPS})")
            tab.wait_for_timeout(50)
            if step % 10 == 9:
                most = max(most, memory(os.getpid()))
        figures["tab_scrolled_MB"], figures["decoded_scrolled_MB"] = (round(size / 1e6, 1) for size in most)
        figures["elements"] = tab.evaluate("document.querySelectorAll('*').length")
        start = time.perf_counter()
        tab.fill("#query", "red evening")
        tab.locator("#count", has_text=" of ").wait_for()
        figures["filter_s"] = round(time.perf_counter() - start, 3)
        browser.close()
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--photos", type=Path, help="a folder of photos to cut the pictures from")
    parser.add_argument("--keep", type=Path, help="make the output folder here, and leave it")
    given = parser.parse_args()
    photos = [Image.open(path).convert("RGB") for path in sorted(given.photos.iterdir())] if given.photos else []
    with tempfile.TemporaryDirectory() as temporary:
        root = given.keep or Path(temporary)
        root.mkdir(exist_ok=True)
        out = make_run(root, given.items, photos) if not (root / "out").exists() else root / "out"
        start, cpu = time.perf_counter(), time.process_time()
        built = build_page(out, Building())
        figures: dict[str, Any] = {
            "items": built.items,
            "cores": os.cpu_count(),
            "small_pictures": built.made,
            "build_s": round(time.perf_counter() - start, 2),
            "build_cpu_s": round(time.process_time() - cpu, 2),
        }
        start = time.perf_counter()
        build_page(out, Building())
        figures["build_again_s"] = round(time.perf_counter() - start, 2)
        sizes = [path.stat().st_size for path in (out / "index.files").rglob("*") if path.is_file()]
        figures["page_MB"] = round(sum(sizes) / 1e6, 1)
        executable = chromium()
        if executable is None:
            print("no Chromium found (JOYEDIT_CHROMIUM names one): the page is built, and not looked at")
        else:
            figures |= look(built.path.absolute(), executable)
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
