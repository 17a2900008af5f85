"""Both schedules by their formulas, guidance and the Euler step by hand."""

from __future__ import annotations

import pytest
import torch

from joyedit.models.schedule import euler_step, guide, sigmas


def test_the_original_schedule_at_40_steps() -> None:
    levels = sigmas(40, "original")
    assert levels.shape == (41,)
    assert levels.dtype == torch.float32
    by_formula = [1.5 * s / (1 + 0.5 * s) for s in (1 - i / 40 for i in range(41))]
    assert levels.tolist() == pytest.approx(by_formula, abs=1e-6)
    message = [1, 0.9832, 0.0732, 0.0370, 0]  # the authors' printed values, 4 digits
    assert [levels[i].item() for i in (0, 1, -3, -2, -1)] == pytest.approx(message, abs=6e-5)


def test_the_diffusers_schedule_at_40_steps() -> None:
    levels = sigmas(40, "diffusers")
    assert [levels[i].item() for i in (0, 1, -3, -2, -1)] == pytest.approx([1, 0.9828, 0.0401, 0.0022, 0], abs=6e-5)


@pytest.mark.parametrize("steps", [2, 4, 25, 40])
def test_the_diffusers_schedule_is_the_schedulers_own(steps: int) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.5)
    scheduler.set_timesteps(steps)
    assert torch.allclose(sigmas(steps, "diffusers"), scheduler.sigmas, atol=1e-6)
    assert torch.allclose(sigmas(steps, "diffusers")[:-1] * 1000, scheduler.timesteps, atol=1e-3)


def test_one_step_goes_from_noise_to_the_picture() -> None:
    assert sigmas(1, "original").tolist() == [1, 0]
    assert sigmas(1, "diffusers").tolist() == [1, 0]


def test_no_step_and_unknown_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        sigmas(0, "original")
    with pytest.raises(ValueError, match="known: original, diffusers"):
        sigmas(4, "karras")  # type: ignore[arg-type]


def test_guidance_keeps_the_conditional_length_at_every_pixel() -> None:
    torch.manual_seed(0)
    cond, uncond = torch.randn(2, 16, 3, 5), torch.randn(2, 16, 3, 5)
    scale = torch.tensor([4.0, 2.0]).view(-1, 1, 1, 1)
    out = guide(cond, uncond, scale)
    assert torch.allclose(out.norm(dim=1), cond.norm(dim=1), rtol=1e-5)
    plain = uncond + scale * (cond - uncond)
    assert torch.allclose(out / out.norm(dim=1, keepdim=True), plain / plain.norm(dim=1, keepdim=True), atol=1e-6)


def test_guidance_survives_branches_that_cancel() -> None:
    cond = torch.zeros(1, 16, 2, 2)
    assert torch.isfinite(guide(cond, cond, torch.full((1, 1, 1, 1), 4.0))).all()


def test_guidance_of_one_is_the_conditional_branch() -> None:
    cond, uncond = torch.randn(1, 16, 2, 2), torch.randn(1, 16, 2, 2)
    assert torch.allclose(guide(cond, uncond, torch.ones(1, 1, 1, 1)), cond, atol=1e-6)


def test_euler_moves_along_the_velocity_in_fp32() -> None:
    latent = torch.ones(1, 1, 1, 1)
    velocity = torch.full((1, 1, 1, 1), 2.0, dtype=torch.bfloat16)
    moved = euler_step(latent, velocity, torch.tensor(1.0), torch.tensor(0.75))
    assert moved.dtype == torch.float32
    assert moved.item() == pytest.approx(0.5)


def test_the_true_velocity_leads_from_noise_to_the_picture() -> None:
    """Along v = noise - picture any schedule arrives at the picture, since each step is exact."""
    torch.manual_seed(1)
    noise, target = torch.randn(1, 16, 4, 4), torch.randn(1, 16, 4, 4)
    for schedule in ("original", "diffusers"):
        levels = sigmas(7, schedule)
        latent = noise
        for step in range(7):
            latent = euler_step(latent, noise - target, levels[step], levels[step + 1])
        assert torch.allclose(latent, target, atol=1e-5)
