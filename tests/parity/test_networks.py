"""Each network against diffusers' and transformers' own, through the production loader."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from joyedit.models.attention import TextLengths
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.pixels import pixels_of
from support.editing import Edit, batch_of, picture

TOLERANCE = 1e-4
"""Of the reference's largest value."""


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert theirs.abs().max() > 0.05, "the reference is flat: the comparison would show nothing"
    assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()


@pytest.mark.parametrize("items", [1, 2, 3])
@pytest.mark.parametrize("grid", [(8, 12), (14, 6)])
@torch.no_grad()
def test_dit_matches_diffusers(ours: JoyImageBackend, theirs: Any, items: int, grid: tuple[int, int]) -> None:
    torch.manual_seed(items)
    latents = torch.randn(2, items, 16, 1, *grid)  # the reference takes the target last
    txt = torch.randn(2, 9, ours.dit.cfg.text_dim)
    timestep = torch.tensor([730.0, 730.0])
    expected = theirs.transformer(
        hidden_states=latents, timestep=timestep, encoder_hidden_states=txt, return_dict=False
    )[0][:, -1, :, 0]
    order = [items - 1, *range(items - 1)]
    got = ours.dit(
        [latents[:, i, :, 0] for i in order],
        timestep[:1],
        ours.dit.embed_text(txt.flatten(0, 1)),
        TextLengths.of([9, 9]),
    )
    assert_close(got, expected)


@torch.no_grad()
def test_dit_takes_a_timestep_for_each_sample(ours: JoyImageBackend, theirs: Any) -> None:
    torch.manual_seed(5)
    latents = torch.randn(2, 2, 16, 1, 8, 8)
    txt = torch.randn(2, 5, ours.dit.cfg.text_dim)
    timestep = torch.tensor([900.0, 40.0])
    expected = theirs.transformer(
        hidden_states=latents, timestep=timestep, encoder_hidden_states=txt, return_dict=False
    )[0][:, -1, :, 0]
    got = ours.dit(
        [latents[:, 1, :, 0], latents[:, 0, :, 0]],
        timestep,
        ours.dit.embed_text(txt.flatten(0, 1)),
        TextLengths.of([5, 5]),
    )
    assert_close(got, expected)


@torch.no_grad()
def test_dit_with_references_of_other_sizes_matches_edit_plus(ours_plus: JoyImageBackend, theirs_plus: Any) -> None:
    torch.manual_seed(6)
    latents = [torch.randn(1, 16, 8, 12), torch.randn(1, 16, 10, 6), torch.randn(1, 16, 4, 4)]
    txt = torch.randn(1, 7, ours_plus.dit.cfg.text_dim)
    timestep = torch.tensor([512.0])
    patches, shapes = [], []
    for latent in latents:
        rows, columns = latent.shape[2] // 2, latent.shape[3] // 2
        cut = latent[0].reshape(16, rows, 2, columns, 2).permute(1, 3, 0, 2, 4)
        patches.append(cut.reshape(rows * columns, 16, 1, 2, 2))
        shapes.append((1, rows, columns))
    flat = theirs_plus.transformer(
        hidden_states=torch.cat(patches)[None],
        timestep=timestep,
        encoder_hidden_states=txt,
        encoder_hidden_states_mask=torch.ones(1, 7, dtype=torch.long),
        shape_list=[shapes],
        return_dict=False,
    )[0]
    target = flat[0, : 4 * 6].reshape(4, 6, 16, 2, 2).permute(2, 0, 3, 1, 4).reshape(1, 16, 8, 12)
    got = ours_plus.dit(latents, timestep, ours_plus.dit.embed_text(txt[0]), TextLengths.of([7]))
    assert_close(got, target)


@pytest.mark.parametrize("size", [(64, 96), (128, 48)])
@torch.no_grad()
def test_vae_encoder_matches_the_3d_network(ours: JoyImageBackend, theirs: Any, size: tuple[int, int]) -> None:
    pixels = pixels_of(picture(*size), torch.device("cpu"))
    expected = theirs.vae.encode(pixels[:, :, None]).latent_dist.mode()
    assert_close(ours.vae.moments(pixels)[0], expected[:, :, 0])
    assert_close(ours.vae.encode(pixels), theirs.normalize_latents(expected)[:, :, 0])


@torch.no_grad()
def test_vae_decoder_matches_the_3d_network(ours: JoyImageBackend, theirs: Any) -> None:
    latent = torch.randn(1, 16, 8, 12, generator=torch.Generator().manual_seed(1))
    expected = theirs.vae.decode(theirs.denormalize_latents(latent[:, :, None])).sample[:, :, 0]
    assert_close(ours.vae.decode(latent), expected)


@pytest.mark.parametrize("images", [0, 1])
@torch.no_grad()
def test_features_match_the_pipeline(ours: JoyImageBackend, theirs: Any, images: int) -> None:
    text = "Turn the sky red, and add two birds."
    seen = [picture(224, 288, seed=i) for i in range(images)]
    if images:
        expected, _ = theirs.encode_prompt_multiple_images([text], images=seen, max_sequence_length=4096)
    else:
        expected, _ = theirs.encode_prompt([text])
    (got,) = ours.encode(batch_of([Edit(text=text, images=seen, guidance=1.0)])).conditioning.positive
    assert_close(got, expected[0])


@torch.no_grad()
def test_features_of_two_references_match_edit_plus(ours_plus: JoyImageBackend, theirs_plus: Any) -> None:
    seen = [picture(224, 288, seed=1), picture(288, 224, seed=2)]
    prompt = "<|im_start|>user\n<image>\n<image>\nPut both together.<|im_end|>\n"
    expected, _ = theirs_plus.encode_prompt_multiple_images([prompt], images=seen)
    edit = Edit(text="Put both together.", images=seen, guidance=1.0)
    (got,) = ours_plus.encode(batch_of([edit])).conditioning.positive
    assert_close(got, expected[0])


@torch.no_grad()
def test_features_are_taken_before_the_final_norm(ours: JoyImageBackend) -> None:
    """The norm would make every token's mean square the gain's; the raw features vary by token."""
    edit = Edit(text="Turn the sky red.", images=[picture(256, 256)], guidance=1.0)
    (features,) = ours.encode(batch_of([edit])).conditioning.positive
    norm = ours.text_encoder.model.language_model.norm
    assert (F.rms_norm(features, norm.weight.shape, norm.weight, norm.eps) - features).abs().max() > 0.5
    assert norm(features) is features, "nothing runs behind the last layer"
    scale = features.square().mean(1).sqrt()
    assert scale.max() / scale.min() > 1.05
