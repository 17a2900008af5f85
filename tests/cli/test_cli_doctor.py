"""`joyedit doctor`: the table, JSON and exit codes, on this machine's CPU."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_command import Command

from joyedit.job.pictures import machine_memory
from joyedit.runtime.doctor import nvidia


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JOYEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(nvidia, "look", lambda: nvidia.Nvidia())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)


def facts(joyedit: Command, *argv: str) -> dict[str, Any]:
    ended = joyedit("doctor", "--json", *argv)
    (line,) = ended.out.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert found["can_start"] == (ended.code == 0)
    return found


def test_the_table(joyedit: Command, tmp_path: Path, diffusers_checkpoint: Path) -> None:
    ended = joyedit("doctor", "-m", diffusers_checkpoint, "--basesize", "256")
    assert (ended.code, ended.err) == (0, "")
    rows = {line[:14].strip(): line[15:] for line in ended.out.splitlines()}
    assert rows["device"].startswith("cpu (")
    assert "diffusers layout" in rows["model"]
    assert rows["tensors"].endswith("names and shapes are right; no values were read")
    assert rows["fused kernels"] == "off: they need a CUDA device"
    assert rows["placement"].startswith("all weights stay on the device; expected peak")
    assert "An estimate: " in rows["expected time"]
    assert ended.out.splitlines()[-1] == "nothing here would stop a run"
    assert not (tmp_path / "edited").exists()


def test_json(joyedit: Command, diffusers_checkpoint: Path) -> None:
    found = facts(joyedit, "-m", str(diffusers_checkpoint), "--basesize", "256", "--dtype", "bf16")
    assert found["problems"] == []
    told = found["facts"]
    assert told["dtype"]["name"] == "bf16"
    assert told["placement"]["assumed"] is False
    assert told["expected_time"]["seconds"] > 0
    assert told["expected_time"]["estimate"] is True
    assert told["expected_time"]["basesize"] == 256
    assert set(told["model"]["parts"]) == {"transformer", "text encoder", "vae"}


def test_without_a_model(joyedit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "available_bytes", lambda: 10**9)
    ended = joyedit("doctor")
    assert ended.code == 0
    assert re.search(r"^model +none is given", ended.out, re.MULTILINE)
    assert "note: published model: the weights take" in ended.out
    last = "the published model would not run here; nothing would stop a smaller one, such as --model nano"
    assert ended.out.splitlines()[-1] == last


def test_an_incomplete_checkpoint(joyedit: Command, tmp_path: Path, diffusers_checkpoint: Path) -> None:
    folder = tmp_path / "part"
    shutil.copytree(diffusers_checkpoint, folder)
    shutil.rmtree(folder / "vae")
    ended = joyedit("doctor", "-m", folder)
    assert ended.code == 2
    assert "joyedit: error: 1 problem would stop a run\n" in ended.err
    assert "model: 2 missing: vae/config.json, vae/diffusion_pytorch_model.safetensors" in ended.err
    assert "hf download" in ended.err
    assert "nothing here would stop" not in ended.out
    assert "expected time" not in ended.out


def test_a_checkpoint_with_other_tensors(joyedit: Command, tmp_path: Path, diffusers_checkpoint: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(diffusers_checkpoint, folder)
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 4}))
    found = facts(joyedit, "-m", str(folder))
    (problem,) = found["problems"]
    assert problem["about"] == "tensors"
    assert "its tensors differ" in problem["message"]
    assert "missing" in problem["remedy"]


def test_several_problems(joyedit: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = joyedit("doctor", "-m", "nowhere", "--device", "cuda", "-o", "file")
    assert ended.code == 2
    assert "3 problems would stop a run" in ended.err
    assert "GPU: --device cuda: no NVIDIA GPU is there" in ended.err


def test_a_memory_that_is_too_small(joyedit: Command, diffusers_checkpoint: Path) -> None:
    found = facts(joyedit, "-m", str(diffusers_checkpoint), "--memory", "1MB")
    (problem,) = found["problems"]
    assert (problem["about"], problem["stops"]) == ("placement", True)
    assert "room for 1 MB" in problem["message"]


def test_options_that_mean_nothing(joyedit: Command) -> None:
    assert "--basesize must be one of 256, 512, 768, 1024, not 300" in joyedit("doctor", "--basesize", "300").err
    ended = joyedit("doctor", "--memory", "much")
    assert ended.code == 2
    assert "--memory must be auto or a size" in ended.err


def test_a_part_that_breaks_is_told(
    joyedit: Command, monkeypatch: pytest.MonkeyPatch, diffusers_checkpoint: Path
) -> None:
    def fails(*more: Any) -> float:
        raise ValueError("no number")

    monkeypatch.setattr("joyedit.runtime.doctor.outlook.matmul_tflops", fails)
    ended = joyedit("doctor", "-m", diffusers_checkpoint, "-v")
    assert ended.code == 0
    assert "note: expected time: it cannot be examined (ValueError: no number)" in ended.out
    assert "Traceback" in ended.err


def test_the_backend_without_networks(joyedit: Command) -> None:
    ended = joyedit("doctor", "-m", "fake")
    assert ended.code == 0
    assert "fake, without networks" in ended.out


def test_without_torch(joyedit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from joyedit.runtime.doctor import software

    monkeypatch.setattr(software, "_fault", lambda module: "is not installed" if module == "torch" else None)
    ended = joyedit("doctor")
    assert ended.code == 2
    assert "packages: torch is not installed\n    pip install --force-reinstall torch" in ended.err
    assert "memory" in ended.out
