"""One picture over several processes on the CPU, against one process: fp32, by gloo, world sizes 2 to 4.

Where branches are divided and tokens are not, every number is the same. Where tokens are divided, sums of attention
come in another order: latents differ by less than 1e-5, and a level of a picture that lies between two by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor

from joyedit.errors import DeviceError, ItemError
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.parallel.layout import Layout
from joyedit.runtime.protocol import GroupLost, OutOfMemory
from joyedit.weights.lora_file import layer_shapes
from support import reference
from support.editing import Edit, batch_of, levels_apart, picture
from support.groups import Failing, Followers, Other, group
from support.loras import lora_of, matrices, named, write

LAYOUTS = [
    Layout(guidance=2),
    Layout(sequence=2),
    Layout(sequence=3),
    Layout(guidance=2, sequence=2),
    Layout(sequence=4),
    Layout(guidance=3),
]
"""The tiny DiT has two heads: three and four ranks of a sequence do not divide them."""
PAIR = Layout(guidance=2)

Result = tuple[Tensor, list[Image.Image]]


@pytest.fixture(scope="module")
def followers() -> Iterator[Followers]:
    found = Followers()
    yield found
    found.close()


@pytest.fixture(scope="module")
def cases(ours: JoyImageBackend, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Edit], Result]]:
    """Batches, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("loras")
    lora = lora_of(write(folder / "one.safetensors", named(matrices(layer_shapes(ours.dit)))))
    image, other = picture(256, 320), picture(256, 320, seed=5)
    batches = {
        "guidance": [Edit(text="Turn the sky red.", images=[image])],
        "no guidance": [Edit(text="Turn the sky red.", images=[image], guidance=1.0)],
        "guidance for some": [
            Edit(text="Red.", images=[image], negative="blurry"),
            Edit(text="Turn the sky into a red evening, and remove the car.", images=[other], guidance=1.0, seed=3),
            Edit(text="Remove the car.", images=[image], guidance=2.5, negative="a long negative prompt, and more"),
        ],
        "two references": [
            Edit(text=text, images=[picture(200, 390, seed=n), image], seed=n)
            for n, text in enumerate(("Red.", "Remove the car that stands in front of the house."))
        ],
        "no reference": [Edit(text="")],
        "each with its own picture": [
            Edit(text=text, images=[picture(256, 320, seed=n)], seed=n)
            for n, text in enumerate(("Red.", "Blue.", "Red.", "Remove the car."))
        ],
        "a LoRA": [Edit(text="Make it red.", images=[image], loras=(lora,))],
    }
    return {name: (edits, made(ours, edits)) for name, edits in batches.items()}


def made(model: Any, edits: list[Edit]) -> Result:
    model.ready()
    latents = model.denoise(model.encode(batch_of(edits)), lambda done, total: None)
    return latents, model.decode(latents)


def check(model: Any, cases: dict[str, tuple[list[Edit], Result]], exact: bool) -> None:
    for name, (edits, (latents, pictures)) in cases.items():
        got, shown = made(model, edits)
        assert (got - latents).abs().max() <= (0 if exact else 1e-5), name
        for one, expected in zip(shown, pictures, strict=True):
            assert levels_apart(one, expected) <= (0 if exact else 1), name
            assert np.mean(np.asarray(one) != np.asarray(expected)) <= 1e-3, name


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_as_one_process(
    layout: Layout, followers: Followers, diffusers_checkpoint: Path, cases: dict[str, tuple[list[Edit], Result]]
) -> None:
    dist.distributed_c10d._world.group_count = 1  # as after a group that could not start
    with group(followers, diffusers_checkpoint, layout) as model:
        assert model.info.device.startswith(f"{layout.world} x cpu")
        assert any(str(layout) in note for note in model.info.notes)
        check(model, cases, exact=layout.sequence == 1)
        assert all(exchange.sent for exchange in model.ranks.exchanges())
    assert [followers.ending(rank) for rank in range(1, layout.world)] == [""] * (layout.world - 1)


