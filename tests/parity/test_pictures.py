"""Finished pictures against diffusers' pipelines, within one 8-bit level."""

from __future__ import annotations

from typing import Any

import pytest

from joyedit.runtime.joyimage.backend import JoyImageBackend
from support import reference
from support.editing import Edit, levels_apart, picture, run, spread


@pytest.mark.parametrize("size", [(300, 410), (256, 256), (500, 190)])
@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_an_edit(ours: JoyImageBackend, theirs: Any, size: tuple[int, int], guidance: float) -> None:
    image = picture(*size)
    expected = reference.edit(theirs, image, "Turn the sky red.", num_inference_steps=3, guidance_scale=guidance)
    (got,) = run(ours, Edit(text="Turn the sky red.", images=[image], guidance=guidance))
    assert spread(got) > 10
    assert levels_apart(got, expected) <= 1


def test_an_edit_with_a_negative_prompt_and_another_seed(ours: JoyImageBackend, theirs: Any) -> None:
    image = picture(256, 320, seed=3)
    expected = reference.edit(
        theirs, image, "Remove the car.", negative_prompt=["blurry, grey"], num_inference_steps=4,
        guidance_scale=2.5, seed=7,
    )  # fmt: skip
    edit = Edit(text="Remove the car.", images=[image], negative="blurry, grey", steps=4, guidance=2.5, seed=7)
    (got,) = run(ours, edit)
    assert levels_apart(got, expected) <= 1
    assert levels_apart(got, run(ours, Edit(text=edit.text, images=[image], steps=4, guidance=2.5))[0]) > 20


def test_text_to_image(ours: JoyImageBackend, theirs: Any) -> None:
    expected = reference.edit(
        theirs, None, "A red car.", num_inference_steps=3, guidance_scale=3.0, height=256, width=256
    )
    (got,) = run(ours, Edit(text="A red car.", guidance=3.0))
    assert levels_apart(got, expected) <= 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_edit_plus(ours_plus: JoyImageBackend, theirs_plus: Any, count: int) -> None:
    images = [picture(300, 410, seed=1), picture(256, 200, seed=2), picture(200, 390, seed=3)][:count]
    expected = reference.edit(theirs_plus, images, "Put all together.", num_inference_steps=3)
    (got,) = run(ours_plus, Edit(text="Put all together.", images=images, negative=" "))
    assert levels_apart(got, expected) <= 1


def test_the_original_schedule_gives_the_reference_other_sigmas(
    ours: JoyImageBackend, theirs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers has no such schedule: it is given its noise levels, before its own shift, by formula."""
    image = picture(256, 256, seed=4)
    unshifted = [1 - i / 4 for i in range(4)]  # 4 of the 5 points; diffusers adds the last zero
    expected = reference.edit(theirs, image, "Turn it blue.", sigmas=unshifted, guidance_scale=4.0)
    monkeypatch.setattr(ours, "schedule", "original")
    (got,) = run(ours, Edit(text="Turn it blue.", images=[image], steps=4))
    assert levels_apart(got, expected) <= 1
    monkeypatch.setattr(ours, "schedule", "diffusers")
    assert levels_apart(got, run(ours, Edit(text="Turn it blue.", images=[image], steps=4))[0]) > 1
