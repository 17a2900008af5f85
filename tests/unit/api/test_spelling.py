"""Messages of Python name keywords, and no flags of the command."""

from __future__ import annotations

import pytest

import joyedit
from joyedit.api.spelling import in_python, respelled
from joyedit.errors import JoyeditError, ManifestError, Problem


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("--steps must be at least 1, not 0", "steps must be at least 1, not 0"),
        ("--skip-missing edits those that are there", "skip_missing=True edits those that are there"),
        ("give it with -p, or as 'instruction'", "give it with prompt, or as 'instruction'"),
        ("needs a recipe: name one with --recipe, --set", "needs a recipe: name one with recipe, recipe_values"),
        ("--neg-prompt and --no-page", "negative_prompt and page=False"),
        ("photos/--steps/a.png and a--steps", "photos/--steps/a.png and a--steps"),
        ("--unknown stays", "--unknown stays"),
    ],
)
def test_flags_become_keywords(text: str, told: str) -> None:
    assert in_python(text) == told


def test_errors_keep_their_kind_and_their_problems() -> None:
    error = respelled(ManifestError([Problem("no", "add --update").at("m.jsonl", 3)]))
    assert isinstance(error, ManifestError)
    assert str(error) == "m.jsonl:3: no (add update=True)"
    assert error.problems[0].remedy == "add update=True"
    assert str(respelled(JoyeditError("--limit"))) == "limit"


def test_what_run_and_load_refuse() -> None:
    with pytest.raises(joyedit.UsageError, match=r"^steps must be a whole number from 1"):
        joyedit.run([{"image": "a.png"}], model="nano", steps=0, prompt="x", output="never")
    with pytest.raises(joyedit.UsageError, match=r"^device must be auto, cuda, mps or cpu, not 'tpu'"):
        joyedit.load("nano", device="tpu")  # type: ignore[arg-type]