@pytest.mark.parametrize("layout", [PAIR, Layout(guidance=2, sequence=2)], ids=str)
def test_each_rank_encodes_a_part(
    layout: Layout,
    followers: Followers,
    diffusers_checkpoint: Path,
    ours: JoyImageBackend,
    cases: dict[str, tuple[list[Edit], Result]],
) -> None:
    """Together they do what one process does, and no more: nothing is encoded by two of them."""
    counts = {"guidance": 2, "each with its own picture": 8, "two references": 6, "no reference": 1}
    with group(followers, diffusers_checkpoint, layout) as model:
        for name, count in counts.items():
            batch = batch_of(cases[name][0])
            for one in (ours, model):
                one.free_memory()
            alone, shared = ours.encode(batch), model.encode(batch)
            assert model.operations(shared) == ours.operations(alone), name
            ranks = [spec.rank for spec in shared.own.specs]
            assert set(ranks) == set(range(min(count, layout.world))), name
            parts = shared.own.parts
            assert parts is not None
            assert {number for number, rank in enumerate(ranks) if rank == 0} == set(parts.own), name


def test_layers_that_pass_through_the_device(
    followers: Followers, diffusers_checkpoint: Path, cases: dict[str, tuple[list[Edit], Result]]
) -> None:
    """Each rank streams its weights; several batches are prepared together."""
    with group(followers, diffusers_checkpoint, Layout(guidance=2, sequence=2), offload="blocks") as model:
        assert model.encode_ahead > 1
        some = {name: cases[name] for name in ("guidance for some", "a LoRA")}
        model.prepare([batch_of(edits) for edits, _ in some.values()])
        check(model, some, exact=False)
        model.free_memory()
        check(model, some, exact=False)


def test_an_edit_as_the_reference_makes_it(followers: Followers, diffusers_checkpoint: Path, theirs: Any) -> None:
    image = picture(300, 410)
    expected = reference.edit(theirs, image, "Turn the sky red.", num_inference_steps=3, guidance_scale=4.0)
    with group(followers, diffusers_checkpoint, Layout(sequence=3)) as model:
        _, (got,) = made(model, [Edit(text="Turn the sky red.", images=[image])])
    assert levels_apart(got, expected) <= 1


def test_what_a_run_asks_beside_pictures(followers: Followers, diffusers_checkpoint: Path) -> None:
    edits = [Edit(text="Red.", images=[picture(256, 320)])]
    heard: list[tuple[int, int]] = []
    with group(followers, diffusers_checkpoint, Layout(sequence=2)) as model:
        encoded = model.encode(batch_of(edits))
        assert model.operations(encoded)["denoise"] > 0
        pending = model.decode_later(model.denoise(encoded, lambda done, total: heard.append((done, total))))
        assert pending.is_finite(0)
        assert heard == [(1, 3), (2, 3), (3, 3)]
        model.synchronize()
        assert model.timestamp("denoise").reached()
        assert (model.peak_memory() or 0) > 0
        assert model.predicted_peak() is None
        assert model.exchanged_bytes() > 0
        assert (model.matmul_tflops() or 0) > 0
        assert model.auto_batch_size((256, 256)) % 2 == 0
        del encoded  # the other rank forgets it with the next call
        made(model, edits)


@pytest.mark.parametrize(
    ("failing", "error", "words"),
    [
        (Failing("encode_share", "bad item"), ItemError, "the instruction is too long"),
        (Failing("encode_share", "no room"), OutOfMemory, "rank 1: no room"),
        (Failing("encode_share", "bug"), RuntimeError, r"rank 1: a bug \(RuntimeError\)"),
        (Failing("denoise", "no room"), OutOfMemory, "rank 1: no room"),
    ],
    ids=str,
)
def test_an_error_of_one_rank_before_ranks_depend_on_each_other(
    failing: Failing, error: type[Exception], words: str, followers: Followers, diffusers_checkpoint: Path
) -> None:
    """Rank 0 raises it, and the group goes on."""
    edits = [Edit(text="Red.", images=[picture(256, 320)])]
    with group(followers, diffusers_checkpoint, PAIR, others={1: failing}) as model:
        with pytest.raises(error, match=words):
            made(model, edits)
        made(model, edits)
    assert followers.ending() == ""


