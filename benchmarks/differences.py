"""How far joyedit's networks are from diffusers' on the same weights and inputs, and both from fp32.

In bf16 no two ways to compute agree; what tells is how far each is from fp32. fp32 is joyedit's network as
written, with weights widened as their turn comes, so that it takes little more memory than in bf16.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from joyedit.models.attention import TextLengths, sdpa_attention
from joyedit.models.blocks import DoubleBlock
from joyedit.models.dit import DiT
from joyedit.models.strategies import ForwardPass, InPlaceBlocks, RunBlock
from joyedit.models.vae import VAE
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.conditioning import Conditioner
from joyedit.runtime.joyimage.denoise import Conditioning
from joyedit.runtime.joyimage.pixels import pixels_of

TIMESTEP = 571.3
"""Of the forward that is compared: in the middle of the schedule, and no number that bf16 holds."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One stage: for each pair of sides the norm of the difference, in parts of the norm of the second."""

    stage: str
    apart: Mapping[str, float] = field(default_factory=dict)
    fault: str = ""

    @classmethod
    def of(cls, stage: str, ours: Tensor, theirs: Tensor, fp32: Tensor) -> Difference:
        pairs = {"joyedit, diffusers": (ours, theirs), "joyedit, fp32": (ours, fp32), "diffusers, fp32": (theirs, fp32)}
        return cls(stage=stage, apart={name: _apart(one, other) for name, (one, other) in pairs.items()})

    def row(self) -> str:
        message = "".join(f"   {pair} {apart:.5f}" for pair, apart in self.apart.items())
        return f"{self.stage:<34}" + (message or f" FAILED: {self.fault}")


def differences(
    ours: JoyImageBackend, theirs: Any, given: Conditioning, picture: Image.Image, text: str
) -> Iterator[Difference]:
    """All stages; one that fails is told. `given`: the conditioning of one edit of the fitted `picture` by `text`."""
    stages: dict[str, Callable[[], tuple[Tensor, Tensor, Tensor]]] = {
        "text features": lambda: features(ours, theirs, given, picture, text),
        "reference latent": lambda: reference(ours, theirs, given, picture),
        "DiT, one branch": lambda: velocity(ours, theirs, given),
        "VAE decode": lambda: decoded(ours, theirs, given.noise),
    }
    tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        for name, stage in stages.items():
            try:
                yield Difference.of(name, *stage())
            except Exception as error:  # of either side: the other stages still count
                message = (str(error).strip() or "no message").splitlines()[0][:300]
                yield Difference(stage=name, fault=f"{type(error).__name__}: {message}")
    finally:
        torch.backends.cudnn.allow_tf32 = tf32


