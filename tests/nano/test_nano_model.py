"""The checkpoint that comes with joyedit really edits: held-out scenes and wordings, judged by their pixels."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import eval_nano
import pytest

from joyedit.job.run_config import RunConfig
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.loading import load_backend
from joyedit.weights.defaults import checkpoint_defaults, nano_folder
from nano.wording import EDITS
from support.figures import EXHAUSTIVE

MOST_BYTES = 12_000_000

# Of each kind a few, at fewer steps than recommended, to be done in time; the full table is `make eval-nano`'s.
STEPS, GUIDANCE, SEED = 8, 2.0, 3
EACH = 3 if EXHAUSTIVE else 1
LEAST_SHARE = 80.0
LEAST_PSNR = 30.0


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> JoyImageBackend:
    return load_backend(RunConfig(output=tmp_path_factory.mktemp("out"), model="nano", device="cpu"))


def share_of(backend: JoyImageBackend, kinds: Sequence[str] = EDITS, each: int = EACH) -> float:
    pairs = eval_nano.held_out_pairs(kinds, each, SEED)
    return eval_nano.share(eval_nano.edit_all(backend, pairs, STEPS, GUIDANCE))


def test_the_checkpoint_is_small() -> None:
    files = [file for file in nano_folder().rglob("*") if file.is_file() and file.suffix != ".py"]
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES
    assert {"model_index.json", "joyedit.json", "README.md"} <= {file.name for file in files}


def test_it_recommends_what_the_code_says() -> None:
    from nano.networks import DEFAULTS

    settings = checkpoint_defaults("nano")
    assert (settings.basesize, settings.steps, settings.guidance_scale) == tuple(DEFAULTS.values())


def test_its_autoencoder_keeps_held_out_scenes(backend: JoyImageBackend) -> None:
    found = eval_nano.reconstruction(backend, eval_nano.held_out_pairs(EDITS, 1, SEED))
    assert statistics.median(found) >= LEAST_PSNR


def test_edits_happen(backend: JoyImageBackend) -> None:
    assert share_of(backend) >= LEAST_SHARE


@pytest.mark.parametrize("fault", ["velocity negated", "features after the norm"])
def test_a_planted_fault_is_seen(backend: JoyImageBackend, fault: str) -> None:
    with eval_nano.FAULTS[fault](backend):
        assert share_of(backend, EDITS if EXHAUSTIVE else EDITS[:4], each=1) <= 25.0
