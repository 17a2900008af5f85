from __future__ import annotations

import pytest

from joyedit.job.spec import Sampling, Settings


def test_settings_over_others() -> None:
    upper, lower = Settings(steps=3, negative_prompt=""), Settings(steps=4, seed=0, negative_prompt="x")
    assert upper.over(lower) == Settings(steps=3, seed=0, negative_prompt="")


def test_settings_become_sampling_when_nothing_is_open() -> None:
    settings = Settings(steps=3, guidance_scale=1.5, seed=0, negative_prompt="", width=64)
    assert settings.sampling() == Sampling(steps=3, guidance_scale=1.5, seed=0, negative_prompt="")
    with pytest.raises(ValueError, match=r"^these settings have no value: guidance_scale, seed$"):
        Settings(steps=3, negative_prompt="").sampling()
