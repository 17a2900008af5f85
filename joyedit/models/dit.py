"""The diffusion transformer: double-stream blocks over image items and packed text.

Legend: B samples, S image tokens of all items of a sample, T text tokens of all samples together,
N image and text tokens together, H heads, D channels a head, M = H * D hidden channels, C latent
channels, h and w latent pixels.

The input is a list of items, [target, reference 1, reference 2, ...]; a text-to-image call has one
item, Edit two, Edit-Plus up to six. Source: the published configuration and tensor names of
jdopensource/JoyAI-Image-Edit-Diffusers; parameter names are those of that checkpoint.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as fx_config

from joyedit.models.attention import Packed, Spans, TextLengths, sdpa_attention, separate
from joyedit.models.blocks import ConditionEmbedder, DoubleBlock, layer_norm
from joyedit.models.config import DiTConfig
from joyedit.models.rope import Grid, rope_table


class DiT(nn.Module):
    """`JoyImageEditTransformer3DModel` of the published checkpoint, for any number of items."""

    def __init__(self, cfg: DiTConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.attend: Callable[..., Any] = sdpa_attention  # an AttentionFn, where streams are joined
        # A Conv3d in the checkpoint; with kernel = stride = patch it is one linear layer a patch.
        self.img_in = nn.Linear(cfg.in_channels * cfg.patch[0] * cfg.patch[1], cfg.hidden_size)
        self.condition_embedder = ConditionEmbedder(cfg)
        self.double_blocks = nn.ModuleList(DoubleBlock(cfg) for _ in range(cfg.num_layers))
        self.proj_out = nn.Linear(cfg.hidden_size, cfg.out_channels * cfg.patch[0] * cfg.patch[1])
        # Off, the last block computes for all tokens what only the target's prediction is read from.
        self.trim_last_block = True
        # Off, `attend` takes and gives both streams apart (`Packed`), not joined: an attention that packs for itself.
        self.join_streams = True
        self.plain_blocks()
        self._pe_cache: dict[tuple[tuple[Grid, ...], torch.device], tuple[Tensor, Tensor]] = {}

    @property
    def dtype(self) -> torch.dtype:
        return self.proj_out.weight.dtype

    def plain_blocks(self) -> None:
        """Run the blocks as they are written."""
        self._before: Callable[..., Any] = DoubleBlock.before_attention
        self._after: Callable[..., Any] = DoubleBlock.after_attention
        self._finish: Callable[..., Any] = DoubleBlock.finish
        self._compiled = False
        self._fused: Callable[..., Tensor] | None = None

    def fuse_blocks(self) -> None:
        """Run Triton kernels between the matrix products. Raises ImportError where Triton is missing.

        For CUDA only. There they serve inference with one timestep for all samples; anything else runs as written.
        """
        from joyedit.models.fused_blocks import run_blocks

        self.plain_blocks()
        self._fused = run_blocks

    def compile_blocks(self) -> None:
        """Compile what lies before and after the attention, once for all blocks; the attention stays as it is.

        All sizes are dynamic, so that no instruction and no bucket compiles anew: rows are read whole,
        and their number decides nothing inside a kernel. Only another number of samples does.
        """
        self.plain_blocks()
        self._before, self._after, self._finish = _compiled_parts()
        self._compiled = True

    def patchify(self, latent: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, rows * columns, C * ph * pw), channel first inside a patch."""
        ph, pw = self.cfg.patch
        x = latent.unflatten(3, (-1, pw)).unflatten(2, (-1, ph))  # (B, C, rows, ph, columns, pw)
        patches: Tensor = x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return patches

    def unpatchify(self, tokens: Tensor, grid: Grid) -> Tensor:
        """(B, rows * columns, ph * pw * C) -> (B, C, h, w); on the way out the channel comes last."""
        ph, pw = self.cfg.patch
        x = tokens.unflatten(1, grid).unflatten(3, (ph, pw, -1))  # (B, rows, columns, ph, pw, C)
        latent: Tensor = x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return latent

    def grid(self, latent: Tensor) -> Grid:
        """Rows and columns of tokens of a latent (..., h, w)."""
        ph, pw = self.cfg.patch
        rows, columns = latent.shape[-2] // ph, latent.shape[-1] // pw
        if rows * ph != latent.shape[-2] or columns * pw != latent.shape[-1]:
            raise ValueError(f"latent of {tuple(latent.shape[-2:])} is not a multiple of the patch {ph}x{pw}")
        return rows, columns

    def position_table(self, grids: Sequence[Grid], device: torch.device) -> tuple[Tensor, Tensor]:
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

    def predict(self, items: Sequence[Tensor], mods: Tensor, txt: Tensor, text: TextLengths) -> Tensor:
        """Velocity of the target.

        `items`: latents [target, reference 1, ...], each (B, C, h_i, w_i), normalised as the VAE's
        config says. `mods`: (1 or B, L, 2, 6, M) of `modulations`. `txt`: (T, M), packed and embedded
        by `embed_text`, with its lengths. Returns (B, C, h_0, w_0) in the network's dtype.
        """
        if len(text.lengths) != items[0].shape[0] or text.total != txt.shape[0]:
            raise ValueError(
                f"{len(text.lengths)} texts of {text.total} tokens given for {items[0].shape[0]} samples"
                f" and {txt.shape[0]} tokens"
            )
        grids = [self.grid(item) for item in items]
        patches = torch.cat([self.patchify(item.to(self.dtype)) for item in items], dim=1)
        img = self.img_in(patches)  # (B, S, M)
        pe = self.position_table(grids, img.device)
        target = grids[0][0] * grids[0][1]
        if self._fused is not None and self._can_fuse(mods):
            streams = mods[0].unbind(1)  # (L, 6, M) each
            blocks = self.blocks()
            img = self._fused(blocks, self.attend, img, txt, *streams, text.lengths, pe, target)
            return self.unpatchify(self.proj_out(layer_norm(img)), grids[0])
        img_mods = mods[:, :, 0].permute(1, 2, 0, 3).unsqueeze(3)  # (L, 6, B, 1, M)
        txt_mods = mods[:, :, 1].permute(1, 2, 0, 3)  # (L, 6, B, M)
        if len(mods) > 1:
            # index_select, as the gradient of indexing sorts its many equal indices first.
            txt_mods = txt_mods.index_select(2, text.sample_of_token(img.device))  # (L, 6, T, M)
        with self._sizes_apart():
            img = self._run_blocks(img, txt, img_mods, txt_mods, text, pe, target)
        return self.unpatchify(self.proj_out(layer_norm(img)), grids[0])

    def _can_fuse(self, mods: Tensor) -> bool:
        """Whether the fused blocks compute what is asked for here."""
        plain = torch.is_grad_enabled() or not self.trim_last_block or not self.join_streams
        return len(mods) == 1 and not plain

    def _run_blocks(
        self,
        img: Tensor,
        txt: Tensor,
        img_mods: Tensor,
        txt_mods: Tensor,
        text: TextLengths,
        pe: tuple[Tensor, Tensor],
        target: int,
    ) -> Tensor:
        """All blocks over (B, S, M) and (T, M), for the first `target` image tokens: (B, target, M)."""
        lengths = text.lengths if self.join_streams else None
        whole = tuple(img.shape[1] + length for length in text.lengths)
        spans = Spans(whole, whole)
        blocks = self.blocks()
        last = blocks.pop() if self.trim_last_block else None
        for layer, block in enumerate(blocks):
            img_mod, txt_mod = img_mods[layer], txt_mods[layer]
            qkv = self._before(block, img, txt, img_mod, txt_mod, pe, lengths)
            out = self._attend(qkv, spans, text, img.shape[1])
            img, txt = self._after(block, img, txt, out, img_mod, txt_mod)
        if last is None:
            return img[:, :target]
        qkv = self._before(last, img, txt, img_mods[-1], txt_mods[-1], pe, lengths, target)
        img_out, _ = self._attend(qkv, Spans((target,) * len(whole), whole), text, target)
        finished: Tensor = self._finish(last, img, img_out, img_mods[-1])
        return finished

    def _attend(self, qkv: Sequence[Any], spans: Spans, text: TextLengths, img_tokens: int) -> Packed:
        """The attention's output as streams. They are taken apart out here: offsets would end up in the graph."""
        if self.join_streams:
            return separate(self.attend(*qkv, spans), img_tokens)
        streams: Packed = self.attend(*qkv, text)
        return streams

    def _sizes_apart(self) -> AbstractContextManager[Any]:
        """Sizes that happen to be equal are not taken for one: the next instruction's would compile anew."""
        if not self._compiled:
            return nullcontext()
        patched: AbstractContextManager[Any] = fx_config.patch(use_duck_shape=False)  # type: ignore[attr-defined]
        return patched


@functools.cache
def _compiled_parts() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """The parts of a block, each compiled once in a process, when it is first called."""
    parts = (DoubleBlock.before_attention, DoubleBlock.after_attention, DoubleBlock.finish)
    before, after, finish = (torch.compile(part, dynamic=True) for part in parts)
    return before, after, finish
