"""Pictures as patches: the way without the image processor gives what the processor gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from joyedit.models.qwen_loading import load_image_processor
from joyedit.runtime.joyimage.conditioning import PictureReader
from joyedit.runtime.joyimage.pixels import levels_of
from joyedit.weights.defaults import nano_folder


@pytest.fixture
def processor(tmp_path: Path) -> Any:
    config = json.loads((nano_folder() / "processor" / "preprocessor_config.json").read_text())
    config |= {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}
    config["size"] = {"shortest_edge": 64 * 64, "longest_edge": 320 * 320}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    return load_image_processor(tmp_path)


@pytest.mark.parametrize(
    ("width", "height", "fits"),
    [(64, 64, True), (96, 160, True), (320, 256, True), (100, 96, False), (32, 32, False), (640, 640, False)],
)
def test_a_picture_reads_as_by_the_processor(processor: Any, width: int, height: int, fits: bool) -> None:
    read = PictureReader(processor)
    assert read.fits(width, height) == fits
    levels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(levels)
    wanted = processor(images=[picture], return_tensors="pt")
    patches, grid = read(picture, levels_of(picture))
    assert wanted["image_grid_thw"].tolist() == [[1, 2 * grid[0], 2 * grid[1]]]
    assert patches.dtype == torch.float32
    torch.testing.assert_close(patches, wanted["pixel_values"].float(), atol=2e-6, rtol=0)
