"""Each exact saving against the plain way of computing the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from joyedit.job.spec import SizedItem
from joyedit.models import qwen
from joyedit.models.attention import TextLengths
from joyedit.models.qwen_prompts import Prefix
from joyedit.models.vae import ChannelNorm
from joyedit.runtime.joyimage import conditioning
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.conditioning import Conditioner
from nano.trainable import TrainableNorm, UntrimmedBlocks
from support.editing import Edit, batch_of, levels_apart, picture, run

TEXTS = ("Red.", "Turn the sky into a red evening and remove the car.", "", "Remove the car.")


@pytest.mark.parametrize("count", [0, 1, 2])
@torch.no_grad()
def test_an_opening_that_is_shared(ours: JoyImageBackend, count: int) -> None:
    conditioner = ours.conditioner
    seen = [conditioner.see(picture(256, 320, seed=n)) for n in range(count)]
    whole = conditioner.features([conditioner.prompt(text, seen) for text in TEXTS])
    shared = conditioner.read_suffixes(conditioner.read_prefix(seen), TEXTS, bool(seen))
    for plain, fast in zip(whole, shared, strict=True):
        assert fast.shape == plain.shape
        assert (fast - plain).abs().max() <= 1e-5 * plain.abs().max()


@torch.no_grad()
def test_what_all_openings_begin_with_is_read_once(ours: JoyImageBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    hidden = ours.text_encoder.prepare
    monkeypatch.setattr(
        ours.text_encoder, "prepare", lambda b, *a, **k: read.append(b.ids.numel()) or hidden(b, *a, **k)
    )
    fresh = [Conditioner(ours.text_encoder, ours.conditioner.builder, ours.conditioner._read._processor) for _ in "ab"]
    builder, common = fresh[0].builder, len(fresh[0].builder.common_prefix)
    seen = [fresh[0].see(picture(256, 320, seed=n)) for n in range(2)]
    lengths = [len(builder.prefix([s.grid[0] * s.grid[1]])) for s in seen]
    first, second = (fresh[0].read_prefix([s]) for s in seen)
    assert read == [common, *(length - common for length in lengths)]
    assert [len(first.features), len(second.features)] == lengths
    # What came before a picture leaves no trace.
    for mine, alone in zip(tensors_of(second), tensors_of(fresh[1].read_prefix([seen[1]])), strict=True):
        assert torch.equal(mine, alone)


def tensors_of(prefix: Prefix) -> list[Tensor]:
    return [prefix.features, *prefix.keys, *prefix.values]


@torch.no_grad()
def test_a_long_opening_is_read_whole(ours: JoyImageBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [ours.conditioner.see(picture(256, 320))]
    shared = ours.conditioner.read_prefix(seen)
    monkeypatch.setattr(conditioning, "SHARED", 1.0)
    whole = ours.conditioner.read_prefix(seen)
    assert whole.next_position == shared.next_position
    for plain, fast in zip(tensors_of(whole), tensors_of(shared), strict=True):
        assert (fast - plain).abs().max() <= 1e-5 * plain.abs().max()


@torch.no_grad()
def test_texts_in_rows_of_a_few_tokens(ours: JoyImageBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """However texts are divided into rows, the longest of them alone."""
    conditioner = ours.conditioner
    seen = [conditioner.see(picture(256, 320))]
    prefix = conditioner.read_prefix(seen)
    together = conditioner.read_suffixes(prefix, TEXTS, True)
    monkeypatch.setattr(qwen, "SUFFIX_TOKENS", 12)
    divided = conditioner.read_suffixes(prefix, TEXTS, True)
    for whole, part in zip(together, divided, strict=True):
        assert (whole - part).abs().max() <= 1e-5 * whole.abs().max()


@torch.no_grad()
def test_patches_as_one_product(ours: JoyImageBackend) -> None:
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionPatchEmbed

    fast = ours.text_encoder.model.visual.patch_embed
    plain = Qwen3VLVisionPatchEmbed(ours.text_encoder.config.vision_config)
    plain.proj = fast.proj
    pixels = torch.randn(24, 3 * 2 * 16 * 16)
    assert (fast(pixels) - plain(pixels)).abs().max() <= 1e-5 * plain(pixels).abs().max()


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_the_norm_of_the_vae_in_both_layouts(form: torch.memory_format) -> None:
    norm = ChannelNorm(12)
    torch.nn.init.normal_(norm.gamma, 1.0, 0.3)
    x = torch.randn(2, 12, 5, 7)
    x[0, :, 1, 1] = 0  # a pixel without length
    x[0, :, 2, 2] *= 1e-9
    plain = x / x.norm(dim=1, keepdim=True).clamp_min(1e-12) * 12**0.5 * norm.gamma
    with torch.inference_mode():
        got = norm(x.to(memory_format=form))
    trained = TrainableNorm(norm)(x.to(memory_format=form))
    assert got.is_contiguous(memory_format=form)
    assert torch.allclose(got, plain, atol=1e-5)
    assert torch.allclose(trained, plain, atol=1e-5)


@torch.no_grad()
def test_a_last_block_for_the_target_alone(ours: JoyImageBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    dit = ours.dit
    torch.manual_seed(2)
    lengths = TextLengths.of([5, 9])
    items = [torch.randn(2, 16, 8, 12), torch.randn(2, 16, 8, 12)]
    txt, mods = torch.randn(14, dit.cfg.hidden_size), dit.modulations(torch.tensor([300.0]))
    fast = dit.predict(items, mods, txt, lengths)
    monkeypatch.setattr(dit, "strategy", UntrimmedBlocks)
    plain = dit.predict(items, mods, txt, lengths)
    assert (fast - plain).abs().max() <= 1e-5 * plain.abs().max()


@torch.no_grad()
def test_modulations_of_a_whole_schedule_are_those_of_each_step(ours: JoyImageBackend) -> None:
    timesteps = torch.tensor([1000.0, 730.0, 12.5])
    whole = ours.dit.modulations(timesteps)
    for number in range(3):
        assert torch.allclose(whole[number], ours.dit.modulations(timesteps[number : number + 1])[0], atol=1e-6)


def test_a_picture_from_the_cache_is_the_picture_without(ours: JoyImageBackend) -> None:
    edit = Edit(text=TEXTS[1], images=[picture(256, 320, seed=5)])
    ours.cache.clear()
    (cold,) = run(ours, edit)
    misses = ours.cache.misses
    (warm,) = run(ours, edit)
    assert ours.cache.misses == misses
    assert levels_apart(cold, warm) == 0


def test_four_instructions_for_one_picture_open_once(ours: JoyImageBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("see", "read_together"):
        real = getattr(ours.conditioner, name)
        monkeypatch.setattr(ours.conditioner, name, lambda *a, real=real, name=name: calls.append(name) or real(*a))
    image = picture(256, 320, seed=99)
    ours.encode(batch_of([Edit(text=text or "Nothing.", images=[image]) for text in TEXTS]))
    assert calls == ["see", "read_together"]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_other_seeds_and_steps_read_nothing_again(
    ours: JoyImageBackend, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The pictures are those of single runs, bit for bit where the batches are alike."""
    shown = picture(256, 320, seed=5)
    edits = [Edit(text="Red.", images=[shown], seed=seed, steps=2) for seed in range(4)]
    calls: list[str] = []

    def counted(owner: object, name: str) -> None:
        call = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: calls.append(name) or call(*a, **k))

    counted(ours.conditioner, "see")
    counted(ours.conditioner, "read_together")
    counted(ours._encoder, "_vae_encode")
    plain = []
    for edit in edits:
        ours.cache.clear()
        plain += run(ours, edit)
    assert sorted(set(calls)) == ["_vae_encode", "read_together", "see"]
    ours.cache.clear()
    calls.clear()
    made = [image for start in range(0, 4, size) for image in run(ours, *edits[start : start + size])]
    other_steps = run(ours, Edit(text="Red.", images=[shown], seed=0, steps=3))[0]
    assert calls.count("see") == calls.count("_vae_encode") == 1
    assert calls.count("read_together") <= 2  # what all prompts begin with may be read by itself
    for mine, alone in zip(made, plain, strict=True):
        assert levels_apart(mine, alone) <= (0 if size == 1 else 1)
    ours.cache.clear()
    assert levels_apart(other_steps, run(ours, Edit(text="Red.", images=[shown], seed=0, steps=3))[0]) == 0


