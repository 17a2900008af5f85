"""What only a CUDA device shows: bf16 through every attention kernel, compiled blocks, and company there.

Tolerances. bf16 keeps 8 bits, so one rounding is off by up to 2^-9 = 0.2% of a value. A network of a few
layers rounds some tens of times, and errors add up like a random walk: about 1% to 2% of the largest value,
for which 4% is allowed. Two ways to compute in bf16 on the same device differ by as much. A wrong mask,
position or sample shows as tens of percent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import joyedit
from joyedit.models import fused_blocks
from joyedit.models.attention import BACKENDS, Spans, TextLengths
from joyedit.models.blocks import MLP
from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.models.dit import DiT
from joyedit.models.vae import VAE
from joyedit.runtime.tuning.attention_choice import check, choose_attention, measure
from joyedit.runtime.tuning.fused_check import fault
from joyedit.weights import device_reader
from joyedit.weights.device_reader import DeviceReader
from joyedit.weights.load import WeightReader
from joyedit.weights.lora_file import layer_shapes
from nano.networks import dit_config
from nano.trainable import TrainableMLP
from support import editing
from support.cuda import cuda
from support.editing import Edit, levels_apart, picture, run
from support.loras import lora_of, matrices, named, write

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]

BF16 = 0.04
"""Of the reference's largest value."""

VAE_BF16 = 0.1
"""Its random decoder is deeper and has no gates that dampen: bf16 on a CPU is off by 4.4% here."""

CFG = DiTConfig(hidden_size=256, num_heads=2, num_layers=4, text_dim=64, rope_dims=(16, 56, 56))
LENGTHS = [[9], [7, 12], [5, 5], [40, 3, 17, 17]]


def dit() -> DiT:
    """fp32 on the CPU; weights large enough that every part shows."""
    generator = torch.Generator().manual_seed(0)
    network = DiT(CFG).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        spread = 0.3 if name.endswith("modulate_table") else fan_in**-0.5 if parameter.ndim > 1 else 0.1
        centre = 1.0 if "norm" in name else 0.0
        parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=generator))
    return network


def inputs(lengths: list[int]) -> tuple[list[Tensor], Tensor, TextLengths]:
    generator = torch.Generator().manual_seed(len(lengths))
    items = [torch.randn(len(lengths), 16, *size, generator=generator) for size in ((8, 12), (6, 10))]
    return items, torch.randn(sum(lengths), CFG.text_dim, generator=generator), TextLengths.of(lengths)


def predict(network: DiT, lengths: list[int]) -> Tensor:
    items, features, text = inputs(lengths)
    device = network.proj_out.weight.device
    with torch.inference_mode():
        out = network(
            [item.to(device) for item in items],
            torch.tensor([500.0], device=device),
            network.embed_text(features.to(device)),
            text,
        )
    return out.float().cpu()


def in_bf16(network: DiT) -> DiT:
    network = network.to(cuda(), torch.bfloat16)
    network.condition_embedder.time_embedder.float()
    return network


