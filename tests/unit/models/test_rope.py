"""The rotary table: which item, row and column a token's angles speak of."""

from __future__ import annotations

import pytest
import torch

from joyedit.models import rope
from joyedit.models.rope import apply_rope, rope_table, rotate_into

DIMS = (4, 6, 6)


def angle(position: int, pair: int, dim: int) -> float:
    return position / 10000 ** (2 * pair / dim)


def test_angles_of_a_token_of_the_second_reference() -> None:
    cos, sin = rope_table([(2, 3), (4, 2), (3, 5)], DIMS, 10000.0)
    assert cos.shape == (6 + 8 + 15, 8)
    token = 6 + 8 + 2 * 5 + 3  # item 2, row 2, column 3
    expected = [angle(2, p, 4) for p in range(2)]
    expected += [angle(2, p, 6) for p in range(3)]
    expected += [angle(3, p, 6) for p in range(3)]
    assert cos[token].tolist() == pytest.approx(torch.tensor(expected).cos().tolist(), abs=1e-6)
    assert sin[token].tolist() == pytest.approx(torch.tensor(expected).sin().tolist(), abs=1e-6)


def test_the_first_token_of_the_target_is_not_rotated() -> None:
    cos, sin = rope_table([(2, 2)], DIMS, 10000.0)
    assert cos[0].tolist() == [1.0] * 8
    assert sin[0].tolist() == [0.0] * 8


def test_rotation_keeps_lengths_and_turns_adjacent_pairs() -> None:
    cos, sin = rope_table([(3, 3)], DIMS, 10000.0)
    x = torch.randn(2, 9, 2, 16)
    out = apply_rope(x, cos, sin)
    assert torch.allclose(out.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    unit = torch.zeros(1, 9, 1, 16)
    unit[..., 4] = 1  # the first channel of the height axis
    turned = apply_rope(unit, cos, sin)
    assert turned[0, 3, 0, 4].item() == pytest.approx(torch.tensor(1.0).cos().item())  # row 1
    assert turned[0, 3, 0, 5].item() == pytest.approx(torch.tensor(1.0).sin().item())


def test_bf16_goes_in_and_out() -> None:
    cos, sin = rope_table([(1, 2)], DIMS, 10000.0)
    assert apply_rope(torch.ones(1, 2, 1, 16, dtype=torch.bfloat16), cos, sin).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_complex_numbers(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an Apple GPU."""
    cos, sin = rope_table([(3, 3)], DIMS, 10000.0)
    x = torch.randn(2, 9, 2, 16).to(dtype)
    expected = apply_rope(x, cos, sin)
    monkeypatch.setattr(rope, "_has_complex", lambda device: False)
    torch.testing.assert_close(apply_rope(x, cos, sin), expected)
    out = torch.empty_like(x[0])
    rotate_into(out, x[0], cos, sin)
    torch.testing.assert_close(out, expected[0])


def test_an_apple_gpu_has_none() -> None:
    assert [rope._has_complex(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [True, True, False]
