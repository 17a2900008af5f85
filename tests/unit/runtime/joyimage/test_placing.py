"""The same pictures wherever the weights are: on the device, passing through it, or read from the disk each time."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from torch import Tensor

import joyedit
from joyedit.errors import CheckpointError, DeviceError, UsageError
from joyedit.job.pictures import machine_memory
from joyedit.quantities import memory_bytes
from joyedit.runtime.joyimage import loading
from joyedit.runtime.joyimage.loras import Merger
from joyedit.runtime.placement import plan
from joyedit.weights import stored
from joyedit.weights.lora_file import layer_shapes
from support.editing import Edit, backend, batch_of, picture, run
from support.loras import lora_of, matrices, named, write

EDITS = [
    Edit(text="Make it red.", images=[picture(256, 256)], guidance=4.0),
    Edit(text="Make it blue, all of it.", images=[picture(256, 256, seed=1)], guidance=1.0, seed=7),
]


def levels(folder: Path, **options: Any) -> list[bytes]:
    model = backend(folder, device="cpu", **options)
    try:
        return [image.tobytes() for image in run(model, *EDITS)]
    finally:
        model.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's compiler raises several
@pytest.mark.parametrize("offload", ["encoder", "blocks"])
@pytest.mark.parametrize("compiled", ["off", "on"])
def test_passing_layers_make_the_same_pictures(diffusers_checkpoint: Path, offload: str, compiled: str) -> None:
    expected = levels(diffusers_checkpoint, compile=compiled)
    assert levels(diffusers_checkpoint, offload=offload, compile=compiled) == expected


def test_in_bf16(diffusers_checkpoint: Path) -> None:
    expected = levels(diffusers_checkpoint, dtype="bf16")
    assert levels(diffusers_checkpoint, dtype="bf16", offload="blocks") == expected


def test_a_checkpoint_of_the_authors(original_checkpoint: Path) -> None:
    assert levels(original_checkpoint, offload="blocks") == levels(original_checkpoint)


def test_several_references(edit_plus_checkpoint: Path) -> None:
    edit = Edit(text="Join them.", images=[picture(256, 256), picture(256, 320, seed=2), picture(320, 256, seed=3)])
    pictures = []
    for offload in ("none", "encoder", "blocks"):
        model = backend(edit_plus_checkpoint, device="cpu", offload=offload)
        pictures.append(run(model, edit)[0].tobytes())
        model.close()
    assert pictures[0] == pictures[1] == pictures[2]


def let_the_host_be_short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """From now on two blocks have no room in the host's memory; gives the most bytes that may be there."""
    monkeypatch.setattr(plan, "HOST_SPARE", 0)
    monkeypatch.setattr(plan, "FEWEST_SLOTS", 1)
    model = backend(folder, device="cpu", offload="blocks")
    host, block = model.placement.host, model.placement.bytes_a_step // model.placement.blocks
    assert model.placement.from_disk == 0
    model.close()
    monkeypatch.setattr(machine_memory, "available_bytes", lambda: host - 1)
    return host - block


