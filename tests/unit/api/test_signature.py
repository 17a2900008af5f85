"""The keywords of `run`, `stream`, `load` and `edit`: those of the command, with types, defaults and help."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import joyedit
from joyedit.api.keywords import EditKeywords, LoadKeywords, RunKeywords
from joyedit.errors import UsageError
from joyedit.job.run_config import RunConfig
from joyedit.options import RunOptions, names_of
from joyedit.weights.wanted import Wanted

OTHERWISE = {"output", "model", "values", "no_page"}
"""Options that are keywords of their own, under this name or another one."""
ONLY_COMMAND = {"dry_run", "json", "quiet", "verbose"}
OF_ITEMS = {"width", "height", "box", "mask"}


def test_no_option_of_the_command_is_missing() -> None:
    assert set(RunKeywords.__annotations__) == set(names_of(RunOptions)) - OTHERWISE - ONLY_COMMAND
    for function in (joyedit.run, joyedit.stream):
        shown = inspect.signature(function).parameters
        assert set(shown) == {"source", "model", "output", "recipe_values", "page", "progress"} | set(
            RunKeywords.__annotations__
        )
        assert all(one.kind is one.KEYWORD_ONLY for name, one in shown.items() if name != "source")


def test_defaults_are_those_of_the_command() -> None:
    known = {one.name: one.default for one in fields(RunOptions)}
    for function in (joyedit.run, joyedit.load):
        for name, one in inspect.signature(function).parameters.items():
            if name not in ("source", "output", "model", "recipe_values", "page", "progress"):
                assert one.default == known[name], name


@pytest.mark.parametrize("name", sorted(RunKeywords.__annotations__))
def test_types_are_those_of_the_command_or_wider(name: str) -> None:
    def choices(hint: Any) -> set[str]:
        if get_origin(hint) is Literal:
            return set(get_args(hint))
        return set().union(*map(choices, get_args(hint)))

    mine, own = get_type_hints(RunKeywords)[name], get_type_hints(RunOptions)[name]
    assert choices(mine) == choices(own)
    assert (type(None) in get_args(mine)) == (type(None) in get_args(own)) or name == "lora"
    for kind in (int, float, bool):
        assert kind not in (own, *get_args(own)) or kind in (mine, *get_args(mine)), name


def test_load_has_what_concerns_a_model() -> None:
    parts = {one.name for one in fields(Wanted)} - {"model", "random"}
    assert parts <= set(LoadKeywords.__annotations__)
    of_device = {"device", "dtype", "precision", "attention", "compile", "fused", "memory", "offload", "schedule"}
    assert of_device <= set(LoadKeywords.__annotations__) & {one.name for one in fields(RunConfig)}
    assert set(LoadKeywords.__annotations__) <= set(names_of(RunOptions))
    assert set(EditKeywords.__annotations__) - OF_ITEMS <= set(names_of(RunOptions))


def test_the_help_of_each_keyword_is_shown() -> None:
    assert "    steps: Denoising steps." in str(joyedit.run.__doc__)
    assert "    device: Where to compute" in str(joyedit.load.__doc__)
    assert inspect.signature(joyedit.run).return_annotation == "Outcome"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: joyedit.run("x", promt="y"), r"unknown keyword 'promt' \(did you mean 'prompt'\?\)"),
        (lambda: joyedit.run("x", outptu="y"), r"unknown keyword 'outptu' \(did you mean 'output'\?\)"),
        (lambda: joyedit.stream("x", max_duratoin=3), r"unknown keyword 'max_duratoin' \(did you mean 'max_duration'"),
        (lambda: joyedit.load("nano", devise="cpu"), r"unknown keyword 'devise' \(did you mean 'device'\?\)"),
        (lambda: joyedit.run("x", dry_run=True), "unknown keyword 'dry_run'"),
    ],
)
def test_an_unknown_keyword_is_told_with_the_nearest_one(call: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        call()
