"""The authors' infer_config.py: plain values are read out of it, and nothing in it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from joyedit.errors import CheckpointError
from joyedit.job.run_config import RunConfig
from joyedit.runtime.model import describe_without_loading
from joyedit.weights.layouts import open_checkpoint
from joyedit.weights.literals import PUBLISHED, read_literals
from joyedit.weights.locate import locate
from joyedit.weights.wanted import Wanted
from support.hostile import put

AS_WRITTEN = """
from dataclasses import dataclass, field
import modules.that_nobody_has
raise SystemExit("it was executed")

@dataclass
class Config(Base):
    dit_arch_config: dict = field(
        default_factory=lambda: {
            "target": modules.Transformer3DModel,
            "params": {"hidden_size": 4096, "rope_dim_list": [16, 56, 56], "rope_type": "rope", "theta": 10000,
                       "text": str(_ROOT / "x"), "attn_backend": "flash_attn"},
        }
    )
    scheduler_arch_config = {"target": "x", "params": {"num_train_timesteps": 1000, "shift": 1.5}}
    precision: str = "bf16"
    a = b = 3
    pattern = "\\d"
    unset: int
"""


def said(path: Path, text: str) -> dict[str, Any]:
    path.write_text(text)
    return read_literals(path)


def test_the_values_that_no_shape_tells(tmp_path: Path) -> None:
    assert said(tmp_path / "infer_config.py", AS_WRITTEN) == PUBLISHED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 3",
        "class A:\n    pass",
        "class A:\n    dit_arch_config: dict",
        "class A:\n    dit_arch_config = make()",
        "class A:\n    dit_arch_config = field(default_factory=make)",
        "class A:\n    dit_arch_config = {'params': make()}",
        "class A:\n    dit_arch_config = {'params': {'theta': 10 ** 9, 'rope_dim_list': [1, f()], **more, 3: 4}}",
        "class A:\n    dit_arch_config = {'params': {'theta': open('/etc/passwd')}}",
        "def f():\n    class A:\n        dit_arch_config = {'params': {'theta': 3.0}}",
        "class A:\n    scheduler_arch_config = {'params': {'shift': 4.0}}",
    ],
)
def test_what_is_no_plain_value_is_not_read(tmp_path: Path, text: str) -> None:
    assert said(tmp_path / "infer_config.py", text) == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("class A:", "cannot be read as Python ("),
        ("\0", "cannot be read as Python ("),
        ("x = " + "(" * 10_000, "cannot be read as Python ("),
        ("x = " + "-" * 60_000 + "1", "cannot be read as Python ("),
        ("#" * (1 << 17), "is larger than"),
    ],
)
def test_a_file_that_cannot_be(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(CheckpointError, match=r"infer_config\.py: ") as caught:
        said(tmp_path / "infer_config.py", text)
    assert reason in str(caught.value)


def class_of(**dit: Any) -> str:
    return f"class A:\n    dit_arch_config = {{'params': {dit!r}}}\n"


def test_what_the_checkpoint_is_made_of(original: Path) -> None:
    put(original / "infer_config.py", class_of(rope_dim_list=[8, 12, 12], theta=256))
    checkpoint = open_checkpoint(locate(Wanted(model=str(original))))
    assert (checkpoint.dit.cfg.rope_dims, checkpoint.dit.cfg.theta, checkpoint.shift) == ((8, 12, 12), 256.0, 1.5)
    put(original / "infer_config.py", "class A:\n    scheduler_arch_config = {'params': {'shift': 4}}")
    assert open_checkpoint(locate(Wanted(model=str(original)))).shift == 1.5  # the published schedule's


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"rope_dim_list": [8, 12, 14]}, "must be even numbers that add up to 32"),
        ({"rope_type": "other"}, "rope_type 'other' is not supported"),
        ({"theta": 0}, "theta must be a number from 1"),
    ],
)
def test_values_that_cannot_be(original: Path, refused: Any, values: dict[str, Any], reason: str) -> None:
    put(original / "infer_config.py", class_of(**values))
    assert reason in refused(original)


def test_the_identity_knows_other_values(original: Path) -> None:
    """Earlier releases did not read the file; where it says nothing new, their pictures stay done."""

    def identity() -> str:
        return describe_without_loading(RunConfig(output=Path("o"), model=str(original))).identity

    from joyedit.runtime.model import folder_identity

    assert identity() == folder_identity(original)
    put(original / "infer_config.py", AS_WRITTEN)
    assert identity() == folder_identity(original)
    put(original / "infer_config.py", AS_WRITTEN.replace('"theta": 10000', '"theta": 256'))
    assert identity() != folder_identity(original)
