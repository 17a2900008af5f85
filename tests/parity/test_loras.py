"""LoRAs against PEFT on the reference's transformer, and merged against side by side: fp32 on the CPU."""

from __future__ import annotations

import functools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from joyedit.errors import CheckpointError, ItemError
from joyedit.models.attention import TextLengths
from joyedit.models.compiled_blocks import compiled_forward
from joyedit.models.lora import LowRank, merge
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.denoise import denoise
from joyedit.weights.lora_file import layer_shapes
from support import editing, reference
from support.editing import Edit, levels_apart, picture
from support.loras import LAYERS, lora_of, matrices, named, write

IMAGE = picture(256, 256)


def edit(*loras: Any, text: str = "Make it red.", **more: Any) -> Edit:
    return Edit(text=text, images=[IMAGE], loras=loras, **more)


def latents(model: JoyImageBackend, *edits: Edit) -> torch.Tensor:
    return model.denoise(model.encode(editing.batch_of(edits)), lambda done, total: None)


@pytest.fixture(scope="module")
def plain(diffusers_checkpoint: Path) -> JoyImageBackend:
    return editing.backend(diffusers_checkpoint)


@pytest.fixture(scope="module")
def files(plain: JoyImageBackend, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("loras")
    shapes = layer_shapes(plain.dit)
    everything = tuple(name for name in shapes if name != "img_in")
    made = {
        "some": write(folder / "some.safetensors", named(matrices(shapes))),
        "other": write(folder / "other.safetensors", named(matrices(shapes, rank=2, seed=3), "kohya")),
        "all": write(folder / "all.safetensors", named(matrices(shapes, everything, rank=3, seed=5), "peft")),
    }
    return {name: lora_of(path) for name, path in made.items()}


@pytest.mark.parametrize("rslora", [False, True])
def test_as_peft(diffusers_checkpoint: Path, tmp_path: Path, rslora: bool) -> None:
    peft = pytest.importorskip("peft")
    theirs = reference.pipeline(diffusers_checkpoint)
    config = peft.LoraConfig(
        r=4, lora_alpha=6, use_rslora=rslora, rank_pattern={"net.2": 2}, alpha_pattern={"img_attn_proj": 3},
        target_modules=["img_attn_qkv", "txt_attn_qkv", "img_attn_proj", "txt_attn_proj", "net.2", "time_proj"],
    )  # fmt: skip
    network = peft.get_peft_model(theirs.transformer, config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    network.save_pretrained(tmp_path / "adapter")
    theirs.transformer = network.base_model.model
    lora = lora_of(tmp_path / "adapter")
    ours = editing.backend(diffusers_checkpoint, merged_loras=(lora,))
    beside = editing.backend(diffusers_checkpoint, lora_sets=((lora,),))
    without = editing.backend(diffusers_checkpoint)
    generator.manual_seed(2)
    items = [torch.randn(1, 16, 8, 12, generator=generator) for _ in range(2)]
    txt = torch.randn(9, without.dit.cfg.text_dim, generator=generator)
    with torch.inference_mode():
        expected = reference_velocity(theirs.transformer, items, txt)
        assert (velocity(ours, items, txt) - expected).abs().max() < 1e-4
        assert (velocity(without, items, txt) - expected).abs().max() > 0.05
        with beside._lora_layers.changed(1, beside._loras.changes((lora,), beside.device)):
            assert velocity(beside, items, txt).equal(velocity(ours, items, txt))
        assert velocity(beside, items, txt).equal(velocity(without, items, txt))


def velocity(model: JoyImageBackend, items: list[torch.Tensor], txt: torch.Tensor) -> torch.Tensor:
    dit = model.dit
    return dit(items, torch.full((1,), 500.0), dit.embed_text(txt), TextLengths.of([len(txt)]))


def reference_velocity(network: Any, items: list[torch.Tensor], txt: torch.Tensor) -> torch.Tensor:
    out = network(
        hidden_states=torch.stack(items[::-1], dim=1).unsqueeze(3),  # it takes the target last
        timestep=torch.full((1,), 500.0),
        encoder_hidden_states=txt[None],
        return_dict=False,
    )[0]
    return out[:, -1, :, 0]


def test_merge_is_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5000, 24, generator=generator).to(torch.bfloat16)
    changes = [
        LowRank(
            down=torch.randn(rank, 24, generator=generator),
            up=torch.randn(5000, rank, generator=generator).to(torch.float16),
            factor=factor,
        )
        for rank, factor in ((3, 0.7), (5, -1.3))
    ]
    exact = weight.double() + sum(c.factor * (c.up.double() @ c.down.double()) for c in changes)
    made = merge(weight, changes, torch.empty_like(weight))
    off = (made.double() - exact).abs()
    assert (off <= exact.abs() * 2**-8 + 1e-6).all()  # one rounding to 8 bits
    assert made.eq(exact.to(torch.bfloat16)).float().mean() > 0.999
    assert merge(weight, changes, weight) is weight
    assert weight.equal(made)


@pytest.mark.parametrize("name", ["some", "all"])
@pytest.mark.parametrize("offload", ["auto", "blocks"])
def test_merged_and_side_by_side_are_the_same(
    diffusers_checkpoint: Path, plain: JoyImageBackend, files: dict[str, Any], name: str, offload: str
) -> None:
    lora = files[name]
    merged = latents(editing.backend(diffusers_checkpoint, merged_loras=(lora,), offload=offload), edit(lora))
    model = editing.backend(diffusers_checkpoint, lora_sets=((lora,), ()), offload=offload)
    without = latents(plain, edit())
    assert not torch.allclose(merged, without, atol=0.1)
    assert latents(model, edit(lora)).equal(merged)
    assert latents(model, edit()).equal(without)
    model.free_memory()  # as after a lack of memory: nothing is kept from step to step
    assert model._lora_layers.kept_bytes == 0
    assert latents(model, edit(lora)).equal(merged)


def test_room_for_some_weights(diffusers_checkpoint: Path, files: dict[str, Any]) -> None:
    lora = files["all"]
    model = editing.backend(diffusers_checkpoint, lora_sets=((lora,), ()))
    kept = latents(model, edit(lora))
    assert model._lora_layers.kept_bytes == model._loras.changed_bytes(4)
    model._lora_layers.drop()
    model._lora_layers._room = 100_000
    assert latents(model, edit(lora)).equal(kept)
    rest = sum(
        p.nbytes
        for name, p in model.dit.named_parameters()
        if name.endswith("weight") and not name.startswith("double_")
    )
    assert 0 < model._lora_layers.kept_bytes < 100_000 + rest


def test_sets_add_up_and_follow_each_other(
    diffusers_checkpoint: Path, plain: JoyImageBackend, files: dict[str, Any]
) -> None:
    both = (files["some"], files["other"])
    together = latents(editing.backend(diffusers_checkpoint, merged_loras=both), edit(*both))
    alone = [latents(editing.backend(diffusers_checkpoint, merged_loras=(one,)), edit(one)) for one in both]
    model = editing.backend(diffusers_checkpoint, lora_sets=(both, both[:1], both[1:]))
    for _ in range(2):
        assert latents(model, edit(*both)).equal(together)
        assert latents(model, edit(both[0])).equal(alone[0])
        assert latents(model, edit(both[1])).equal(alone[1])
        assert latents(model, edit()).equal(latents(plain, edit()))


def test_a_batch_is_as_its_items(diffusers_checkpoint: Path, files: dict[str, Any]) -> None:
    model = editing.backend(diffusers_checkpoint, lora_sets=((files["some"],), ()))
    edits = [edit(files["some"], text=text, seed=seed) for text, seed in (("Make it red.", 1), ("Remove it all.", 2))]
    together = editing.run(model, *edits)
    for one, made in zip(edits, together, strict=True):
        assert levels_apart(editing.run(model, one)[0], made) <= 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_every_way_to_run_the_blocks(
    diffusers_checkpoint: Path, files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    compiled_forward.cache_clear()
    lora = files["some"]
    merged = editing.backend(diffusers_checkpoint, merged_loras=(lora,))
    model = editing.backend(diffusers_checkpoint, lora_sets=((lora,), ()))
    plain = latents(model, edit(steps=2))
    for switch in ("compile_blocks", "plain_blocks"):
        for one in (merged, model):
            getattr(one.dit, switch)()
        expected = latents(merged, edit(lora, steps=2))
        assert latents(model, edit(lora, steps=2)).equal(expected)
        torch.testing.assert_close(latents(model, edit(steps=2)), plain, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(expected, plain, atol=0.1)
    torch._dynamo.reset()
    compiled_forward.cache_clear()


def test_original_names_and_pickled_weights(original_checkpoint: Path, files: dict[str, Any]) -> None:
    lora = files["some"]
    merged = latents(editing.backend(original_checkpoint, merged_loras=(lora,)), edit(lora))
    beside = editing.backend(original_checkpoint, lora_sets=((lora,),), offload="blocks")
    assert latents(beside, edit(lora)).equal(merged)


def test_faults(diffusers_checkpoint: Path, files: dict[str, Any], tmp_path: Path) -> None:
    shapes = {layer: (100, 10) for layer in LAYERS}
    wrong = lora_of(write(tmp_path / "wrong.safetensors", named(matrices(shapes))))
    for options in ({"merged_loras": (wrong,)}, {"lora_sets": ((wrong,), ())}):
        with pytest.raises(CheckpointError, match="6 shapes that do not fit"):
            editing.backend(diffusers_checkpoint, **options)
    model = editing.backend(diffusers_checkpoint, merged_loras=(files["some"],))
    with pytest.raises(ItemError, match="start the run again") as caught:
        model.encode(editing.batch_of([edit()]))
    assert caught.value.code == "bad_lora"
    model = editing.backend(diffusers_checkpoint)
    with pytest.raises(ItemError, match="6 shapes that do not fit"):
        model.encode(editing.batch_of([edit(wrong)]))


def test_noise_levels_of_a_lora_and_of_a_checkpoint(
    diffusers_checkpoint: Path, files: dict[str, Any], tmp_path: Path
) -> None:
    levels = (1.0, 0.6, 0.2)
    folder = shutil.copytree(diffusers_checkpoint, tmp_path / "distilled")
    (folder / "joyedit.json").write_text('{"sigmas": [1, 0.6, 0.2, 0], "guidance_scale": 1}')
    distilled = editing.backend(folder)
    plain = editing.backend(diffusers_checkpoint)
    encoded = plain.encode(editing.batch_of([edit(guidance=1)]))
    expected = reference_steps(plain, encoded, levels)
    assert latents(distilled, edit(guidance=1)).equal(expected)
    assert not latents(plain, edit(guidance=1)).equal(expected)
    assert latents(distilled, edit(guidance=1, steps=2)).equal(latents(plain, edit(guidance=1, steps=2)))
    lora = replace(files["some"], sigmas=levels)
    model = editing.backend(diffusers_checkpoint, lora_sets=((lora,), ()))
    with_levels = latents(model, edit(lora, guidance=1))
    assert not with_levels.equal(latents(model, edit(files["some"], guidance=1)))


def reference_steps(model: JoyImageBackend, encoded: Any, levels: tuple[float, ...]) -> torch.Tensor:
    with torch.inference_mode():
        return denoise(model.dit, encoded.conditioning, torch.tensor([*levels, 0.0]))