@pytest.mark.parametrize("failing", [Failing("encode_share", "no room"), Failing("denoise", "no room")], ids=str)
def test_an_error_of_rank_0_alone(failing: Failing, followers: Followers, diffusers_checkpoint: Path) -> None:
    edits = [Edit(text="Red.", images=[picture(256, 320)])]
    with group(followers, diffusers_checkpoint, PAIR, first=failing) as model:
        with pytest.raises(OutOfMemory, match=r"^no room"):
            made(model, edits)
        made(model, edits)
    assert followers.ending() == ""


@pytest.mark.parametrize(
    ("failing", "out_of_memory", "ending"),
    [
        (Failing("denoise", "no room", "midst"), True, "no room for this one"),
        (Failing("denoise", "bug", "midst"), False, "a bug"),
        (Failing("denoise", "dies", "midst"), False, "gone"),
        (Failing("denoise", "dies"), False, "gone"),
        (Failing("encode_share", "dies"), False, "gone"),
    ],
    ids=str,
)
def test_a_rank_that_fails_where_others_wait_for_it(
    failing: Failing, out_of_memory: bool, ending: str, followers: Followers, diffusers_checkpoint: Path
) -> None:
    """Rank 0 gets an error, as in every later call; the process is good for another group."""
    edits = [Edit(text="Red.", images=[picture(256, 320)])]
    with group(followers, diffusers_checkpoint, PAIR, others={1: failing}) as model:
        with pytest.raises(GroupLost) as found:
            made(model, edits)
        assert found.value.out_of_memory is out_of_memory
        with pytest.raises(GroupLost):
            model.encode(batch_of(edits))
    assert ending in followers.ending()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(("how", "at"), [("interrupted", "before"), ("interrupted", "midst"), ("no room", "midst")])
def test_rank_0_in_the_midst(how: Any, at: Any, followers: Followers, diffusers_checkpoint: Path) -> None:
    edits = [Edit(text="Red.", images=[picture(256, 320)])]
    with group(followers, diffusers_checkpoint, PAIR, first=Failing("denoise", how, at)) as model:
        with pytest.raises(KeyboardInterrupt if how == "interrupted" else GroupLost):
            made(model, edits)
        with pytest.raises(GroupLost) as found:
            model.encode(batch_of(edits))
        assert found.value.out_of_memory is (how == "no room")
    followers.ending()  # it does not hang, and ends with an error or without


def test_rank_0_that_is_gone(followers: Followers, diffusers_checkpoint: Path) -> None:
    with group(followers, diffusers_checkpoint, PAIR) as model:
        model._links.close()
        assert followers.ending() == ""


@pytest.mark.parametrize(
    ("load", "error", "words"),
    [
        (Failing("load", "no room"), OutOfMemory, "rank 1: no room"),
        (Failing("load", "dies"), GroupLost, "the process of rank 1 of the group is gone"),
        (Other(), DeviceError, "the GPUs of a group differ"),
    ],
    ids=str,
)
def test_a_rank_that_cannot_load(
    load: Any, error: type[Exception], words: str, followers: Followers, diffusers_checkpoint: Path
) -> None:
    with (
        pytest.raises(error, match=words),
        group(followers, diffusers_checkpoint, PAIR, others={1: load}),
    ):
        raise AssertionError
    followers.ending()


def test_an_attention_kernel_that_rank_0_has_and_another_has_not(
    followers: Followers, diffusers_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 decides for all, and the others check that theirs serves."""
    with (
        pytest.raises(DeviceError, match="rank 1: --attention cudnn"),
        group(followers, diffusers_checkpoint, PAIR, first=Other(attention="cudnn", dtype="fp32")),
    ):
        raise AssertionError
    assert "DeviceError" in followers.ending()
