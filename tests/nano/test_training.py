"""The code that trains nano, on pictures of 64 pixels: steps, resuming, export."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import train_nano
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from joyedit.job.run_config import RunConfig
from joyedit.models.attention import Spans, TextLengths, join, sdpa_attention, separate
from joyedit.models.qwen_loading import load_image_processor, load_tokenizer
from joyedit.models.qwen_prompts import Prompt
from joyedit.runtime.joyimage.conditioning import PromptBuilder
from joyedit.runtime.joyimage.loading import load_backend
from nano import encoder, networks, scenes, speed, stream
from nano.data import collate, loader, with_layout
from nano.losses import Average, change_weight, reconstruction_loss
from nano.tokenizer import build_tokenizer
from nano.trainable import PackedBlocks, make_trainable
from nano.wording import corpus

SMALL = ((64, 64),)


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "SIZES", SMALL)
    monkeypatch.setattr(train_nano, "LATENT_PICTURES", 16)
    monkeypatch.setattr(train_nano, "LOG_EVERY", 2)


def train(work: Path, *words: str) -> None:
    train_nano.run(train_nano.parse(["--work", str(work), "--out", str(work / "out"), "--workers", "0", *words]))


def log(work: Path, stage: str) -> list[dict[str, Any]]:
    lines = (work / "log.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["stage"] == stage and "step" in line]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(list(corpus("train")), folder, vocab_size=train_nano.VOCABULARY)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder after a few steps of both stages, and four more of each after a stop."""
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "SIZES", SMALL)
        patch.setattr(train_nano, "LATENT_PICTURES", 16)
        patch.setattr(train_nano, "LOG_EVERY", 2)
        steps = ("--steps", "4", "--vae-batch", "2", "--edit-batch", "4")
        train(work, "--stage", "vae", *steps)
        train(work, "--stage", "vae", *steps)
        train(work, "--stage", "edit", *steps)
        train(work, "--stage", "edit", *steps)
    return work


def test_a_stopped_run_goes_on_where_it_was(trained: Path) -> None:
    assert [line["step"] for line in log(trained, "vae")] == [2, 4, 6, 8]
    assert [line["step"] for line in log(trained, "edit")] == [2, 4, 6, 8]
    seconds = [line["seconds"] for line in log(trained, "edit")]
    assert seconds == sorted(seconds)


def test_the_export_loads_with_the_averaged_weights(trained: Path, tmp_path: Path) -> None:
    backend = load_backend(RunConfig(output=tmp_path, model=str(trained / "out"), device="cpu", dtype="bf16"))
    saved = torch.load(trained / "edit.pt", weights_only=True)
    names = list(saved["dit"])
    averaged = dict(zip(names, saved["average"], strict=False))
    for name, loaded in backend.dit.state_dict().items():
        wanted = averaged[name].to(torch.bfloat16)
        assert torch.equal(loaded.to(torch.bfloat16), wanted), name
    assert backend.vae.cfg.latents_std != networks.vae_config().latents_std


def test_diffusers_loads_the_exported_networks(trained: Path) -> None:
    from diffusers import AutoencoderKLWan, JoyImageEditTransformer3DModel

    _, dit = JoyImageEditTransformer3DModel.from_pretrained(trained / "out" / "transformer", output_loading_info=True)
    _, vae = AutoencoderKLWan.from_pretrained(trained / "out" / "vae", output_loading_info=True)
    for found in (dit, vae):
        assert not found["missing_keys"]
        assert not found["unexpected_keys"]
        assert not found["mismatched_keys"]


def test_training_starts_from_an_exported_checkpoint(trained: Path, tmp_path: Path) -> None:
    train(tmp_path, "--start", str(trained / "out"), "--stage", "edit", "--steps", "2", "--edit-batch", "2")
    assert log(tmp_path, "edit")[-1]["step"] == 2
    ours, theirs = (folder / "vae" / "config.json" for folder in (tmp_path / "out", trained / "out"))
    assert ours.read_text() == theirs.read_text()


