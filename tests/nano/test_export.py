"""What export writes, diffusers reads: the same networks come out on the other side."""

from __future__ import annotations

from pathlib import Path

import torch

from joyedit.job.run_config import RunConfig
from joyedit.runtime.joyimage.loading import load_backend
from nano.export import export_diffusers
from support.checkpoints import write_tokenizer


def test_a_round_trip_through_the_layout(tmp_path: Path, diffusers_checkpoint: Path) -> None:
    from diffusers import AutoencoderKLWan, JoyImageEditTransformer3DModel

    loaded = load_backend(RunConfig(output=tmp_path, model=str(diffusers_checkpoint)))
    encoder = loaded.text_encoder
    folder = tmp_path / "exported"
    export_diffusers(folder, loaded.dit, loaded.vae, encoder, dtype=torch.float32, defaults={"steps": 5})
    write_tokenizer(folder / "tokenizer")
    (folder / "tokenizer" / "preprocessor_config.json").write_bytes(
        (diffusers_checkpoint / "processor" / "preprocessor_config.json").read_bytes()
    )
    again = load_backend(RunConfig(output=tmp_path, model=str(folder)))
    for mine, other in ((loaded.dit, again.dit), (loaded.vae, again.vae), (encoder, again.text_encoder)):
        for (name, a), (_, b) in zip(mine.named_parameters(), other.named_parameters(), strict=True):
            assert torch.equal(a, b), name

    transformer = JoyImageEditTransformer3DModel.from_pretrained(folder / "transformer")
    original = JoyImageEditTransformer3DModel.from_pretrained(diffusers_checkpoint / "transformer")
    assert all(torch.equal(a, b) for a, b in zip(transformer.parameters(), original.parameters(), strict=True))
    vae = AutoencoderKLWan.from_pretrained(folder / "vae")
    theirs = AutoencoderKLWan.from_pretrained(diffusers_checkpoint / "vae")
    pixels = torch.rand(1, 3, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        ours = vae.encode(pixels).latent_dist.mode()
        assert torch.allclose(ours, theirs.encode(pixels).latent_dist.mode(), atol=1e-6)
        assert torch.allclose(vae.decode(ours).sample, theirs.decode(ours).sample, atol=1e-6)
