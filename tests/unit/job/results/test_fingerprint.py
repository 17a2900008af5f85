"""The fingerprint is the hash of the JSON text that its docstring describes, and so stays what it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from joyedit.job.results.fingerprint import OUTPUT_VERSION, Fingerprinter
from joyedit.job.sizes import Size
from joyedit.job.spec import EditItem, Origin, PrecisionName, Sampling

PRINTS = Fingerprinter(model='a "model"', schedule="original", dtype="bf16", quality=90, metadata="keep")


@pytest.mark.parametrize("output", ["a.png", "a.PNG", "b/a.jpg", "a.webp"])
@pytest.mark.parametrize("size", [None, (640, 320)])
@pytest.mark.parametrize(
    ("instruction", "sampling", "inputs"),
    [
        ("make it blue", Sampling(), ["0" * 64]),
        ('say "夜"\n\\ 😀 {braces}', Sampling(guidance_scale=3, seed=2**64 - 1, negative_prompt='"]'), []),
        ("half a pair \udc80", Sampling(guidance_scale=1e-7, steps=1), ["a", 'no "hash"\n']),
    ],
)
def test_it_is_the_hash_of_this_text(
    output: str, size: Size | None, instruction: str, sampling: Sampling, inputs: list[str]
) -> None:
    item = EditItem(
        id="a", images=(Path("a.png"),), instruction=instruction, sampling=sampling, basesize=512, size=size,
        output=output, origin=Origin(file="m"),
    )  # fmt: skip
    parts = {
        "version": OUTPUT_VERSION,
        "model": PRINTS.model,
        "schedule": "original",
        "dtype": "bf16",
        "instruction": instruction,
        "sampling": [sampling.steps, float(sampling.guidance_scale), sampling.seed, sampling.negative_prompt],
        "basesize": 512,
        "size": size,
        "quality": None if output.lower().endswith(".png") else 90,
        "result": ["bucket", "crop", "keep"],
        "inputs": inputs,
    }
    assert PRINTS.of(item, inputs) == hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("precision", ["exact", "fp8", "int8"])
def test_precision_counts_only_where_it_is_not_exact(precision: PrecisionName) -> None:
    """Pictures of runs before there was a precision stay finished."""
    prints = replace(PRINTS, precision=precision)
    item = EditItem(
        id="a", images=(Path("a.png"),), instruction="x", sampling=Sampling(), basesize=512, size=None,
        output="a.png", origin=Origin(file="m"),
    )  # fmt: skip
    parts = {
        "version": OUTPUT_VERSION, "model": PRINTS.model, "schedule": "original", "dtype": "bf16", "instruction": "x",
        "sampling": [40, 4.0, 42, ""], "basesize": 512, "size": None, "quality": None, "inputs": ["b"],
        "result": ["bucket", "crop", "keep"],
    }  # fmt: skip
    parts |= {} if precision == "exact" else {"precision": precision}
    assert prints.of(item, ["b"]) == hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    assert (prints.of(item, ["b"]) == PRINTS.of(item, ["b"])) == (precision == "exact")
