"""What can be told of the published model before its 50 GB are downloaded: whether this machine could load it."""

from __future__ import annotations

from dataclasses import replace

from joyedit.errors import DeviceError
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import BASE_SIZES
from joyedit.runtime.joyimage.networks import DeviceChoice
from joyedit.runtime.joyimage.placing import Unplaced, plan
from joyedit.weights.defaults import NANO
from joyedit.weights.layouts import fp32_bytes
from joyedit.weights.random import without_weights

TOKEN_IDS = {"image_token_id": 151655, "video_token_id": 151656}
"""Those of the published tokenizer; nothing here depends on them."""


def refuse_unfit(config: RunConfig) -> None:
    """Raises the DeviceError that loading would raise after the download, as far as the shapes tell it.

    Loads nothing. Of a GPU of CUDA only this is asked: whether there is one. Its memory is planned for the items of the
    run, which nobody has counted yet.
    """
    dit, vae, encoder = without_weights("full", TOKEN_IDS)
    wanted = DeviceChoice.of(config, fp32_bytes(dit, encoder, vae))
    if wanted.device.type == "cuda":
        return
    wanted.prepare(dit)
    try:
        plan(Unplaced(dit, encoder, vae), wanted, replace(config, largest=min(BASE_SIZES)))
    except DeviceError as error:
        raise DeviceError(f"{error}; nothing was downloaded (--model {NANO} runs here, for drawn scenes)") from None