def test_batches_that_are_read_ahead_share_their_texts(ours: JoyImageBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of one picture and text, prepared side by side: the text is read once, and the features are the same."""
    shown = picture(256, 320, seed=6)
    batches = [batch_of([Edit(text="Blue.", images=[shown], seed=seed)]) for seed in range(3)]
    batches = [
        replace(batch, items=(replace(batch.items[0], sized=named_as(batch.items[0].sized, str(number))),))
        for number, batch in enumerate(batches)
    ]
    ours.cache.clear()
    alone = [ours.encode(batch).conditioning for batch in batches]
    ours.cache.clear()
    read: list[int] = []
    together = ours.conditioner.read_together
    monkeypatch.setattr(
        ours.conditioner,
        "read_together",
        lambda prompts: read.append(sum(len(one.instructions) for one in prompts)) or together(prompts),
    )
    ours.prepare(batches)
    prepared = [ours.encode(batch).conditioning for batch in batches]
    assert sum(read) == 1
    for mine, plain in zip(prepared, alone, strict=True):
        for one, other in zip((*mine.positive, *mine.negative), (*plain.positive, *plain.negative), strict=True):
            assert torch.equal(one, other)


def named_as(sized: SizedItem, name: str) -> SizedItem:
    return replace(sized, item=replace(sized.item, id=name))
