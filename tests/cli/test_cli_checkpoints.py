"""Checkpoints from somebody who means no good, through the command: exit code 2 and one message, in bounded memory."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_command import Command, program_environment

from joyedit.weights.defaults import nano_folder
from support.hostile import change, linked_copy, put, put_kind, safetensors

HANG = 120
"""Seconds after which a command hangs."""
MOST_MEMORY = 1 << 30
"""More than torch and transformers take, and far less than what the checkpoints would have the command take."""


def layers(folder: Path) -> None:
    change(folder / "transformer" / "config.json", "num_layers", 10**7)


def steps(folder: Path) -> None:
    put(folder / "joyedit.json", '{"steps": 1000000000}')


def guidance(folder: Path) -> None:
    put(folder / "joyedit.json", '{"guidance_scale": NaN}')


def pipe(folder: Path) -> None:
    put_kind(folder / "vae" / "config.json", "pipe")


def pipe_of_defaults(folder: Path) -> None:
    put_kind(folder / "joyedit.json", "link to a pipe")


def recursion(folder: Path) -> None:
    put(folder / "text_encoder" / "config.json", "[" * 200_000)


def name_of_a_tensor(folder: Path) -> None:
    header = {"\x1b]0;owned\x07\u202e" + "x" * 100_000: {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}
    put(folder / "vae" / "diffusion_pytorch_model.safetensors", safetensors(header, b"\0" * 8))


def names_of_labels(folder: Path) -> None:
    change(folder / "text_encoder" / "config.json", "num_labels", 10**9)
    change(folder / "processor" / "preprocessor_config.json", "image_mean", [float("nan")] * 3)


def as_original(folder: Path) -> None:
    """The files of the authors' layout, but for their pickles."""
    (folder / "text_encoder").rename(folder / "JoyAI-Image-Und")
    for path in (*(folder / "tokenizer").iterdir(), *(folder / "processor").iterdir()):
        shutil.copy(path, folder / "JoyAI-Image-Und" / path.name)
    (folder / "model_index.json").unlink()
    (folder / "transformer" / "config.json").unlink()


def zip_bomb(folder: Path) -> None:
    """A pickle of 768 MiB of zeros in an archive of a few MiB."""
    as_original(folder)
    (folder / "vae" / "vae.pth").touch()
    path = folder / "transformer" / "transformer.pth"
    part = bytes(1 << 24)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("archive/data.pkl", "w", force_zip64=True) as record,
    ):
        for _ in range(48):
            record.write(part)


def gigabytes_of_defaults(folder: Path) -> None:
    put(folder / "joyedit.json", "")
    os.truncate(folder / "joyedit.json", 4 << 30)


def strides_of_zero(folder: Path) -> None:
    """A byte that would be a tensor of a tebibyte."""
    import torch

    as_original(folder)
    torch.save({"x": torch.zeros(1)}, folder / "vae" / "vae.pth")
    torch.save({"img_in.weight": torch.zeros(1).expand(1 << 38)}, folder / "transformer" / "transformer.pth")


def header(folder: Path) -> None:
    put(folder / "transformer" / "diffusion_pytorch_model.safetensors", struct.pack("<Q", 1 << 62) + b"{}")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (layers, "transformer/config.json: num_layers must be a whole number from 1 to 1000, not 10000000"),
        (steps, "joyedit.json: steps must be a whole number from 1 to 1000, not 1000000000"),
        (guidance, "joyedit.json: guidance_scale must be a number from 0 to 100, not nan"),
        (pipe, "vae/config.json: is a pipe, not a regular file"),
        (pipe_of_defaults, "joyedit.json: is a pipe, not a regular file"),
        (recursion, "text_encoder/config.json: not JSON (nested too deeply)"),
        (name_of_a_tensor, "too few for the 4 layers"),
        (names_of_labels, "image_mean must be a list of numbers"),
        (strides_of_zero, "transformer.pth: img_in.weight is larger than its data"),
        (header, "not a complete safetensors file"),
    ],
)
def test_one_message(
    joyedit: Command, pictures: Path, tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    folder = linked_copy(nano_folder(), tmp_path / "checkpoint")
    damage(folder)
    ended = joyedit("run", "pictures", "-p", "blue", "-m", folder, "-o", "out", "--basesize", "256")
    assert ended.code == 2
    assert reason in ended.err
    assert "joyedit: error: " in ended.err
    assert "unexpected error" not in ended.err
    assert "Traceback" not in ended.err
    assert len(ended.err) < 3000
    assert all(one.isprintable() or one in "\n\r" for one in ended.err)
    assert not list(tmp_path.glob("out/*.png"))


MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""Runs a program and prints its peak memory in KiB. A process counts also what its parent held when it was started, and
this one holds little."""


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (zip_bomb, "its record archive/data.pkl is compressed"),
        (gigabytes_of_defaults, "joyedit.json: is larger than 1 MiB"),
    ],
)
def test_memory(pictures: Path, tmp_path: Path, damage: Callable[[Path], None], reason: str) -> None:
    folder = linked_copy(nano_folder(), tmp_path / "checkpoint")
    damage(folder)
    program = ["timeout", "-s", "KILL", str(HANG), sys.executable, "-m", "joyedit"]
    with open(tmp_path / "err", "w", encoding="utf-8") as messages:
        process = subprocess.run(
            [sys.executable, "-c", MEASURED, *program, "run", "pictures", "-p", "blue", "-m", folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=messages,
            cwd=tmp_path,
            env=program_environment(),
            text=True,
            check=False,
        )
    text = (tmp_path / "err").read_text()
    assert process.returncode == 2, text
    assert reason in text
    assert "unexpected error" not in text
    assert int(process.stdout) << 10 < MOST_MEMORY


def test_a_shard_that_an_index_names(joyedit: Command, pictures: Path, tmp_path: Path) -> None:
    folder = linked_copy(nano_folder(), tmp_path / "checkpoint")
    (folder / "text_encoder" / "model.safetensors").unlink()
    index = {"weight_map": {"a": "\x1b[31m\u2028\ud800" + "y" * 200}}
    put(folder / "text_encoder" / "model.safetensors.index.json", json.dumps(index))
    ended = joyedit("run", "pictures", "-p", "blue", "-m", folder)
    assert ended.code == 2
    assert "cannot be read" in ended.err or "shards are missing: \\x1b[31m\\u2028\\ud800yyy" in ended.err
    assert "\x1b" not in ended.err