def apart(got: Tensor, expected: Tensor) -> float:
    """Largest difference, in parts of the largest value. NaN compares as wrong."""
    assert got.shape == expected.shape
    return float((got - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("blocks", ["plain", "fused", "fused in place", "compiled"])
@pytest.mark.parametrize("name", BACKENDS)
def test_the_dit_in_bf16_is_the_cpus(name: str, blocks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_blocks, "LARGE", 1 if blocks == "fused in place" else 10**6)
    fault = check(name, cuda(), torch.bfloat16, CFG.num_heads, CFG.head_dim)
    if fault:
        pytest.skip(fault)
    reference, network = dit(), in_bf16(dit())
    network.attend = BACKENDS[name]
    prepare = {"plain": network.plain_blocks, "compiled": network.compile_blocks}
    prepare.get(blocks, network.fuse_blocks)()
    for lengths in LENGTHS[1:3] if blocks == "compiled" else LENGTHS:  # another number of samples compiles anew
        error = apart(predict(network, lengths), predict(reference, lengths))
        print(f"{name} {blocks} {lengths}: {error:.4f}")
        assert error <= BF16


def test_the_dit_in_fp32_is_the_cpus() -> None:
    reference, network, fused = dit(), dit().to(cuda()), dit().to(cuda())
    fused.fuse_blocks()
    for lengths in LENGTHS:
        expected = predict(reference, lengths)
        assert apart(predict(network, lengths), expected) <= 1e-4
        assert apart(predict(fused, lengths), expected) <= 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("cfg", [DiTConfig(), CFG, dit_config()], ids=["full", "tests", "nano"])
def test_the_fused_kernels_are_trusted(cfg: DiTConfig, dtype: torch.dtype) -> None:
    assert fault(cfg, cuda(), dtype) == ""


@pytest.mark.parametrize("large", [1, 10**6], ids=["in place", "joined"])
def test_blocks_of_the_models_own_size(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks of 4096 channels in bf16, fused and plain, against fp32: the fused ones are as close."""
    monkeypatch.setattr(fused_blocks, "LARGE", large)
    torch.manual_seed(3)
    with torch.device(cuda()):
        network = DiT(DiTConfig(num_layers=2, text_dim=64)).eval().requires_grad_(False)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.02 if parameter.ndim > 1 else 0.3)
        items = [torch.randn(2, 16, 32, 48), torch.randn(2, 16, 48, 32)]
        txt, times = torch.randn(300, 4096), torch.full((1,), 300.0)
    text = TextLengths.of([113, 187])
    with torch.inference_mode():
        expected = network(items, times, txt, text)
        network = in_bf16(network)
        plain = apart(network(items, times, txt.bfloat16(), text).float(), expected)
        network.fuse_blocks()
        fused = apart(network(items, times, txt.bfloat16(), text).float(), expected)
    print(f"bf16 is off by {plain:.4f}, fused by {fused:.4f}")
    assert fused <= max(1.2 * plain, 0.01)


def test_the_activation_in_the_product_is_the_plain_one() -> None:
    torch.manual_seed(1)
    mlp = MLP(256, 1024).to(cuda(), torch.bfloat16).requires_grad_(False)
    x = torch.randn(3, 70, 256, device=cuda()).bfloat16()
    with torch.inference_mode():
        fused = mlp(x).float()
        plain = TrainableMLP(mlp)(x).float()
    assert fused.shape == plain.shape
    # The fused one rounds once less: a rounding of the hidden values, and none that grows.
    assert apart(fused, plain) <= 0.01


def test_a_sample_alone_and_in_company() -> None:
    """In bf16, where another batch may take another kernel: a few roundings, not what a neighbour would do."""
    network = in_bf16(dit())
    network.attend = BACKENDS[choose_attention("auto", cuda(), torch.bfloat16, CFG.num_heads, CFG.head_dim).name]
    items, features, text = inputs([40, 3, 17, 17])
    together = predict(network, [40, 3, 17, 17])
    for sample in range(4):
        span = slice(text.offsets[sample], text.offsets[sample + 1])
        with torch.inference_mode():
            alone = network(
                [item[sample : sample + 1].to(cuda()) for item in items],
                torch.tensor([500.0], device=cuda()),
                network.embed_text(features[span].to(cuda())),
                TextLengths.of([text.lengths[sample]]),
            )
        assert apart(together[sample : sample + 1], alone.float().cpu()) <= BF16 / 2


def test_every_kernel_agrees_with_fp32_where_fewer_tokens_ask() -> None:
    """At the model's own heads, and lengths that are no round numbers."""
    device, spans = cuda(), Spans((512, 512), (1289, 1301))
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = (
        torch.randn(n, 32, 128, generator=generator, device=device).bfloat16() for n in (1024, 1289 + 1301, 1289 + 1301)
    )
    with torch.inference_mode():
        expected = BACKENDS["sdpa"](q.float(), k.float(), v.float(), spans)
        for name in BACKENDS:
            if check(name, device, torch.bfloat16, 32, 128):
                continue
            for got, right in zip(BACKENDS[name](q, k, v, spans), expected, strict=True):
                assert float((got.float() - right).abs().max()) <= 0.01, name


def test_the_measurement_finds_a_kernel_and_tells_the_rest() -> None:
    choice = measure(tuple(BACKENDS), cuda(), torch.bfloat16, 32, 128, lengths=(2100, 2087))
    print(choice)
    assert choice.name in choice.rates
    assert set(choice.rates) | set(choice.faults) == set(BACKENDS)
    assert choice.rates["sdpa"] > 0


def test_the_vae_is_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    cfg = VAEConfig(base_dim=16, decoder_base_dim=96, num_res_blocks=1)  # an attention of 384 channels, as published
    plain = VAE(cfg).eval().requires_grad_(False)
    fast = VAE(cfg).eval().requires_grad_(False)
    fast.load_state_dict(plain.state_dict())
    fast.to(cuda(), torch.bfloat16)
    pixels = torch.rand(1, 3, 64, 96) * 2 - 1
    with torch.inference_mode():
        latent = plain.encode(pixels)
        picture = plain.decode(latent)
        for form in (torch.contiguous_format, torch.channels_last):
            fast.to(memory_format=form)  # type: ignore[call-overload]
            for prepare in (fast.plain, fast.fuse):
                prepare()
                assert apart(fast.encode(pixels.to(cuda())).cpu(), latent) <= VAE_BF16
                assert apart(fast.decode(latent.to(cuda())).cpu(), picture) <= VAE_BF16
        # In fp32 a single wrong pixel would show.
        exact = VAE(cfg).eval().requires_grad_(False)
        exact.load_state_dict(plain.state_dict())
        exact.to(cuda(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        exact.fuse()
        assert apart(exact.encode(pixels.to(cuda())).cpu(), latent) <= 1e-4
        assert apart(exact.decode(latent.to(cuda())).cpu(), picture) <= 1e-4


def edits() -> list[Edit]:
    texts = ("Red.", "Turn the sky into a red evening and remove the car.", "Remove the car.")
    return [
        Edit(text=text, images=[picture(256, 320, seed=n)], seed=n, guidance=(4.0, 1.0, 2.5)[n])
        for n, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def fp32_pictures(diffusers_checkpoint: Path) -> Any:
    return run(editing.backend(diffusers_checkpoint, device="cpu"), *edits())


def test_fp32_on_cuda_is_the_cpus_picture(
    diffusers_checkpoint: Path, fp32_pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # on by default, for convolutions
    cuda_ = run(editing.backend(diffusers_checkpoint, device="cuda", dtype="fp32", compile="off"), *edits())
    assert max(levels_apart(a, b) for a, b in zip(fp32_pictures, cuda_, strict=True)) <= 2


@pytest.mark.parametrize(("fused", "compile_"), [("off", "off"), ("auto", "off"), ("auto", "on")])
def test_whole_edits_in_bf16(fused: str, compile_: str, diffusers_checkpoint: Path, fp32_pictures: Any) -> None:
    """Three steps with guidance 4 enlarge what bf16 rounds off: 24 of 255 levels, where another seed gives 100."""
    backend = editing.backend(diffusers_checkpoint, device="cuda", fused=fused, compile=compile_)
    # Compiled blocks take the kernels' place.
    assert backend.info.fused == (fused == "auto" and compile_ == "off"), backend.info.notes
    assert backend.info.compiled == (compile_ == "on"), backend.info.notes
    assert backend.info.dtype == "bf16"
    if compile_ == "on":  # company is the affair of the other case, and compiles for minutes
        assert levels_apart(run(backend, edits()[0])[0], fp32_pictures[0]) <= 24
        return
    together = run(backend, *edits())
    for got, expected in zip(together, fp32_pictures, strict=True):
        assert levels_apart(got, expected) <= 24
    for edit, got in zip(edits(), together, strict=True):
        assert levels_apart(run(backend, edit)[0], got) <= 24


@pytest.mark.parametrize("offload", ["none", "encoder", "blocks"])
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


def test_weights_read_straight_to_the_device(diffusers_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those of the mapped files, whatever the size of the pinned pieces."""

    def weights(**options: Any) -> dict[str, Tensor]:
        model = editing.backend(diffusers_checkpoint, device="cuda", dtype="fp32", **options)
        networks = {"dit": model.dit, "vae": model.vae, "encoder": model.text_encoder}
        found = {
            f"{key}.{name}": p.detach().cpu() for key, net in networks.items() for name, p in net.named_parameters()
        }
        model.close()
        return found

    monkeypatch.setattr(WeightReader, "_direct", lambda self, name: None)
    mapped = weights()
    monkeypatch.undo()
    monkeypatch.setenv("JOYEDIT_CACHE", str(diffusers_checkpoint.parent / "cache"))
    read: list[int] = []
    plain = DeviceReader.read
    monkeypatch.setattr(DeviceReader, "read", lambda self, stored: (read.append(stored.nbytes), plain(self, stored))[1])
    for size in (1 << 12, 1 << 27):
        monkeypatch.setattr(device_reader, "SLOT_BYTES", size)
        direct = weights()
        assert direct.keys() == mapped.keys()
        assert all(torch.equal(direct[name], mapped[name]) for name in mapped)
    assert sum(read) > sum(tensor.nbytes for tensor in mapped.values())  # twice most of them


@pytest.mark.parametrize("fused", ["auto", "off"])
@pytest.mark.parametrize("offload", ["none", "blocks"])
def test_loras_merged_for_a_run_or_for_a_batch(
    diffusers_checkpoint: Path, tmp_path: Path, fused: str, offload: str
) -> None:
    """The same latents bit by bit, also where blocks pass through the device."""
    options: dict[str, Any] = {"device": "cuda", "fused": fused, "offload": offload, "attention": "sdpa"}
    plain = editing.backend(diffusers_checkpoint, **options)
    lora = lora_of(write(tmp_path / "a.safetensors", named(matrices(layer_shapes(plain.dit)))))

    def latents(model: Any, *loras: Any) -> Tensor:
        edit = Edit(text="Make it red.", images=[picture(256, 256)], loras=loras)
        made: Tensor = model.denoise(model.encode(editing.batch_of([edit])), lambda done, total: None)
        return made.cpu()  # behind all that reads the weights, which go with their model

    merged = latents(editing.backend(diffusers_checkpoint, merged_loras=(lora,), **options), lora)
    beside = editing.backend(diffusers_checkpoint, lora_sets=((lora,), ()), **options)
    assert latents(beside, lora).equal(merged)
    assert latents(beside).equal(latents(plain))
    assert not merged.equal(latents(plain))
