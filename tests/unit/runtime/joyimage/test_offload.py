"""Networks that take turns: the same pictures, and one network at a time on the device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops

import joyedit
from joyedit.runtime.joyimage.offload import NetworkSwapper
from support.editing import picture


class Copying(NetworkSwapper):
    """Copies are others than the originals, as those on another device are."""

    def _copied(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone()


def test_a_network_is_on_the_device_while_it_is_its_turn() -> None:
    networks = {name: torch.nn.Linear(3, 3).requires_grad_(False) for name in "ab"}
    before = {name: [p.data for p in network.parameters()] for name, network in networks.items()}
    turns = Copying(torch.device("cpu"), networks)

    def at_home(name: str) -> list[bool]:
        pairs = zip(networks[name].parameters(), before[name], strict=True)
        assert all(torch.equal(p, b) for p, b in zip(networks[name].parameters(), before[name], strict=True))
        return [p.data_ptr() == b.data_ptr() for p, b in pairs]

    with torch.inference_mode():
        assert [turns.activate(name) for name in "aabab"] == [True, False, True, True, True]
    assert at_home("a") == [True, True]
    assert at_home("b") == [False, False]


def test_weights_move_one_by_one() -> None:
    """Each is in its new place before the next one moves, so what it was can go."""
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)).requires_grad_(False)
    before = [p.data.clone() for p in network.parameters()]
    moved: list[int] = []

    class Pinning(Copying):
        def _pinned(self, tensor: torch.Tensor) -> torch.Tensor:
            assert [p.data_ptr() for p in network.parameters()][: len(moved)] == moved
            home = tensor.clone()
            moved.append(home.data_ptr())
            return home

    Pinning(torch.device("cpu"), {"a": network}).activate("a")
    assert len(moved) == len(before)
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


def test_pictures_with_offload_are_those_without(tmp_path: Path, diffusers_checkpoint: Path) -> None:
    lines = []
    for n in range(3):
        picture(256, 256, seed=n).save(tmp_path / f"{n}.png")
        lines += [
            {"id": f"{n}{text}", "image": f"{n}.png", "instruction": f"Make it {text}."} for text in ("red", "blue")
        ]
    manifest = tmp_path / "edits.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for offload in ("none", "encoder"):
        outcome = joyedit.run(
            manifest, model=diffusers_checkpoint, output=tmp_path / offload, offload=offload,
            steps=2, basesize=256, batch_size=2, device="cpu",
        )  # fmt: skip
        assert (outcome.exit_code, outcome.report.ok) == (0, 6)
    for path in (tmp_path / "none").glob("*.png"):
        with Image.open(path) as plain, Image.open(tmp_path / "encoder" / path.name) as moved:
            assert ImageChops.difference(plain, moved).getbbox() is None, path.name


def test_pictures_are_encoded_once_however_the_manifest_scatters_them(
    tmp_path: Path, diffusers_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from joyedit.runtime.joyimage.conditioning import Conditioner

    calls: list[int] = []
    see = Conditioner.see
    monkeypatch.setattr(Conditioner, "see", lambda self, one: calls.append(1) or see(self, one))
    lines = []
    for n in range(5):
        picture(256, 256, seed=n).save(tmp_path / f"{n}.png")
    for text in ("red", "blue", "green"):
        lines += [{"id": f"{n}{text}", "image": f"{n}.png", "instruction": f"Make it {text}."} for n in range(5)]
    manifest = tmp_path / "edits.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = joyedit.run(
        manifest, model=diffusers_checkpoint, output=tmp_path / "out", steps=1, basesize=256, batch_size=1, device="cpu"
    )
    assert outcome.report.ok == 15
    assert len(calls) == 5
