"""The plan for the published model on the GPUs that people have, and what it says where nothing fits."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from joyedit.errors import DeviceError
from joyedit.job.speed.settings import Speed, StepReuse
from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.models.dit import DiT
from joyedit.models.qwen import TextEncoder
from joyedit.models.vae import VAE
from joyedit.runtime.joyimage.memory import MemoryModel
from joyedit.runtime.placement.plan import (
    HOST_SPARE,
    Placement,
    WorkingMemory,
    choose,
    resident,
    spare,
    streamed,
)
from joyedit.runtime.placement.sizes import Layers, Sizes
from joyedit.weights import random

GB = 10**9
RESERVE = 2 * 2**30
HOST = 128 * GB


def bf16(network: str, name: str) -> torch.dtype:
    return torch.float32 if ".time_embedder." in name else torch.bfloat16


@pytest.fixture(scope="module")
def networks() -> tuple[DiT, TextEncoder, VAE]:
    _, _, text = random.configs("full")
    with torch.device("meta"):
        return DiT(DiTConfig()), TextEncoder(text | {"image_token_id": 1}), VAE(VAEConfig())


@pytest.fixture(scope="module")
def sizes(networks: tuple[DiT, TextEncoder, VAE]) -> Sizes:
    return Sizes.of(*networks, bf16)


@pytest.fixture(scope="module")
def working(networks: tuple[DiT, TextEncoder, VAE]) -> WorkingMemory:
    dit, encoder, vae = networks
    model = MemoryModel(dit=dit.cfg, vae=vae.cfg, itemsize=2)
    target = (1024, 1024)
    return WorkingMemory(
        encode=model.encoding_bytes(target, encoder.config.text_config),
        denoise=model.denoising_bytes(target, 1),
        decode=model.decoding_bytes(target),
        kept=200_000_000,
    )


def plan(sizes: Sizes, working: WorkingMemory, budget: float, **more: object) -> Placement:
    return choose(sizes, working, int(budget), HOST, reserve=RESERVE, **more)  # type: ignore[arg-type]


def test_sizes_of_the_published_model(networks: tuple[DiT, TextEncoder, VAE], sizes: Sizes) -> None:
    dit, encoder, vae = networks
    for network, label, nbytes in (
        (dit, "transformer", sizes.dit),
        (encoder, "x", sizes.encoder),
        (vae, "y", sizes.vae),
    ):
        expected = sum(p.numel() * bf16(label, name).itemsize for name, p in network.named_parameters())
        assert abs(nbytes - expected) <= 40  # a layer's bytes are rounded up
    assert (sizes.blocks.count, sizes.text_layers.count, sizes.vision_blocks.count) == (40, 36, 27)
    assert 800_000_000 < sizes.blocks.nbytes < 810_000_000
    assert sizes.embedding == 151936 * 4096 * 2


@pytest.mark.parametrize(
    ("budget", "most"), [(24, 22.5), (16, 14.5), (12, 11.0), (8, 7.5), (6, 5.7)], ids=lambda n: f"{n}GB"
)
def test_the_gpus_that_people_have(sizes: Sizes, working: WorkingMemory, budget: float, most: float) -> None:
    placement = plan(sizes, working, budget * GB)
    assert placement.streams_blocks
    assert placement.encoder_streams
    assert placement.predicted_peak <= most * GB
    if budget > 6:  # nothing of the budget is left unused that a block would fit into
        assert placement.predicted_peak > budget * GB - spare(budget * GB) - 2 * sizes.blocks.nbytes
    assert placement.host <= 1.05 * sizes.total
    assert placement.from_disk == 0


def test_more_memory_is_never_slower(sizes: Sizes, working: WorkingMemory) -> None:
    costs = []
    for budget in range(6, 90):
        placement = plan(sizes, working, budget * GB)
        assert placement.predicted_peak <= budget * GB
        costs.append((placement.bytes_a_step, placement.bytes_an_encoding))
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == (0, 0)
    assert (0, sizes.text_layers.total + sizes.vision_blocks.total) in costs  # the DiT stays, the encoder passes


def test_everything_stays_where_it_fits(sizes: Sizes, working: WorkingMemory) -> None:
    placement = plan(sizes, working, 80 * GB)
    assert placement == resident(sizes, working)
    assert placement.is_resident
    assert placement.streamed_blocks() == []
    assert placement.text(80 * GB).startswith("all weights stay on the device; expected peak ")


def test_nothing_fits(sizes: Sizes, working: WorkingMemory) -> None:
    with pytest.raises(DeviceError) as caught:
        plan(sizes, working, 3 * GB)
    message = str(caught.value)
    assert "has room for 3.0 GB" in message
    least = streamed(sizes, working, 0, 2).predicted_peak
    assert f"needs {(least + spare(least)) / 1e9:.1f} GB" in message
    assert "--memory" in message
    needed = float(message.split("needs ")[1].split(" GB")[0])
    assert plan(sizes, working, (needed + 0.1) * GB).resident_blocks == 0  # what it asks for is enough


def test_overrides(sizes: Sizes, working: WorkingMemory) -> None:
    assert plan(sizes, working, 8 * GB, offload="none").is_resident
    encoder = plan(sizes, working, 141 * GB, offload="encoder")
    assert (encoder.streams_blocks, encoder.encoder_streams) == (False, True)
    blocks = plan(sizes, working, 141 * GB, offload="blocks")
    assert (blocks.resident_blocks, blocks.slots) == (0, 2)
    with_little = plan(sizes, working, 8 * GB, offload="encoder")  # an override is obeyed
    assert not with_little.streams_blocks


def test_passing_blocks_are_spread_evenly(sizes: Sizes, working: WorkingMemory) -> None:
    for passing in range(1, 41):
        placement = streamed(sizes, working, 40 - passing, 3)
        numbers = placement.streamed_blocks()
        assert len(set(numbers)) == passing
        assert numbers == sorted(numbers)
        gaps = [after - before for before, after in zip(numbers, [*numbers[1:], numbers[0] + 40], strict=True)]
        assert max(gaps) - min(gaps) <= 1


def test_a_host_with_less_memory_than_the_weights(sizes: Sizes, working: WorkingMemory) -> None:
    whole = plan(sizes, working, 8 * GB)
    for host in range(24, 60, 4):
        placement = choose(sizes, working, 8 * GB, host * GB, reserve=RESERVE)
        assert placement.host + HOST_SPARE <= host * GB or placement == whole
        if placement.from_disk:
            numbers = placement.blocks_from_disk()
            assert len(set(numbers)) == placement.from_disk
            assert set(numbers) <= set(placement.streamed_blocks())
            text = placement.text(8 * GB, disk_rate=2e9)
            read = placement.from_disk * sizes.blocks.nbytes
            assert f"{placement.from_disk} of them from the disk, {read / 1e9:.1f} GB in {read / 2e9:.2g} s" in text
    with pytest.raises(DeviceError, match="wait in the host's memory"):
        choose(sizes, working, 8 * GB, 12 * GB, reserve=RESERVE)
    with pytest.raises(DeviceError, match="wait in the host's memory"):
        choose(sizes, working, 8 * GB, 40 * GB, reserve=RESERVE, may_read_later=False)


def test_the_text_says_what_it_costs(sizes: Sizes, working: WorkingMemory) -> None:
    placement = plan(sizes, working, 24 * GB)
    passing = placement.blocks - placement.resident_blocks
    assert placement.text(24 * GB).startswith(f"{passing} of 40 DiT blocks pass through the device, ")
    seconds = placement.bytes_a_step / 50e9
    assert f"GB in {seconds:.2g} s a step" in placement.text(24 * GB, 50e9)
    assert placement.key() != plan(sizes, working, 16 * GB).key()
    assert plan(sizes, working, 6 * GB).text(6 * GB).startswith("all 40 DiT blocks pass")


def test_layers_know_their_total() -> None:
    assert Layers(count=3, nbytes=7).total == 21
    assert dataclasses.replace(Layers(count=3, nbytes=7), count=0).total == 0


def test_the_first_block_stays_where_steps_are_reused(
    networks: tuple[DiT, TextEncoder, VAE], sizes: Sizes, working: WorkingMemory
) -> None:
    for budget in (6, 8, 12, 16, 24):
        plain, kept = plan(sizes, working, budget * GB), plan(sizes, working, budget * GB, first_stays=1)
        passing = kept.streamed_blocks()
        assert passing == sorted(set(passing))
        assert passing[-1] < 40
        assert len(passing) == 40 - kept.resident_blocks
        assert abs(kept.resident_blocks - plain.resident_blocks) <= 1
        assert (0 in passing) == (budget == 6)  # which has room for no block
        assert kept.predicted_peak <= budget * GB - spare(budget * GB)
    blocks = plan(sizes, working, 141 * GB, offload="blocks", first_stays=1)
    assert blocks.streamed_blocks() == list(range(1, 40))
    least = streamed(sizes, working, 0, 2).predicted_peak
    tight = plan(sizes, working, least + spare(least) + 1e8, first_stays=1)
    assert 0 in tight.streamed_blocks()  # one block less fits, and a device that has room for nothing else is served


def test_step_reuse_takes_room(networks: tuple[DiT, TextEncoder, VAE]) -> None:
    """At 1024 pixels a residual has 34 MB, and each of two branches keeps four of them and the stream of its step."""
    dit, _, vae = networks
    plain, reusing = (
        MemoryModel(dit=dit.cfg, vae=vae.cfg, itemsize=2, speed=Speed(reuse=reuse)).denoising_bytes((1024, 1024), 1)
        for reuse in (None, StepReuse(threshold=0.1, order=1))
    )
    residual = 4096 * 4096 * 2
    assert reusing - plain == 2 * (4 * residual + (2 * 4096 + 1024 + 64) * 4096 * 2)