def test_layers_that_the_host_has_no_room_for(diffusers_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = levels(diffusers_checkpoint)
    most = let_the_host_be_short(diffusers_checkpoint, monkeypatch)
    model = backend(diffusers_checkpoint, device="cpu", offload="blocks")
    assert model.placement.from_disk == 2
    assert model.placement.host <= most
    assert "2 of them from the disk" in model.info.placement
    assert [image.tobytes() for image in run(model, *EDITS)] == expected
    model.close()


def test_layers_from_the_disk_that_get_loras_on_their_way(
    diffusers_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are merged beside what is computed, and without room for that the run cannot go on."""
    model = backend(diffusers_checkpoint, device="cpu")
    lora = lora_of(write(tmp_path / "a.safetensors", named(matrices(layer_shapes(model.dit)))))
    model.close()
    edit = replace(EDITS[0], loras=(lora,))
    merged = backend(diffusers_checkpoint, device="cpu", merged_loras=(lora,))
    expected = run(merged, edit)[0].tobytes()
    merged.close()
    let_the_host_be_short(diffusers_checkpoint, monkeypatch)
    made: list[Stream] = []
    merge = Merger.__call__

    class Stream:
        """Stands for the context of a stream, which may be entered again and again."""

        inside = 0

        def __init__(self) -> None:
            made.append(self)

        def __enter__(self) -> None:
            self.inside += 1

        def __exit__(self, *error: object) -> None:
            self.inside -= 1

    def merges(self: Merger, name: str, tensor: Tensor) -> Tensor:
        assert any(one.inside for one in made)
        return merge(self, name, tensor)

    monkeypatch.setattr(loading, "_stream_of_its_own", lambda device: Stream())
    monkeypatch.setattr(Merger, "__call__", merges)
    model = backend(diffusers_checkpoint, device="cpu", offload="blocks", merged_loras=(lora,))
    assert model.placement.from_disk == 2
    assert run(model, edit)[0].tobytes() == expected
    count = len(made)
    assert run(model, edit)[0].tobytes() == expected
    assert len(made) == count

    def fails(self: Merger, name: str, tensor: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("there is none")

    monkeypatch.setattr(Merger, "__call__", fails)
    with pytest.raises(DeviceError, match="has no room for it"):
        run(model, edit)
    model.close()


def test_a_run_whose_batches_are_prepared_together(tmp_path: Path, diffusers_checkpoint: Path) -> None:
    """Texts of several batches are read in one pass; pictures come back in each batch, and in several of them."""
    lines = []
    for n in range(5):
        picture(256, 256, seed=n).save(tmp_path / f"{n}.png")
        lines += [
            {"id": f"{n}{text}", "image": f"{n}.png", "instruction": f"Make it {text}."} for text in ("red", "blue")
        ]
    manifest = tmp_path / "edits.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for offload in ("none", "encoder", "blocks"):
        outcome = joyedit.run(
            manifest, model=diffusers_checkpoint, output=tmp_path / offload, offload=offload,
            steps=2, basesize=256, batch_size=1, device="cpu",
        )  # fmt: skip
        assert (outcome.exit_code, outcome.report.ok) == (0, 10)
        assert outcome.report.placement
    for path in (tmp_path / "none").glob("*.png"):
        for other in ("encoder", "blocks"):
            with Image.open(path) as plain, Image.open(tmp_path / other / path.name) as moved:
                assert ImageChops.difference(plain, moved).getbbox() is None, (other, path.name)


def test_a_text_that_is_too_long_fails_alone(tmp_path: Path, diffusers_checkpoint: Path) -> None:
    picture(256, 256).save(tmp_path / "in.png")
    texts = ["Red.", "blue " * 6000, "Green.", "Grey."]
    lines = [{"id": str(n), "image": "in.png", "instruction": text} for n, text in enumerate(texts)]
    manifest = tmp_path / "edits.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = joyedit.run(
        manifest, model=diffusers_checkpoint, output=tmp_path / "out", offload="blocks",
        steps=1, basesize=256, batch_size=1, device="cpu",
    )  # fmt: skip
    assert outcome.exit_code == 3
    assert outcome.report.failed_by_code == {"instruction_too_long": 1}


def test_a_batch_that_finds_no_room_makes_some(diffusers_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More references than the plan assumed: the resident blocks pass too, and the picture is the same."""
    expected = levels(diffusers_checkpoint)
    monkeypatch.setattr(plan.Placement, "streamed_blocks", lambda self: [1])
    model = backend(diffusers_checkpoint, device="cpu", offload="blocks")
    assert model._placed.dit is not None
    (blocks,) = model._placed.dit.groups
    assert run(model, EDITS[0])[0].tobytes() == expected[0]
    resident = len(blocks.resident)
    assert resident > 0
    while blocks.resident:
        model.free_memory()
        assert len(blocks.resident) == resident // 2
        resident //= 2
        assert [image.tobytes() for image in run(model, *EDITS)] == expected
    model.close()


def test_what_is_passing_is_read_once_a_window(diffusers_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = backend(diffusers_checkpoint, device="cpu", offload="encoder")
    assert model.encode_ahead > 1
    passes: list[int] = []
    layers = model.text_encoder.layers
    monkeypatch.setattr(type(layers), "run", _counting(type(layers).run, passes))
    batches = [batch_of([edit]) for edit in EDITS]
    for number, batch in enumerate(batches):
        object.__setattr__(batch.items[0].item, "id", f"item {number}")
    model.prepare(batches)
    first = sum(passes)
    for batch in batches:
        model.encode(batch)
    assert sum(passes) == first == 2 + 1  # both pictures at once, and what all prompts begin with
    model.close()


def _counting(run_layers: Any, passes: list[int]) -> Any:
    def run_and_count(self: Any, chains: Any) -> None:
        passes.append(len(chains))
        run_layers(self, chains)

    return run_and_count


def test_a_file_that_became_shorter_is_told_where_its_layer_is_waited_for(
    diffusers_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.preadv

    def short(file: int, buffers: Any, offset: int) -> int:
        is_dit = "transformer" in os.readlink(f"/proc/self/fd/{file}")
        return 0 if is_dit else real(file, buffers, offset)

    monkeypatch.setattr(stored.os, "preadv", short)
    model = backend(diffusers_checkpoint, device="cpu", offload="blocks")
    with pytest.raises(CheckpointError, match="became shorter while it was read"):
        run(model, *EDITS)
    model.close()


def test_a_budget_bounds_the_plan(diffusers_checkpoint: Path) -> None:
    with pytest.raises(DeviceError, match=r"room for 1 MB, and this model needs"):
        backend(diffusers_checkpoint, device="cpu", memory=10**6)
    model = backend(diffusers_checkpoint, device="cpu", memory=10**9, largest=256)
    assert "of 1.0 GB" in model.info.placement
    model.close()


def test_weights_that_the_machine_has_no_room_for(diffusers_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "available_bytes", lambda: 1000)
    with pytest.raises(DeviceError, match=r"in fp32, and 0.001 MB of memory are available; use a machine"):
        backend(diffusers_checkpoint, device="cpu")


def test_a_worker_plans_with_its_share_of_the_machine(diffusers_checkpoint: Path) -> None:
    with pytest.raises(DeviceError, match=r"in fp32, and 0.001 MB of memory are available"):
        backend(diffusers_checkpoint, device="cpu", host_memory=1000)


def test_bf16_is_offered_where_it_fits(diffusers_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = backend(diffusers_checkpoint, device="cpu")
    weights = model.placement.weights
    model.close()
    monkeypatch.setattr(machine_memory, "available_bytes", lambda: weights - 1)
    with pytest.raises(DeviceError, match="--dtype bf16 takes half of it"):
        backend(diffusers_checkpoint, device="cpu", dtype="fp32")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("auto", None), ("22GB", 22 * 10**9), ("7.5 GiB", 7.5 * 2**30), ("900MB", 9 * 10**8), ("24", 24 * 10**9),
     ("8g", 8 * 10**9), ("512MiB", 2**29)],
)  # fmt: skip
def test_memory_is_read_as_people_write_it(text: str, expected: float | None) -> None:
    assert memory_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0GB", "-8GB", "8TB", "GB", "8 G B", "1e3", "nan", "8,5GB", "9" * 40])
def test_memory_that_means_nothing(text: str) -> None:
    with pytest.raises(UsageError, match=r"--memory must be auto or a size such as 22GB"):
        memory_bytes(text)


def test_the_bus_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from joyedit.runtime.tuning import bus_rate

    monkeypatch.setenv("JOYEDIT_CACHE", str(tmp_path))
    device = torch.device("cpu")
    assert bus_rate.bus_rate(device) is None
    assert bus_rate.known_bus_rate(device) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    cuda = torch.device("cuda", 0)
    for value, expected in ((5e9, 5e9), ("fast", None), (True, None), (-1, None)):
        bus_rate.Measurements("bus-rates.json").put("a GPU", value)
        assert bus_rate.known_bus_rate(cuda) == expected
    bus_rate.Measurements("bus-rates.json").put("a GPU", 3e9)
    assert bus_rate.bus_rate(cuda) == 3e9
