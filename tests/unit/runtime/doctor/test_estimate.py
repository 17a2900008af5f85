"""The estimate of an edit, against what was measured on an H100."""

from __future__ import annotations

import pytest

from joyedit.runtime.doctor.estimate import Work, estimate
from joyedit.runtime.doctor.outlook import TOKEN_IDS
from joyedit.runtime.placement.plan import Placement
from joyedit.weights.random import without_weights

RESIDENT = Placement(
    blocks=40, resident_blocks=40, slots=0, encoder_streams=False, weights=0, passing_encoder=0, working=0,
    predicted_peak=0, host=0,
)  # fmt: skip
PASSING = Placement(
    blocks=40, resident_blocks=0, slots=3, encoder_streams=True, weights=0, passing_encoder=0, working=0,
    predicted_peak=0, host=0, bytes_a_step=32_200_000_000, bytes_an_encoding=15_000_000_000,
)  # fmt: skip


@pytest.fixture(scope="module")
def work() -> Work:
    dit, vae, encoder = without_weights("full", TOKEN_IDS)
    return Work.of(dit.cfg, encoder.config, vae.cfg, basesize=1024, steps=40, guided=True)


def test_the_published_model_on_an_h100(work: Work) -> None:
    """Measured: 0.629 s a step, 0.081 + 0.0095 s to encode, 0.0139 s to decode, at 788 TFLOP/s in products."""
    found = estimate(work, 788, RESIDENT, None)
    assert found.step == pytest.approx(0.629, rel=0.03)
    assert found.encode == pytest.approx(0.09, rel=0.2)
    assert found.decode == pytest.approx(0.0139, rel=0.05)
    assert found.seconds == pytest.approx(25.3, rel=0.03)
    assert not found.waits_for_bus


def test_a_step_waits_for_the_bus(work: Work) -> None:
    fast, slow = (estimate(work, 788, PASSING, rate) for rate in (55e9, 10e9))
    assert not fast.waits_for_bus
    assert slow.waits_for_bus
    assert slow.step == pytest.approx(3.22)
    assert slow.encode == pytest.approx(1.5)
    assert estimate(work, 788, PASSING, None).step == fast.step


def test_without_guidance_a_step_is_half(work: Work) -> None:
    dit, vae, encoder = without_weights("full", TOKEN_IDS)
    half = Work.of(dit.cfg, encoder.config, vae.cfg, basesize=1024, steps=40, guided=False)
    assert half.step * 2 == work.step
