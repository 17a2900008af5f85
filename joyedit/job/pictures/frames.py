"""Which frame of a picture is edited: the first one that shows something."""

from __future__ import annotations

from PIL import Image

from joyedit.errors import ItemError
from joyedit.job.pictures.budget import Caller
from joyedit.job.pictures.colours import ALPHA_MODES

_OFTEN_CLEARED = ("BMP", "DIB", "TIFF")
"""Formats whose writers often leave the fourth channel at 0 and mean no alpha."""


def chosen_frame(image: Image.Image, name: str, caller: Caller, notes: list[str]) -> Image.Image:
    """`image` (decoded) at its first frame that shows something, with `notes` of what is left out.

    Where BMP and TIFF hide every pixel, their alpha is ignored. Raises ItemError ("empty_picture") if no frame
    shows anything, and nearly anything else where a later frame is damaged.
    """
    chosen, is_hidden = 0, hides_all(image)
    count = int(getattr(image, "n_frames", 1)) if is_hidden or getattr(image, "is_animated", False) else 1
    if is_hidden and image.format in _OFTEN_CLEARED:
        is_hidden = False
        image = _without_alpha(image)
        notes.append("alpha ignored: it hides every pixel")
    while is_hidden and chosen + 1 < count:
        caller.check()
        chosen += 1
        image.seek(chosen)
        image.load()
        is_hidden = hides_all(image)
    if is_hidden:
        told = "every pixel is transparent, so there is nothing to edit"
        raise ItemError("empty_picture", f"{name}: {told if count == 1 else f'in all {count} frames {told}'}")
    if chosen:
        notes.append(f"only frame {chosen + 1} of {count} is used: those before it show nothing")
    elif count > 1:
        kind = {"TIFF": "pages", "HEIF": "pictures"}.get(image.format or "", "frames")
        notes.append(f"only the {'main one' if kind == 'pictures' else 'first'} of {count} {kind} is used")
    return image


def hides_all(image: Image.Image) -> bool:
    """Whether the alpha of the picture (decoded) is 0 everywhere."""
    if image.mode in ALPHA_MODES:
        return image.getchannel(image.getbands()[-1]).getextrema() == (0, 0)
    clear = image.info.get("transparency")
    if clear is None:
        return False
    if image.mode == "P":
        alphas = clear if isinstance(clear, bytes) else bytes(0 if index == clear else 255 for index in range(256))
        used = [index for index, count in enumerate(image.histogram()) if count]
        return all(index < len(alphas) and alphas[index] == 0 for index in used)
    if image.mode not in ("1", "L", "RGB", "I", "I;16", "F"):
        return False
    low_and_high = image.getextrema()
    if image.mode == "RGB":
        return isinstance(clear, tuple) and low_and_high == tuple((value, value) for value in clear)
    return isinstance(clear, int) and low_and_high == (clear, clear)


def _without_alpha(image: Image.Image) -> Image.Image:
    """The colours alone."""
    kind = image.format
    info = {key: value for key, value in image.info.items() if key != "transparency"}
    if image.mode in ("RGBA", "LA", "PA"):
        image = image.convert({"RGBA": "RGB", "LA": "L", "PA": "P"}[image.mode])
    else:
        image = image.copy()
    image.info, image.format = info, kind
    return image
