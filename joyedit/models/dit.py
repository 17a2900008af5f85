"""The diffusion transformer: double-stream blocks over image items and packed text.

Legend: B samples, S image tokens of all items of a sample, T text tokens of all samples, N timesteps, L blocks,
D channels a head, M hidden channels, C latent channels, h and w latent pixels.

The input is a list of items, [target, reference 1, reference 2, ...]; a text-to-image call has one
item, Edit two, Edit-Plus up to six. Source: the published configuration and tensor names of
jdopensource/JoyAI-Image-Edit-Diffusers; parameter names are those of that checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from joyedit.models.attention import AttentionFn, TextLengths, sdpa_attention
from joyedit.models.blocks import ConditionEmbedder, DoubleBlock, layer_norm
from joyedit.models.config import DiTConfig
from joyedit.models.region_blocks import KeptKeys, RegionBlocks
from joyedit.models.rope import TokenGrid, rope_table
from joyedit.models.shared_sequences import Exchange, SharedSequences
from joyedit.models.strategies import (
    ForwardPass,
    InPlaceBlocks,
    LayerWeights,
    ResidentWeights,
    RunBlock,
    Strategy,
)


def by_sample(linear: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer of (B, S, K), in inference one product a sample.

    A product of more rows may be another kernel, and a sample would have other roundings in company than alone.
    """
    if len(x) == 1 or torch.is_grad_enabled():
        whole: Tensor = linear(x)
        return whole
    return torch.stack([linear(one) for one in x])


@dataclass(kw_only=True, slots=True)
class BlockPass:
    """One forward on its way through the blocks: both streams as the blocks so far left them, and how to go on.

    `img` (B, S, M) and packed `txt` (T, M); behind the last block only the first `target` image tokens are there.
    With an exchange, S, T and `target` count the tokens of this rank (`shared`). Where only some of the target's
    tokens run, S and `target` count these, and `places` (S,) says which of the target they are.
    """

    img: Tensor
    txt: Tensor
    target: int
    grid: TokenGrid
    run: RunBlock
    shared: SharedSequences | None = None
    places: Tensor | None = None

    @property
    def target_tokens(self) -> Tensor:
        """The target's part of the image stream, (B, target, M)."""
        return self.img[:, : self.target]


