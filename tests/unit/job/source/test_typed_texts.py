"""Texts behind flags pass the checks of the texts in a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import UsageError
from joyedit.job.source.recipe_reader import load_recipe
from joyedit.job.source.sources import SourceOptions, open_source
from joyedit.job.spec import EditItem, Settings

NAMES = {
    "prompt": "the instruction given with -p",
    "negative": "the text given with --neg-prompt",
    "value": "the value given with --set thing",
}
UTF8 = "(set the terminal or the script to UTF-8)"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 6), "red").save("a.png")
    Path("r.yaml").write_text("instruction: '{thing} {instruction}'\nparameters: {thing: {}}\n")


def opened(**texts: str) -> Any:
    return open_source(
        "a.png",
        SourceOptions(
            output=Path("out"),
            prompt=texts.get("prompt", "go"),
            flags=Settings(negative_prompt=texts.get("negative")),
            recipe=load_recipe("r.yaml"),
            recipe_values={"thing": texts.get("value", "cup")},
        ),
    )


@pytest.mark.parametrize("where", sorted(NAMES))
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("caf\udce9", f"is not valid UTF-8: 'caf\\udce9' {UTF8}"),
        ("x" * 5_000 + "\ud800" + "y" * 5_000, f"is not valid UTF-8: '{'x' * 20}\\ud800{'y' * 30}... {UTF8}"),
        ("a\0b", "has a NUL character: 'a\\x00b'"),
        ("x" * ((4 << 20) + 1), "has more than 4 MiB"),
    ],
)
def test_texts_that_no_manifest_may_have(where: str, text: str, fault: str) -> None:
    with pytest.raises(UsageError) as error:
        opened(**{where: text})
    assert str(error.value) == f"{NAMES[where]} {fault}"


def test_every_fault_is_told() -> None:
    with pytest.raises(UsageError) as error:
        opened(prompt=" ", negative="\0", value="")
    assert str(error.value).split("\n") == [
        f"{NAMES['prompt']} is empty", f"{NAMES['negative']} has a NUL character: '\\x00'", f"{NAMES['value']} is empty"
    ]  # fmt: skip


def test_whatever_a_manifest_may_say_may_be_typed() -> None:
    [item] = opened(prompt="天\n\x1b[0m", negative="", value="\t é").items()
    assert isinstance(item, EditItem)
    assert (item.instruction, item.sampling.negative_prompt) == ("\t é 天\n\x1b[0m", "")
