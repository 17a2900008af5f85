"""`load(...).edit(...)`: one picture at a time, by the way of the command line: the same checks, the same pass."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from joyedit.api.arguments import NETWORKS, SPEED_AS_TEXT, loras_as_flags, path_of, refuse_unknown
from joyedit.api.display import hush_tqdm
from joyedit.api.keywords import EditKeywords, LoadKeywords, Picture
from joyedit.api.signature import shows
from joyedit.api.spelling import spelled_for_python
from joyedit.errors import ItemError, UsageError
from joyedit.job.boxes import fractions_of
from joyedit.job.fit import parse_size
from joyedit.job.masks import mask_fault
from joyedit.job.pictures.decode import Picture as ReadPicture
from joyedit.job.pictures.decode import load_picture, picture_in_memory
from joyedit.job.pictures.fitted import fitted, taken_out
from joyedit.job.pictures.masked import Masked, mask_of, with_mask
from joyedit.job.pictures.red_box import with_red_box
from joyedit.job.plan import size_item
from joyedit.job.source.data_uris import DataUriError, is_data, picture_of
from joyedit.job.source.line_pictures import mask_problem
from joyedit.job.spec import EditItem, FailedItem, Lora, Settings
from joyedit.request import build_item, loaded_loras, loading_config
from joyedit.runtime.model import backend_loader, model_settings
from joyedit.runtime.pipeline.running_batch import encode_batch, start_batch
from joyedit.runtime.protocol import Backend, OutOfMemory, ReadyBatch
from joyedit.weights.wanted import Wanted

if TYPE_CHECKING:
    from typing_extensions import Unpack

_SETTINGS = tuple(EditKeywords.__annotations__)
_LOADING = tuple(LoadKeywords.__annotations__)


class Editor:
    """A loaded model. It edits one picture a call; `run` is the way for many. A `with` block closes it at its end."""

    def __init__(self, backend: Backend, defaults: Settings, loras: tuple[Lora, ...] = ()) -> None:
        """`defaults` are the model's own settings, in force where a call gives none; `loras` are part of the model."""
        self.backend = backend
        self.defaults = defaults
        self.loras = loras
        self._lock = threading.RLock()  # a signal's handler may close the editor
        self._is_closed = False

    @shows(EditKeywords)
    def edit(
        self, image: Picture | Sequence[Picture] | None, instruction: str, **settings: Unpack[EditKeywords]
    ) -> Image.Image:
        """Edit one picture; the result is RGB, of the size of the last reference unless `size` says another.

        `image`: a PIL picture, a path or a `data:` URI, a list of them for several references, or None for text to
        image. `settings`: any of steps, guidance_scale, seed, negative_prompt, basesize, size, fit, width and height
        (the last two together), as a line of a manifest has them, box, which is drawn in red on the picture, and mask:
        a picture as `image`, white where the (last) picture may change and black where it stays as it is. Raises
        UsageError for a setting or an instruction that cannot work. Raises ItemError, with the codes of the command,
        for a picture that cannot be read ("unreadable_picture" and others), for a mask of other proportions
        ("bad_mask"), for "out_of_memory" and for "not_finite". Any thread may call it; edits come one after the other,
        because there is memory for one. A closed editor raises UsageError.
        """
        self._refuse_closed()
        refuse_unknown(settings, _SETTINGS)
        mask = settings.get("mask")
        own = {name: value for name, value in settings.items() if name != "mask"}
        given = _as_list(image)
        item = build_item(len(given), instruction, own, self.defaults, self.loras)
        read = [_read(picture) for picture in given]
        masked = None if mask is None else _masked(read, mask, item)
        pictures = [one.image for one in read]
        sizes = {path: (p.height, p.width) for path, p in zip(item.images, pictures, strict=True)}
        sized = size_item(item, sizes.__getitem__)
        if isinstance(sized, FailedItem):  # the sizes are known, so it is the box
            raise ItemError(sized.code, sized.message)
        if item.box is not None:
            pictures = [with_red_box(p, fractions_of(item.box, (p.height, p.width))) for p in pictures]
        shown = tuple(fitted(picture, fit) for picture, fit in zip(pictures, sized.fits, strict=True))
        batch = ReadyBatch.of([sized], [shown])
        result = taken_out(self._edited(batch), sized.shown, sized.result)
        if masked is None:
            return result
        is_bucket = parse_size(item.result_size).kind == "bucket"
        return with_mask(result, masked, sized.fits[-1], sized.shown, is_bucket=is_bucket)

    def _edited(self, batch: ReadyBatch) -> Image.Image:
        """What the model makes of a batch of one item."""
        with self._lock:
            self._refuse_closed()
            try:
                running = start_batch(self.backend, encode_batch(self.backend, batch), lambda done, total: None)
            except OutOfMemory as error:
                raise ItemError("out_of_memory", f"the edit does not fit on the device: {error}") from None
            return running.picture(0)

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise UsageError("this editor is closed (load the model again)")

    def close(self) -> None:
        """Give the device's memory back, when the edit of another thread is finished. There are no edits after it."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self.backend.close()

    def __enter__(self) -> Editor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@shows(LoadKeywords)
def load(model: str | os.PathLike[str] | None = None, **options: Unpack[LoadKeywords]) -> Editor:
    """Load a checkpoint: a folder in a known layout, a hub id, or `nano`; no model where dit, encoder and vae are
    given.

    `options`: any of dit, encoder, vae and tokenizer (paths), device, dtype, attention, compile, fused, memory,
    offload, schedule, speed, reuse, reuse_order, guidance_reuse and regions, with the values of the flags of those
    names. `lora`: a path, `{"file": path, "scale": number}`, or a list of these. Raises CheckpointError, DeviceError
    or UsageError.
    """
    hush_tqdm()
    with spelled_for_python():
        return _loaded(model, options)


def _loaded(model: str | os.PathLike[str] | None, options: Mapping[str, Any]) -> Editor:
    refuse_unknown(options, _LOADING)
    given: dict[str, Any] = {**options}
    given |= {name: path_of(name, given[name]) for name in NETWORKS if given.get(name) is not None}
    given |= {name: str(given[name]) for name in ("memory", *SPEED_AS_TEXT) if given.get(name) is not None}
    given["lora"] = loras_as_flags(given.get("lora"))
    config = loading_config(None if model is None else path_of("model", model), given)
    wanted = Wanted.of(config)
    recommended = loaded_loras(given["lora"]).settings
    return Editor(backend_loader(wanted)(config), recommended.over(model_settings(wanted)), config.merged_loras)


def _as_list(image: Picture | Sequence[Picture] | None) -> list[Picture]:
    if image is None:
        return []
    if isinstance(image, (Image.Image, str, os.PathLike)):
        return [image]
    given = list(image) if isinstance(image, Sequence) and not isinstance(image, (bytes, bytearray)) else [image]
    for one in given:
        if not isinstance(one, (Image.Image, str, os.PathLike)):
            more = " (PIL.Image.fromarray makes one of an array)" if hasattr(one, "__array__") else ""
            raise UsageError(f"a picture is one of Pillow, a path or a data: URI, not {type(one).__name__}{more}")
    return given


def _read(picture: Picture, *, follows_profile: bool = True) -> ReadPicture:
    if isinstance(picture, Image.Image):
        return picture_in_memory(picture, follows_profile=follows_profile)
    if isinstance(picture, str) and is_data(picture):
        try:
            return load_picture(picture_of(picture), follows_profile=follows_profile)
        except DataUriError as error:
            raise ItemError("unreadable_picture", str(error.problem)) from None
    return load_picture(Path(picture), follows_profile=follows_profile)


def _masked(pictures: Sequence[ReadPicture], given: Any, item: EditItem) -> Masked:
    """The last picture and its mask. Raises UsageError and ItemError."""
    if not isinstance(given, (Image.Image, str, os.PathLike)):
        raise UsageError(f"a mask is a picture, a path or a data: URI, not {type(given).__name__}")
    wrong = mask_problem(len(pictures), item.size)
    if wrong is not None:
        raise UsageError(wrong.text)
    mask, last = mask_of(_read(given, follows_profile=False)), pictures[-1].image
    fault = mask_fault((mask.height, mask.width), (last.height, last.width))
    if fault is not None:
        raise ItemError("bad_mask", fault)
    return Masked(pictures[-1], mask)