class DiT(nn.Module):
    """`JoyImageEditTransformer3DModel` of the published checkpoint, for any number of items."""

    def __init__(self, cfg: DiTConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.attend: AttentionFn = sdpa_attention
        self.strategy: Strategy = InPlaceBlocks
        self.weights: LayerWeights = ResidentWeights()
        # A Conv3d in the checkpoint; with kernel = stride = patch it is one linear layer a patch.
        self.img_in = nn.Linear(cfg.in_channels * cfg.patch[0] * cfg.patch[1], cfg.hidden_size)
        self.condition_embedder = ConditionEmbedder(cfg)
        self.double_blocks = nn.ModuleList(DoubleBlock(cfg) for _ in range(cfg.num_layers))
        self.proj_out = nn.Linear(cfg.hidden_size, cfg.out_channels * cfg.patch[0] * cfg.patch[1])
        self._pe_cache: dict[tuple[tuple[TokenGrid, ...], torch.device], tuple[Tensor, Tensor]] = {}

    @property
    def dtype(self) -> torch.dtype:
        return self.proj_out.weight.dtype

    def plain_blocks(self) -> None:
        """Run the blocks as they are written, for inference."""
        self.strategy = InPlaceBlocks

    def fuse_blocks(self) -> None:
        """Run Triton kernels between the matrix products: for inference on CUDA. Raises ImportError without Triton."""
        from joyedit.models.fused_blocks import fused_blocks

        self.strategy = fused_blocks

    def compile_blocks(self) -> None:
        """Run compiled blocks. The first forward compiles them."""
        from joyedit.models.compiled_blocks import CompiledBlocks

        self.strategy = CompiledBlocks

    def patchify(self, latent: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, rows * columns, C * ph * pw), channel first inside a patch."""
        ph, pw = self.cfg.patch
        x = latent.unflatten(3, (-1, pw)).unflatten(2, (-1, ph))  # (B, C, rows, ph, columns, pw)
        patches: Tensor = x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return patches

    def unpatchify(self, tokens: Tensor, grid: TokenGrid) -> Tensor:
        """(B, rows * columns, ph * pw * C) -> (B, C, h, w); on the way out the channel comes last."""
        ph, pw = self.cfg.patch
        x = tokens.unflatten(1, grid).unflatten(3, (ph, pw, -1))  # (B, rows, columns, ph, pw, C)
        latent: Tensor = x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return latent

    def grid(self, latent: Tensor) -> TokenGrid:
        """Rows and columns of tokens of a latent (..., h, w)."""
        ph, pw = self.cfg.patch
        rows, columns = latent.shape[-2] // ph, latent.shape[-1] // pw
        if rows * ph != latent.shape[-2] or columns * pw != latent.shape[-1]:
            raise ValueError(f"latent of {tuple(latent.shape[-2:])} is not a multiple of the patch {ph}x{pw}")
        return rows, columns

    def position_table(self, grids: Sequence[TokenGrid], device: torch.device) -> tuple[Tensor, Tensor]:
        """The rotary table of these items, kept for the next step with the same shapes."""
        key = (tuple(grids), device)
        if key not in self._pe_cache:
            if len(self._pe_cache) >= 32:
                self._pe_cache.clear()
            self._pe_cache[key] = rope_table(grids, self.cfg.rope_dims, self.cfg.theta, device)
        return self._pe_cache[key]

    def embed_text(self, txt: Tensor) -> Tensor:
        """Encoder features (T, text_dim) -> (T, M). The same at every step, so done once an edit."""
        out: Tensor = self.condition_embedder.text_embedder(txt.to(self.dtype))
        return out

    def modulations(self, timestep: Tensor) -> Tensor:
        """Shift, 1 + scale and gate of every block and stream at these timesteps, from 0 to 1000.

        (N,) -> (N, L, 2, 6, M), streams image and text. It depends on nothing else, so a run makes it
        once for its whole schedule.
        """
        tables = torch.stack(
            [torch.cat([b.img_mod.modulate_table, b.txt_mod.modulate_table]) for b in self.blocks()]
        )  # (L, 2, 6, M)
        shift, scale, gate, *mlp = (tables + self.condition_embedder.time(timestep)[:, None, None]).unbind(3)
        return torch.stack([shift, scale + 1, gate, mlp[0], mlp[1] + 1, mlp[2]], dim=3)

    def blocks(self) -> list[DoubleBlock]:
        return [block for block in self.double_blocks if isinstance(block, DoubleBlock)]

    def forward(self, items: Sequence[Tensor], timestep: Tensor, txt: Tensor, text: TextLengths) -> Tensor:
        """Velocity of the target: `predict` at these timesteps, (1,) or (B,), from 0 to 1000."""
        return self.predict(items, self.modulations(timestep), txt, text)

    def predict(
        self,
        items: Sequence[Tensor],
        mods: Tensor,
        txt: Tensor,
        text: TextLengths,
        exchange: Exchange | None = None,
        *,
        images: Sequence[int] | None = None,
    ) -> Tensor:
        """Velocity of the target.

        `items`: latents [target, reference 1, ...], each (B, C, h_i, w_i), normalised as the VAE's
        config says. Where samples share images, `images` says for each of the B samples which of fewer it has.
        `mods`: (1 or B, L, 2, 6, M) of `modulations`. `txt`: (T, M), packed and embedded by `embed_text`,
        with its lengths. Returns (B, C, h_0, w_0) in the network's dtype.
        With an `exchange`, all its ranks are given the same, each computes some of the tokens, and each gets the whole
        velocity.
        """
        running = self.begin(items, mods, txt, text, exchange, images=images)
        self.run_blocks([running], range(len(self.double_blocks)))
        return self.velocity(running, running.target_tokens)

    def begin(
        self,
        items: Sequence[Tensor],
        mods: Tensor,
        txt: Tensor,
        text: TextLengths,
        exchange: Exchange | None = None,
        *,
        images: Sequence[int] | None = None,
        keep: KeptKeys | None = None,
    ) -> BlockPass:
        """What `predict` does before the blocks, given the same. `keep` gets keys and values of all blocks on the way:
        of one sample, without an exchange.
        """
        samples = len(items[0]) if images is None else len(images)
        if len(text.lengths) != samples or text.total != txt.shape[0]:
            raise ValueError(
                f"{len(text.lengths)} texts of {text.total} tokens given for {samples} samples"
                f" and {txt.shape[0]} tokens"
            )
        grids = [self.grid(item) for item in items]
        patches = [self.patchify(item.to(self.dtype)) for item in items]
        target, pe, attend = patches[0].shape[1], self.position_table(grids, txt.device), self.attend
        if keep is not None:
            attend = keep.around(attend)
        shared = None if exchange is None else SharedSequences(exchange, [part.shape[1] for part in patches], text)
        if shared is None:
            img = by_sample(self.img_in, torch.cat(patches, dim=1))  # (B or fewer, S, M)
        else:  # from here on, S and T count this rank's tokens
            img, txt = by_sample(self.img_in, shared.image_part(patches, 1)), shared.text_part(txt)
            text, target, pe, attend = shared.text, shared.target, shared.positions(pe), shared.attention(attend)
        if images is not None and list(images) != list(range(len(img))):  # else they are there as they should be
            img = torch.stack([img[image] for image in images])  # (B, S, M)
        forward = ForwardPass(
            attend=attend,
            text=text,
            pe=pe,
            img_mods=mods[:, :, 0].permute(1, 2, 0, 3).unsqueeze(3),  # (L, 6, 1 or B, 1, M)
            txt_mods=self._text_mods(mods, text),
            blocks=self.blocks(),
            images=tuple(images or ()),
        )
        return BlockPass(img=img, txt=txt, target=target, grid=grids[0], run=self.strategy(forward), shared=shared)

    def begin_region(self, items: Sequence[Tensor], mods: Tensor, kept: KeptKeys, places: Tensor) -> BlockPass:
        """What `begin` does where only the target's tokens at `places` (K,) run; all others are as `kept` has them.

        `items`: as in `begin`, of one sample. `mods`: (1, L, 2, 6, M).
        """
        grids = [self.grid(item) for item in items]
        cos, sin = self.position_table(grids, places.device)
        patches = self.patchify(items[0].to(self.dtype)).index_select(1, places)
        forward = ForwardPass(
            attend=self.attend,
            text=TextLengths.of([0]),
            pe=(cos[places], sin[places]),
            img_mods=mods[:, :, 0].permute(1, 2, 0, 3).unsqueeze(3),  # (L, 6, 1, 1, M)
            txt_mods=self._text_mods(mods, TextLengths.of([0])),
        )
        img = by_sample(self.img_in, patches)  # (1, K, M)
        run = RegionBlocks(forward, kept, places)
        return BlockPass(img=img, txt=img[0, :0], target=len(places), grid=grids[0], run=run, places=places)

    def run_blocks(self, passes: Sequence[BlockPass], layers: range) -> None:
        """Take forwards through some blocks in a row, each block for all of them; without forwards, nothing is done."""
        if not passes:
            return
        last = len(self.double_blocks) - 1
        blocks = self.blocks()
        for layer in layers:
            self.weights.need(layer)
            for one in passes:
                target = one.target if layer == last else None
                one.img, one.txt = one.run(blocks[layer], layer, one.img, one.txt, target)
            self.weights.used(layer)

    def velocity(self, running: BlockPass, tokens: Tensor) -> Tensor:
        """What `predict` does behind the blocks. `tokens`: the target's part of the image stream, (B, target, M)."""
        patches = by_sample(self.proj_out, layer_norm(tokens))
        if running.places is not None:  # what did not run has none
            rows, columns = running.grid
            whole = patches.new_zeros(1, rows * columns, patches.shape[2])
            patches = whole.index_copy_(1, running.places, patches)
        return self.unpatchify(patches if running.shared is None else running.shared.gather(patches), running.grid)

    def _text_mods(self, mods: Tensor, text: TextLengths) -> Tensor:
        """The text stream's part of `mods`, one vector a token where timesteps differ: (L, 6, 1 or T, M)."""
        txt_mods = mods[:, :, 1].permute(1, 2, 0, 3)  # (L, 6, 1 or B, M)
        if len(mods) == 1:
            return txt_mods
        # index_select, as the gradient of indexing sorts its many equal indices first.
        return txt_mods.index_select(2, text.sample_of_token(mods.device))