def test_a_blend_lies_between_the_start_and_the_new_weights(trained: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(trained / "out", start)
    path = start / "transformer" / "diffusion_pytorch_model.safetensors"
    before = {name: torch.randn_like(tensor) for name, tensor in load_file(path).items()}
    save_file(before, path, metadata={"format": "pt"})
    shutil.copy(trained / "edit.pt", tmp_path)
    train(tmp_path, "--start", str(start), "--stage", "export", "--blend", "0.25")
    new = load_file(trained / "out" / "transformer" / path.name)
    for name, mixed in load_file(tmp_path / "out" / "transformer" / path.name).items():
        wanted = 0.75 * before[name].float() + 0.25 * new[name].float()
        torch.testing.assert_close(mixed.float(), wanted, rtol=0.01, atol=0.01)


def test_steps_lower_the_autoencoders_loss(tokenizer: Path) -> None:
    vae, _, _ = networks.build(load_tokenizer(tokenizer), 0)
    make_trainable(vae)
    pixels = torch.stack([pixels_of(index) for index in range(4)])
    optimizer = torch.optim.AdamW(vae.parameters(), lr=4e-4)
    losses = []
    for _ in range(12):
        loss, _ = reconstruction_loss(vae, pixels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_steps_lower_the_velocity_loss(tmp_path: Path) -> None:
    trainer = train_nano.Trainer(train_nano.parse(["--work", str(tmp_path), "--device", "cpu", "--workers", "0"]))
    batch = next(trainer.batches(8, 0, 1))
    inputs = trainer.prepare(batch, trainer.vae.encode)
    scale = inputs.after.std()  # the VAE has learnt nothing yet
    inputs = replace(inputs, before=inputs.before / scale, after=inputs.after / scale)
    parameters = [*trainer.dit.parameters(), *trainer.encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    losses = []
    for _ in range(16):
        loss = trainer.velocity_loss(inputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])
    # The encoder learns from the DiT's loss alone; the vision tower is part of it.
    visual = trainer.encoder.model.visual.patch_embed.proj.weight.grad
    assert visual is not None
    assert visual.abs().max() > 0


def test_a_packed_batch_has_the_same_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_by_one(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int) -> Tensor:
        out = []
        for start, end in itertools.pairwise(bounds.tolist()):
            assert end - start <= longest
            parts = (x[start:end].float().transpose(0, 1) for x in (q, k, v))
            out.append(torch.nn.functional.scaled_dot_product_attention(*parts).transpose(0, 1))
        return torch.cat(out).type_as(q)

    trainer = train_nano.Trainer(train_nano.parse(["--work", str(tmp_path), "--device", "cpu", "--workers", "0"]))
    torch.nn.init.normal_(trainer.dit.proj_out.weight, std=0.1)
    batch = next(trainer.batches(4, 0, 1))
    losses = []
    for packed in (False, True):
        if packed:
            attend = speed.BatchAttention(trainer.device)
            monkeypatch.setattr(attend, "_kernel", one_by_one)
            trainer.dit.strategy = PackedBlocks(attend)
            batch = with_layout(batch)
        inputs = trainer.prepare(batch, trainer.vae.encode)
        torch.manual_seed(3)
        loss = trainer.velocity_loss(inputs)
        loss.backward()
        gradient = trainer.dit.img_in.weight.grad
        assert gradient is not None
        losses.append((loss.detach(), gradient.clone()))
        trainer.dit.zero_grad()
    torch.testing.assert_close(losses[1][0], losses[0][0], atol=0, rtol=1e-3)  # the packed attention is in bf16
    torch.testing.assert_close(losses[1][1], losses[0][1], atol=2e-3 * float(losses[0][1].abs().max()), rtol=0.05)


def test_batches_of_one_size_have_one_shape(tokenizer: Path) -> None:
    token = load_tokenizer(tokenizer).convert_tokens_to_ids("<|image_pad|>")
    batches = loader(tokenizer, token, 32, 0, 0, workers=0, sizes=SMALL, fixed=True)
    shapes = set()
    for batch in itertools.islice(batches, 3):
        assert batch.layout is not None
        assert len(batch.kept) == len(batch.layout.owner) > sum(batch.lengths)
        shapes.add((batch.ids.shape, batch.kept.shape, batch.layout.bounds.shape))
    assert len(shapes) == 1


def test_some_prompts_have_no_instruction(tokenizer: Path) -> None:
    token = load_tokenizer(tokenizer).convert_tokens_to_ids("<|image_pad|>")
    batch = next(loader(tokenizer, token, 64, 0, 0, workers=0, sizes=SMALL))
    shortest = min(batch.lengths)
    assert 1 <= sum(length == shortest for length in batch.lengths) <= 16
    assert len(batch.kept) == sum(batch.lengths)


@pytest.mark.parametrize("size", [(64, 96), (256, 256), (192, 320)])
def test_vision_patches_are_those_of_the_image_processor(size: tuple[int, int], tmp_path: Path) -> None:
    networks.save_processor(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    wanted = load_image_processor(tmp_path)(images=[Image.fromarray(picture)], return_tensors="pt")
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    patches, grid = networks.vision_patches(pixels)
    assert wanted["image_grid_thw"].tolist() == [[1, 2 * grid[0], 2 * grid[1]]]
    torch.testing.assert_close(patches, wanted["pixel_values"].float(), atol=1e-5, rtol=0)


def test_padded_attention_is_the_products(tokenizer: Path) -> None:
    text = TextLengths.of([5, 9, 7])
    generator = torch.Generator().manual_seed(0)

    def part() -> tuple[Tensor, Tensor]:
        img = torch.randn(3, 20, 2, 32, generator=generator)
        return img, torch.randn(21, 2, 32, generator=generator)

    query, key, value = part(), part(), part()
    joined = [join(*part, text.lengths) for part in (query, key, value)]
    whole = tuple(20 + length for length in text.lengths)
    wanted = separate(sdpa_attention(*joined, Spans(whole, whole)), 20)
    attend = speed.BatchAttention(torch.device("cpu"))
    assert attend.name == "padded"
    for found, right in zip(attend(query, key, value, text), wanted, strict=True):
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("size", [(64, 64), (192, 320)])
def test_the_encoder_for_training_is_the_products(size: tuple[int, int], tokenizer: Path) -> None:
    words = load_tokenizer(tokenizer)
    _, _, text_encoder = networks.build(words, 0)
    builder = PromptBuilder(words, text_encoder.image_token)
    instructions = ["make the red circle blue", "", "remove the tree"]
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, *size, 3), dtype=np.uint8)
    batch = collate(builder, stream.Batch(source=pictures, target=pictures, instructions=[], kinds=[]), instructions)
    patches, grid = networks.vision_patches(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1)
    with torch.no_grad():
        for parameter in text_encoder.parameters():
            parameter.normal_(std=0.05)
        before = len(builder.prefix([0])) - 1
        found = encoder.features(
            text_encoder, batch.ids, patches, before, encoder.tables(text_encoder, grid, before, batch.ids.shape[1])
        )
        for row, instruction in enumerate(instructions):
            seen = text_encoder.see(patches.unflatten(0, (3, -1))[row], grid)
            (wanted,) = text_encoder([Prompt(ids=builder.ids(instruction, [grid[0] * grid[1]]), pictures=(seen,))])
            torch.testing.assert_close(found[row, : len(wanted)], wanted, atol=1e-5, rtol=1e-4)


def test_the_layout_brings_samples_together_and_fillers_to_the_end() -> None:
    layout = speed.Layout.of([2, 3], image_tokens=4, text_tokens=7)
    rows = torch.arange(8 + 7)
    joint = rows[layout.order]
    assert joint[:13].tolist() == [0, 1, 2, 3, 8, 9, 4, 5, 6, 7, 10, 11, 12]
    assert torch.equal(joint[layout.inverse], rows)
    assert layout.bounds.tolist()[:3] == [0, 6, 13]
    assert layout.bounds[-1] == 15
    assert (layout.bounds.diff() >= 0).all()
    assert len(layout.bounds) == 3 + speed.FILLERS
    assert layout.owner.tolist() == [0, 0, 1, 1, 1, 0, 0]
    text = speed.LaidOut.packed(layout, 2)
    assert (len(text.lengths), text.sample_of_token(rows.device).tolist()) == (2, layout.owner.tolist())
    with pytest.raises(ValueError, match="do not fit"):
        speed.Layout.of([4, 4], image_tokens=4, text_tokens=7)


def test_change_weight_has_mean_one_and_favours_the_smaller_part() -> None:
    source = torch.zeros(4, 16, 8, 8)
    target = source.clone()
    target[0, 3, :2] = 1.0  # an object
    target[2, 3, 2:] = 1.0  # the background of one
    target[3] = 1.0  # everything
    weight = change_weight(source, target)
    torch.testing.assert_close(weight.mean(dim=(1, 2, 3)), torch.ones(4))
    for sample in (0, 2):
        assert weight[sample, 0, 0, 0] > 3 * weight[sample, 0, 7, 0]
    for sample in (1, 3):
        assert torch.equal(weight[sample], torch.ones(1, 8, 8))


def test_average_follows_and_swaps_back() -> None:
    network = torch.nn.Linear(2, 2)
    first = network.weight.detach().clone()
    average = Average([network], decay=0.5)
    with torch.no_grad():
        network.weight += 1.0
    average.update()
    average.swap()
    assert (network.weight - first).abs().max() <= 1.0
    assert not torch.equal(network.weight, first + 1.0)
    average.swap()
    torch.testing.assert_close(network.weight.detach(), first + 1.0)


def pixels_of(index: int) -> Tensor:
    from nano import stream

    picture = np.asarray(stream.pair_at(0, index, size=SMALL[0]).source_image)
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 127.5 - 1
