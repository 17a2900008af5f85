"""What only a CUDA device shows: bf16 through both attention backends, and compiled blocks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import joyedit
from support import editing
from support.editing import Edit, levels_apart, picture, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


def edits() -> list[Edit]:
    texts = ("Red.", "Turn the sky into a red evening and remove the car.", "Remove the car.")
    return [
        Edit(text=text, images=[picture(256, 320, seed=n)], seed=n, guidance=(4.0, 1.0, 2.5)[n])
        for n, text in enumerate(texts)
    ]


def test_fp32_on_cuda_is_the_cpus_picture(diffusers_checkpoint: Path) -> None:
    cpu = run(editing.backend(diffusers_checkpoint, device="cpu"), *edits())
    cuda = run(editing.backend(diffusers_checkpoint, device="cuda", dtype="fp32"), *edits())
    assert max(levels_apart(a, b) for a, b in zip(cpu, cuda, strict=True)) <= 2


def test_flash_and_sdpa_agree_in_bf16(diffusers_checkpoint: Path) -> None:
    flash = editing.backend(diffusers_checkpoint, device="cuda", attention="flash")
    sdpa = editing.backend(diffusers_checkpoint, device="cuda", attention="sdpa")
    assert (flash.info.attention, sdpa.info.attention) == ("flash", "sdpa")
    for a, b in zip(run(flash, *edits()), run(sdpa, *edits()), strict=True):
        assert levels_apart(a, b) <= 24  # bf16 keeps 8 bits of a value; the networks are random


@pytest.mark.parametrize("offload", ["none", "encoder"])
def test_a_pipelined_run_gives_the_pictures_of_single_edits(
    diffusers_checkpoint: Path, tmp_path: Path, offload: str
) -> None:
    lines = []
    for n in range(12):
        picture(256, 256, seed=n // 2).save(tmp_path / f"{n // 2}.png")
        lines.append({"id": f"{n}", "image": f"{n // 2}.png", "instruction": f"Make it {n}.", "seed": n})
    manifest = tmp_path / "edits.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = joyedit.run(
        manifest, model=diffusers_checkpoint, output=tmp_path / "out", device="cuda", dtype="fp32",
        steps=3, basesize=256, batch_size=1, offload=offload,
    )  # fmt: skip
    assert (outcome.exit_code, outcome.report.ok) == (0, 12)
    assert outcome.report.device_idle is not None
    model = editing.backend(diffusers_checkpoint, device="cuda", dtype="fp32")
    for n in range(12):
        with Image.open(tmp_path / "out" / f"{n}.png") as got:
            (alone,) = run(model, Edit(text=f"Make it {n}.", images=[picture(256, 256, seed=n // 2)], seed=n))
            assert levels_apart(got, alone) <= 1, n