def features(
    ours: JoyImageBackend, theirs: Any, given: Conditioning, picture: Image.Image, text: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The instruction's features (L, D)."""
    with torch.no_grad():
        embeddings, _ = theirs.encode_prompt_multiple_images(
            [text], device=ours.device, images=picture, max_sequence_length=4096
        )
    model = ours.text_encoder.model
    blocks = [*model.language_model.layers, *model.visual.blocks]
    with torch.inference_mode(), widened(model, blocks) as turns, turns.when_called():
        conditioner: Conditioner = copy.copy(ours.conditioner)
        conditioner._beginning = None  # what was read in bf16
        wide = conditioner.read_suffixes(conditioner.read_prefix([conditioner.see(picture)]), [text], True)[0]
    return given.positive[0], embeddings[0], wide


def reference(
    ours: JoyImageBackend, theirs: Any, given: Conditioning, picture: Image.Image
) -> tuple[Tensor, Tensor, Tensor]:
    """The picture's latent (1, C, h, w), normalised."""
    with torch.no_grad():
        _, latents = theirs.prepare_latents(
            1, ours.vae.cfg.z_dim, picture.height, picture.width, 1, ours.vae.dtype, ours.device,
            torch.Generator().manual_seed(0), image=[picture],
        )  # fmt: skip
    with torch.inference_mode():
        wide = _wide_vae(ours).encode(pixels_of(picture, ours.device))
    return given.references[0], latents[0, :, :, 0], wide


def velocity(ours: JoyImageBackend, theirs: Any, given: Conditioning) -> tuple[Tensor, Tensor, Tensor]:
    """What the DiT says of the noise (1, C, h, w), by one instruction's features."""
    dit, text = ours.dit, given.positive[0]
    # Both are given what bf16 holds, so that the fp32 network has the same input.
    noise, reference = (x.to(ours.vae.dtype).float() for x in (given.noise, given.references[0]))
    timestep = torch.full((1,), TIMESTEP, device=ours.device)

    def predict() -> Tensor:
        with torch.inference_mode():
            embedded = dit.embed_text(text)
            out: Tensor = dit([noise, reference], timestep, embedded, TextLengths.of([len(text)]))
            return out.float()

    with torch.no_grad():  # a copy, as compiled code would tell a tensor of inference mode apart
        latents = torch.stack([reference, noise], dim=1)[:, :, :, None].to(ours.vae.dtype)
        said = theirs.transformer(
            hidden_states=latents, timestep=timestep, encoder_hidden_states=text[None].clone(), return_dict=False
        )[0]
    mine = predict()
    with widened(dit, dit.blocks()) as turns, written(dit, turns, ours.info.fused):
        wide = predict()
    return mine, said[:, -1, :, 0], wide


def decoded(ours: JoyImageBackend, theirs: Any, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels (1, 3, H, W) of a latent, clamped as they are on their way to a picture."""
    latent = latent.to(ours.vae.dtype).float()
    with torch.no_grad():
        raw = theirs.denormalize_latents(latent[:, :, None].to(ours.vae.dtype))
        said = theirs.vae.decode(raw, return_dict=False)[0][:, :, 0]
    with torch.inference_mode():
        mine, wide = ours.vae.decode(latent), _wide_vae(ours).decode(latent)
    return mine.clamp(-1, 1), said.clamp(-1, 1), wide.clamp(-1, 1)


class Widening:
    """Blocks of a network in bf16, each in fp32 while it runs."""

    def __init__(self, blocks: Iterable[nn.Module], kept: Mapping[nn.Parameter, Tensor]) -> None:
        self._blocks = list(blocks)
        self._kept = kept

    @contextmanager
    def of(self, block: nn.Module) -> Iterator[None]:
        """This block's turn."""
        for parameter in block.parameters():
            parameter.data = self._kept[parameter].float()
        try:
            yield
        finally:
            for parameter in block.parameters():
                parameter.data = self._kept[parameter]

    @contextmanager
    def when_called(self) -> Iterator[None]:
        """Each block has its turn when it is called."""
        for block in self._blocks:
            block.forward = self._inside(block, block.forward)
        try:
            yield
        finally:
            for block in self._blocks:
                del block.forward

    def _inside(self, block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.of(block):
                return forward(*args, **kwargs)

        return call


@contextmanager
def widened(network: nn.Module, blocks: Iterable[nn.Module]) -> Iterator[Widening]:
    """A network in fp32, of whose blocks only one is so at a time; afterwards its weights are as they were."""
    kept = {parameter: parameter.data for parameter in network.parameters()}
    blocks = list(blocks)
    inside = {parameter for block in blocks for parameter in block.parameters()}
    try:
        for parameter in kept.keys() - inside:
            parameter.data = kept[parameter].float()
        yield Widening(blocks, kept)
    finally:
        for parameter, data in kept.items():
            parameter.data = data


@contextmanager
def written(dit: DiT, turns: Widening, fused: bool) -> Iterator[None]:
    """Blocks and attention as they are written; afterwards fused, if they were."""

    def strategy(forward: ForwardPass) -> RunBlock:
        run = InPlaceBlocks(forward)

        def block_of(
            block: DoubleBlock, layer: int, img: Tensor, txt: Tensor, target: int | None
        ) -> tuple[Tensor, Tensor]:
            with turns.of(block):
                return run(block, layer, img, txt, target)

        return block_of

    attend = dit.attend
    dit.strategy = strategy
    dit.attend = sdpa_attention
    try:
        yield
    finally:
        dit.attend = attend
        (dit.fuse_blocks if fused else dit.plain_blocks)()


def _wide_vae(ours: JoyImageBackend) -> VAE:
    """As written, with the same weights in fp32."""
    vae = VAE(ours.vae.cfg).to(ours.device)
    vae.load_state_dict(ours.vae.state_dict())
    return vae.eval().requires_grad_(False)


def _apart(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        raise ValueError(f"one is of {tuple(one.shape)}, the other of {tuple(other.shape)}")
    return float((one.float() - other.float()).norm() / other.float().norm())
